//! The dashboard in a real browser, on the real server with demo data: one test for each area, each a file
//! `<area>.spec.mjs` in crates/dashboard/ui/e2e.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use loom_testkit::{TestDatabase, chromium, kubernetes::FakeKubernetes, sdk};
use tokio::process::Command;

use crate::cli::BINARY;

const UI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboard/ui");
const PATIENCE: Duration = Duration::from_secs(400);
const USER: &str = "dev@localhost";

/// Areas whose server runs weavers, in a cluster that is played.
const WITH_WEAVERS: [&str; 2] = ["live", "weavers"];

macro_rules! areas {
    ($($area:ident)+) => {
        const AREAS: &[&str] = &[$(stringify!($area)),+];
        $(
            #[tokio::test]
            async fn $area() {
                look_at(stringify!($area)).await;
            }
        )+
    };
}

areas! { actions admin budget crashes crons live llm pages releases settings threads weavers }

#[test]
fn each_file_of_tests_in_the_browser_is_run() {
    let files = std::fs::read_dir(format!("{UI}/e2e")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let specs: BTreeSet<String> =
        names.filter_map(|name| Some(name.strip_suffix(".spec.mjs")?.to_owned())).collect();
    assert_eq!(specs, AREAS.iter().map(|area| (*area).to_owned()).collect());
}

#[expect(
    clippy::print_stderr,
    reason = "what was looked at, and how long it took, is for whoever runs it"
)]
async fn look_at(area: &str) {
    if !loom_dashboard::is_built()
        || !PathBuf::from(UI).join("node_modules/playwright-core").is_dir()
    {
        eprintln!("the dashboard is not built here (`.ci/build-ui`): not looked at");
        return;
    }
    let Some(browser) = chromium::find() else {
        eprintln!("no Chromium here (`.ci/setup browser`): not looked at");
        return;
    };
    let database = with_demo_data().await;
    let data = tempfile::tempdir().unwrap();
    let cluster = WITH_WEAVERS.contains(&area).then(FakeKubernetes::start);
    let target = PathBuf::from(BINARY).ancestors().nth(2).unwrap().to_owned();
    let mut node = Command::new(sdk::node().join("node"));
    node.current_dir(UI)
        .args(["e2e/run.mjs", area])
        .env("LOOM_E2E_SERVER", BINARY)
        .env("LOOM_E2E_OUT", target.join("screenshots"))
        .env("LOOM_TEST_CHROMIUM", browser)
        .env("LOOM_SERVER_DATA_DIR", data.path());
    if let Some(cluster) = &cluster {
        node.env("LOOM_SERVER_WEAVER_ENABLED", "true")
            .env("LOOM_SERVER_WEAVER_KUBECONFIG", cluster.kubeconfig());
    }
    for (name, value) in environment(database.url().expose()) {
        node.env(name, value);
    }
    eprintln!("{}", run(&mut node).await);
}

/// A database with the demo data, made once for all tests of a run.
async fn with_demo_data() -> TestDatabase {
    TestDatabase::filled("demo", async |url| {
        let data = tempfile::tempdir().unwrap();
        let made =
            run(server(url.expose(), data.path()).args(["demo-data", "--email", USER])).await;
        assert!(made.contains("has a month of data now"), "{made}");
    })
    .await
}

#[tokio::test]
async fn demo_data_comes_once_and_leaves_alone_what_has_data_of_its_own() {
    let database = with_demo_data().await;
    let count = async || -> i64 {
        let count = "SELECT (SELECT count(*) FROM threads) + (SELECT count(*) FROM llm_requests)
                          + (SELECT count(*) FROM crash_events) + (SELECT count(*) FROM cron_checkins)";
        sqlx::query_scalar(count).fetch_one(database.pool()).await.unwrap()
    };
    let before = count().await;
    assert!(before > 10_000, "{before} rows");
    let data = tempfile::tempdir().unwrap();
    let command = || server(database.url().expose(), data.path());
    let again = run(command().arg("demo-data")).await;
    assert!(again.contains("has its demo data already"), "{again}");
    // It has projects from the beginning.
    let refused = command().args(["demo-data", "--org", "loom-internal"]).output().await.unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--force"), "{refused:?}");
    assert_eq!(count().await, before);
}

/// What the server of these tests is told, wherever it runs.
fn environment(database: &str) -> [(&str, &str); 6] {
    [
        ("DATABASE_URL", database),
        ("LOOM_SERVER_AUTH_DEV_MODE", "true"),
        ("LOOM_SERVER_HEALTH_DISK_FREE_PERCENT", "0"),
        ("LOOM_SERVER_HEALTH_DISK_FREE_MIB", "0"),
        ("LOOM_SERVER_LOG_FORMAT", "json"),
        ("RUST_LOG", ""),
    ]
}

fn server(database: &str, data: &Path) -> Command {
    let mut server = Command::new(BINARY);
    server.envs(environment(database)).env("LOOM_SERVER_DATA_DIR", data);
    server
}

/// What it prints; it must end well.
async fn run(command: &mut Command) -> String {
    let ran = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let ran = tokio::time::timeout(PATIENCE, ran).await.expect("in time").unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    said
}
