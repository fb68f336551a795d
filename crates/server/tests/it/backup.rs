//! Backup and restore, by the real binary, of real data.

use std::{fs, path::Path};

use loom_testkit::{
    TestApp,
    app::{Caller, UPSTREAM_KEY},
};

use crate::{
    cli::{Cli, empty_database},
    cli_serve::{OpenDirectory, Server},
    keepsakes,
};

/// The command line on the data of this server.
fn beside(app: &TestApp) -> Cli {
    Cli::on(&app.database).set("LOOM_SERVER_DATA_DIR", app.data_dir().to_str().unwrap())
}

/// One whose provider of models is the mock of this server.
fn with_models(cli: Cli, app: &TestApp) -> Cli {
    cli.set("LOOM_SERVER_OPENAI_BASE_URL", &format!("{}/v1", app.mock.url()))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn caller(app: &TestApp, server: &Server, key: &str) -> Caller {
    app.anonymous().with_key(key).at_url(&server.url)
}

#[tokio::test]
async fn what_was_backed_up_beside_a_running_server_is_all_there_after_a_restore() {
    let app = TestApp::start().await;
    let dir = OpenDirectory::new();
    let cli = beside(&app);
    let key = keepsakes::make(&app, &cli, Some(&dir.join(""))).await;
    let saved = dir.join("saved");
    let done = cli.run(&["backup", text(&saved)]).await.exits(0);
    assert!(done.out.contains("1 repositories, 1 artifacts"), "{done:?}");
    assert!(done.err.contains("The master key is in it"), "{done:?}");
    assert!(!format!("{done:?}").contains(UPSTREAM_KEY), "{done:?}");
    // Not over one that is there.
    cli.run(&["backup", text(&saved)]).await.exits(1);

    let database = empty_database().await;
    let data = dir.join("data");
    let fresh = with_models(Cli::on(&database), &app).set("LOOM_SERVER_DATA_DIR", text(&data));
    let done = fresh.run(&["restore", text(&saved)]).await.exits(0);
    assert!(done.out.starts_with("restored the backup of "), "{done:?}");
    let mut server =
        Server::ready(Server::spawn(database.url().expose(), &data, &dir.join("log"))).await;
    let ada = caller(&app, &server, &key);
    keepsakes::check_rows(&ada).await;
    keepsakes::check_files(&ada, &dir.join("")).await;
    keepsakes::check_secret(&fresh).await;
    // Not over what is there.
    let done = fresh.run(&["restore", text(&saved)]).await.exits(1);
    assert!(done.err.contains("wants empty places"), "{done:?}");
    let elsewhere = Cli::on(&database).set("LOOM_SERVER_DATA_DIR", text(&dir.join("other")));
    let done = elsewhere.run(&["restore", text(&saved)]).await.exits(1);
    assert!(done.err.contains("the database is not empty"), "{done:?}");
    server.end().await;
}

#[tokio::test]
async fn a_backup_without_the_key_wants_it_back_and_a_damaged_one_is_refused() {
    let app = TestApp::start().await;
    let dir = OpenDirectory::new();
    let cli = beside(&app);
    keepsakes::make(&app, &cli, None).await;
    let saved = dir.join("saved");
    let done = cli.run(&["backup", "--without-key", text(&saved)]).await.exits(0);
    assert!(done.err.contains("is not in it"), "{done:?}");
    assert!(!saved.join("master.key").exists());

    let database = empty_database().await;
    let data = dir.join("data");
    let fresh = || with_models(Cli::on(&database), &app).set("LOOM_SERVER_DATA_DIR", text(&data));
    let done = fresh().run(&["restore", text(&saved)]).await.exits(1);
    assert!(done.err.contains("is not in the backup: set LOOM_SERVER_MASTER_KEY"), "{done:?}");
    let other = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let done =
        fresh().set("LOOM_SERVER_MASTER_KEY", other).run(&["restore", text(&saved)]).await.exits(1);
    assert!(done.err.contains("were sealed with the master key"), "{done:?}");

    let dump = saved.join("database.dump");
    let sound = fs::read(&dump).unwrap();
    let mut damaged = sound.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&dump, damaged).unwrap();
    let key = fs::read_to_string(app.data_dir().join("master.key")).unwrap();
    let with_key = fresh().set("LOOM_SERVER_MASTER_KEY", key.trim());
    let done = with_key.run(&["restore", text(&saved)]).await.exits(1);
    assert!(done.err.contains("database.dump is not as it was written"), "{done:?}");
    // None of these has changed anything.
    assert!(!data.exists());
    fs::write(&dump, sound).unwrap();
    with_key.run(&["restore", text(&saved)]).await.exits(0);
    keepsakes::check_secret(&with_key).await;
}

#[tokio::test]
async fn a_private_database_is_backed_up_while_its_server_runs_and_restored_without_one() {
    let dir = OpenDirectory::new();
    let (data, saved, again) = (dir.join("data"), dir.join("saved"), dir.join("again"));
    let of = |data: &Path| Cli::new().set("LOOM_SERVER_DATA_DIR", text(data));
    let done = of(&data).run(&["backup", text(&saved)]).await.exits(1);
    assert!(done.err.contains("there is no database"), "{done:?}");
    assert!(!saved.exists() && !data.join("postgres").exists());

    let mut server = Server::ready(Server::spawn("", &data, &dir.join("log"))).await;
    let key = of(&data).run(&["admin", "create", keepsakes::EMAIL]).await.exits(0).out;
    of(&data).run(&["backup", text(&saved)]).await.exits(0);
    server.end().await;

    of(&again).run(&["restore", text(&saved)]).await.exits(0);
    let mut server = Server::ready(Server::spawn("", &again, &dir.join("again.log"))).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let me = client.get(format!("{}/auth/me", server.url)).bearer_auth(key.trim()).send().await;
    let me: serde_json::Value = me.unwrap().json().await.unwrap();
    assert_eq!(me["user"]["email"], keepsakes::EMAIL);
    server.end().await;
}
