//! Provider keys in the database: stored by the command line, used by the server that runs.

use std::process::Stdio;

use loom_testkit::{
    Setup, TestApp, User,
    app::UPSTREAM_KEY,
    eventually,
    llm::{Reply, Script},
};
use serde_json::json;
use tokio::{io::AsyncWriteExt, process::Command};

use super::{GPT, Op, SONNET, ask, let_rest, start_patient};

const MASTER_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

struct Cli<'a>(&'a TestApp);

struct Output {
    success: bool,
    text: String,
}

impl Cli<'_> {
    /// `loom-server llm credential …` on the database of the running server.
    async fn run(&self, args: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_loom-server"))
            .args(["llm", "credential"])
            .args(args)
            .env("DATABASE_URL", self.0.database.url().expose())
            .env("LOOM_SERVER_MASTER_KEY", MASTER_KEY)
            .env("LOOM_SERVER_OPENAI_BASE_URL", format!("{}/v1", self.0.mock.url()))
            .env("LOOM_SERVER_ANTHROPIC_BASE_URL", self.0.mock.url())
            .env_remove("LOOM_SERVER_OPENAI_API_KEY")
            .env_remove("LOOM_SERVER_ANTHROPIC_API_KEY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // A command that reads nothing has gone before it is written to.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
        let output = child.wait_with_output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        Output { success: output.status.success(), text: String::from_utf8(text).unwrap() }
    }

    async fn sound(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input).await;
        assert!(output.success, "{args:?}: {}", output.text);
        assert!(!output.text.contains(UPSTREAM_KEY), "{}", output.text);
        output.text
    }
}

async fn without_keys() -> (TestApp, User) {
    let app = Setup::default()
        .set("LOOM_SERVER_ANTHROPIC_API_KEY", "")
        .set("LOOM_SERVER_OPENAI_API_KEY", "")
        .set("LOOM_SERVER_MASTER_KEY", MASTER_KEY)
        .start()
        .await;
    let user = app.user("a@example.com").await;
    (app, user)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_stored_beside_a_running_server_is_soon_used_by_it() {
    let (app, user) = without_keys().await;
    let cli = Cli(&app);
    ask(&user, Op::Chat, GPT).await.expect(503);
    user.get("/v1/models").await.expect(503);
    assert!(cli.sound(&["list"], "").await.contains("no credential is stored"));
    let told = cli.sound(&["add", "openai"], &format!("{UPSTREAM_KEY}\n")).await;
    assert!(told.contains("stored the credential `default` of `openai`"), "{told}");
    eventually(async || (ask(&user, Op::Chat, GPT).await.status == 200).then_some(())).await;
    user.get("/v1/models").await.expect(200);
    // The other provider still has none.
    ask(&user, Op::Messages, SONNET).await.expect(503);
    let stored = app.rows("SELECT id FROM llm_credentials").await;
    let row = &app.llm_requests(1).await[0];
    assert_eq!(row["credential_id"], stored[0]["id"]);

    let list = cli.sound(&["list"], "").await;
    let last_four = &UPSTREAM_KEY[UPSTREAM_KEY.len() - 4..];
    for part in ["openai", "default", last_four, "available"] {
        assert!(list.contains(part), "{list}");
    }
    assert!(cli.sound(&["test"], "").await.contains("ok"));
    assert!(cli.sound(&["test", "openai"], "").await.contains("it answers"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_models_alone_picks_a_stored_key_up_too() {
    let (app, user) = without_keys().await;
    let caller = user.with("anthropic-version", "2023-06-01");
    caller.get("/v1/models").await.expect(503);
    Cli(&app).sound(&["add", "anthropic"], UPSTREAM_KEY).await;
    eventually(async || (caller.get("/v1/models").await.status == 200).then_some(())).await;
    caller.get(&format!("/v1/models/{SONNET}")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_key_is_nowhere_in_the_database_in_clear() {
    let (app, _) = without_keys().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, format!("  {UPSTREAM_KEY}\n")).unwrap();
    let file = file.to_str().unwrap();
    Cli(&app).sound(&["add", "openai", "--name", "second", "--file", file], "").await;
    let rows =
        app.rows("SELECT *, encode(sealed_secret, 'escape') AS bytes FROM llm_credentials").await;
    assert_eq!(rows[0]["name"], "second");
    let hex: String = UPSTREAM_KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    for table in app.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").await {
        let table = table["tablename"].as_str().unwrap();
        let all = format!("{:?}", app.rows(&format!("SELECT * FROM \"{table}\"")).await);
        assert!(!all.contains(UPSTREAM_KEY) && !all.contains(&hex), "{table}");
    }
    assert!(!rows[0]["bytes"].as_str().unwrap().contains(UPSTREAM_KEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_is_refused_with_a_reason() {
    let (app, _) = without_keys().await;
    let cli = Cli(&app);
    for (args, input, reason) in [
        (&["add", "nobody"][..], UPSTREAM_KEY, "anthropic, openai"),
        (&["add", "openai"], "", "empty"),
        (&["add", "openai"], "two\nlines", "one line"),
        (&["add", "openai", "--file", "/does/not/exist"], "", "cannot be read"),
    ] {
        let output = cli.run(args, input).await;
        assert!(!output.success && output.text.contains(reason), "{args:?}: {}", output.text);
        assert!(!output.text.contains(UPSTREAM_KEY));
    }
    cli.sound(&["add", "openai"], UPSTREAM_KEY).await;
    let again = cli.run(&["add", "openai"], UPSTREAM_KEY).await;
    assert!(!again.success && again.text.contains("of this name"), "{}", again.text);
    assert_eq!(app.rows("SELECT 1 FROM llm_credentials").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_provider_refuses_fails_its_test_without_being_shown() {
    let (app, _) = without_keys().await;
    let cli = Cli(&app);
    let wrong = "sk-wrong-99887766554433221100";
    let added = cli.run(&["add", "openai"], wrong).await;
    assert!(added.success, "{}", added.text);
    let output = cli.run(&["test", "openai"], "").await;
    assert!(!output.success);
    assert!(output.text.contains("FAILED") && output.text.contains("401"), "{}", output.text);
    assert!(!output.text.contains(wrong), "{}", output.text);
}

#[tokio::test]
async fn a_401_of_the_provider_is_told_in_our_words() {
    let app = start_patient().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        for body in [op.body("m"), op.stream_body("m")] {
            let shown = format!(
                "Incorrect API key provided: {}****{}.",
                &UPSTREAM_KEY[..8],
                &UPSTREAM_KEY[UPSTREAM_KEY.len() - 4..]
            );
            app.mock.enqueue(Reply::json(401, &json!({"error": {"message": shown}})));
            let answer = user.post(op.path(), &body).await.expect(401);
            let (message, _) = op.error_of(&answer.json());
            assert!(message.contains("refuses the credential that this server holds"), "{message}");
            assert!(!answer.text.contains(&UPSTREAM_KEY[..8]), "{}", answer.text);
            if op == Op::Messages {
                let id = answer.header("request-id").unwrap();
                assert_eq!(answer.json()["request_id"], id, "{}", answer.text);
            }
            let_rest(&app);
        }
    }
    // Of both providers.
    app.mock.enqueue_for("/models", Script::error(401));
    app.mock.enqueue_for("/models", Script::error(401));
    let models = user.get("/v1/models").await.expect(401);
    assert!(models.text.contains("refuses the credential"), "{}", models.text);
}

#[tokio::test]
async fn an_error_that_repeats_the_key_is_passed_on_without_it() {
    let app = start_patient().await;
    let user = app.user("a@example.com").await;
    for status in [400, 403, 500] {
        let body = json!({"error": {"message": format!("key {UPSTREAM_KEY} is bad"), "type": "x", "code": "y"}});
        app.mock.enqueue(Reply::json(status, &body));
        let answer = ask(&user, Op::Chat, GPT).await.expect(status);
        assert!(!answer.text.contains(UPSTREAM_KEY), "{}", answer.text);
        assert!(answer.text.contains("is bad"), "{}", answer.text);
        answer.json();
        let_rest(&app);
    }
    let rows = format!("{:?}", app.llm_requests(3).await);
    assert!(!rows.contains(UPSTREAM_KEY));
}
