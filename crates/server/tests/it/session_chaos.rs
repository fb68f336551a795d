//! Sessions that a server acknowledged before it was killed are counted, and once, however often they are
//! told of again.

use std::{
    net::TcpListener,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use loom_testkit::{TestApp, chaos::Process, eventually};
use serde_json::json;

use crate::cli::BINARY;

const SESSIONS: usize = 2000;
const CLIENTS: usize = 16;
const KILLS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

async fn server(app: &TestApp, dir: &Path, turn: usize) -> (Process, String) {
    let port =
        TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port().to_string();
    let env = [
        ("DATABASE_URL", app.database.url().expose()),
        ("LOOM_SERVER_DATA_DIR", dir.to_str().unwrap()),
        ("LOOM_SERVER_HOST", "127.0.0.1"),
        ("LOOM_SERVER_PORT", port.as_str()),
        ("RUST_LOG", ""),
    ];
    let log = dir.join(format!("server-{turn}.log"));
    let mut process = Process::spawn(Path::new(BINARY), &["serve"], env, &log).unwrap();
    let url = format!("http://127.0.0.1:{port}");
    process.wait_ready(&format!("{url}/health/ready"), PATIENCE).await.unwrap();
    (process, url)
}

#[tokio::test]
async fn chaos_sessions_that_were_acknowledged_before_sigkill_are_counted_once() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let made = ada.post("/api/crash/projects", &json!({"name": "Shop"})).await.expect(201).json();
    let key = made["dsn"].as_str().unwrap().split_once("://").unwrap().1[..32].to_owned();
    let dir = tempfile::tempdir().unwrap();
    let (mut process, url) = server(&app, dir.path(), 0).await;
    let address = Mutex::new(url);
    let (next, acknowledged) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let http =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
    let client = async || {
        loop {
            let n = next.fetch_add(1, Ordering::SeqCst);
            if n >= SESSIONS {
                return;
            }
            let status = if n.is_multiple_of(10) { "crashed" } else { "exited" };
            let body = json!({"session_id": format!("s{n}"), "release": "1.0", "status": status});
            eventually(async || {
                let url = format!("{}/api/app-sessions/start", address.lock().unwrap());
                let request = http.post(url).header("x-crash-api-key", &key).json(&body);
                request.send().await.ok().filter(|answer| answer.status() == 200)
            })
            .await;
            acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    };
    let killer = async {
        for turn in 1..=KILLS {
            let enough = SESSIONS * turn / (KILLS + 1);
            eventually(async || (acknowledged.load(Ordering::SeqCst) >= enough).then_some(()))
                .await;
            process.kill9().await.unwrap();
            // None of those that it said are stored is missing.
            let said = acknowledged.load(Ordering::SeqCst);
            let stored = app.rows("SELECT sid FROM app_sessions").await.len();
            assert!(stored >= said, "{said} were acknowledged, {stored} are stored");
            let (started, url) = server(&app, dir.path(), turn).await;
            process = started;
            *address.lock().unwrap() = url;
        }
    };
    tokio::join!(join_all((0..CLIENTS).map(|_| client())), killer);
    for _ in 0..2 {
        let release =
            ada.get("/api/app-sessions/releases/1.0?project=shop").await.expect(200).json();
        assert_eq!(release["sessions"], SESSIONS);
        assert_eq!(release["crashed"], SESSIONS / 10);
        // The other server may be at it.
        let _ = app.running.features.jobs.run_now("session-aggregation").await;
    }
}
