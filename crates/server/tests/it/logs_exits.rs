//! No planted secret leaves by any exit of a real server: standard output in both forms, lines, stream.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use loom_testkit::{TestDatabase, chaos::Process, eventually};

use crate::cli::{BINARY, Cli};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Letters and digits as random as they look, so that no file holds a secret.
fn body(length: usize) -> String {
    const ALPHABET: &[u8] = b"aZ3kQ9xB7mT1pW5cR8vL2nY6dF4hJ0sG";
    (0..length).map(|at| char::from(ALPHABET[(at * 29 + at / 7) % ALPHABET.len()])).collect()
}

#[tokio::test]
async fn no_planted_secret_leaves_by_any_exit() {
    loom_testkit::app::install_crypto();
    let configured = "hunter2-correct-horse";
    let encoded = STANDARD.encode(format!("user:{configured}"));
    let token = format!("loom_pat_{}", body(36));
    let password = format!("pw{}", body(12));
    // A client may name its request as it likes, and the name is logged.
    let planted = [
        (configured.to_owned(), configured.to_owned()),
        (encoded.clone(), encoded),
        (token.clone(), token),
        (format!("Bearer%20{}", body(32)), body(32)),
        (format!("https://bot:{password}@git.example.com"), password),
        (format!("-----BEGIN%20PRIVATE%20KEY-----{}", body(64)), body(64)),
    ];
    for form in ["json", "pretty"] {
        let database = TestDatabase::new().await;
        let key = Cli::on(&database).run(&["admin", "create", "ada@example.com"]).await.exits(0);
        let key = key.out.trim().to_owned();
        let dir = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        drop(listener);
        let env = [
            ("DATABASE_URL", database.url().expose()),
            ("LOOM_SERVER_DATA_DIR", dir.path().to_str().unwrap()),
            ("LOOM_SERVER_HOST", "127.0.0.1"),
            ("LOOM_SERVER_PORT", &port),
            ("LOOM_SERVER_LOG_FORMAT", form),
            ("LOOM_SERVER_OPENAI_API_KEY", configured),
            ("RUST_LOG", ""),
        ];
        let log = dir.path().join("log");
        let mut process = Process::spawn(Path::new(BINARY), &["serve"], env, &log).unwrap();
        let url = format!("http://127.0.0.1:{port}");
        process.wait_ready(&format!("{url}/health/ready"), PATIENCE).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let ask = |path: &str| http.get(format!("{url}{path}")).bearer_auth(&key);
        let mut stream = ask("/api/admin/logs/stream").send().await.unwrap();
        for (shown, _) in &planted {
            let asked = ask("/auth/me").header("x-request-id", shown).send().await.unwrap();
            assert_eq!(asked.status(), 200);
        }
        let mut streamed = String::new();
        while streamed.matches("[redacted:").count() < planted.len() {
            let piece = stream.chunk().await.unwrap().unwrap();
            streamed.push_str(std::str::from_utf8(&piece).unwrap());
        }
        let read = ask("/api/admin/logs?limit=1000").send().await.unwrap().text().await.unwrap();
        let written = eventually(async || {
            let log = process.log();
            (log.matches("[redacted:").count() >= planted.len()).then_some(log)
        })
        .await;
        for (exit, text) in [("stdout", &written), ("stream", &streamed), ("lines", &read)] {
            assert!(text.matches("[redacted:").count() >= planted.len(), "{form} {exit}: {text}");
            for (_, secret) in &planted {
                assert!(!text.contains(secret), "{form} {exit} tells {secret}: {text}");
            }
        }
        process.terminate(PATIENCE).await.unwrap();
    }
}
