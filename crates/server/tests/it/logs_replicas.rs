//! Several servers on one database: each lists the others and passes their logs on.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use loom_testkit::{Setup, TestApp, TestDatabase, User, chaos::Process, eventually};
use reqwest::{Client, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cli::{BINARY, Cli};

const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    process: Process,
    url: String,
    _dir: TempDir,
}

impl Server {
    async fn start(database: &TestDatabase, master_key: &str, reachable: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        drop(listener);
        let url = format!("http://127.0.0.1:{port}");
        let dir = tempfile::tempdir().unwrap();
        let env = [
            ("DATABASE_URL", database.url().expose()),
            ("LOOM_SERVER_DATA_DIR", dir.path().to_str().unwrap()),
            ("LOOM_SERVER_HOST", "127.0.0.1"),
            ("LOOM_SERVER_PORT", &port),
            ("LOOM_SERVER_LOG_FORMAT", "json"),
            ("LOOM_SERVER_MASTER_KEY", master_key),
            ("LOOM_SERVER_PEER_URL", if reachable { &url } else { "" }),
            ("RUST_LOG", ""),
        ];
        let log: PathBuf = dir.path().join("log");
        let mut process = Process::spawn(Path::new(BINARY), &["serve"], env, &log).unwrap();
        process.wait_ready(&format!("{url}/health/ready"), PATIENCE).await.unwrap();
        Self { process, url, _dir: dir }
    }

    fn name_ends(&self) -> String {
        format!(":{}", self.process.pid())
    }
}

struct Admin {
    http: Client,
    key: String,
}

impl Admin {
    async fn get(&self, server: &Server, path: &str) -> Response {
        let request = self.http.get(format!("{}{path}", server.url)).bearer_auth(&self.key);
        request.send().await.unwrap()
    }

    async fn json(&self, server: &Server, path: &str) -> Value {
        self.get(server, path).await.json().await.unwrap()
    }
}

#[tokio::test]
async fn a_server_passes_on_the_log_of_another() {
    loom_testkit::app::install_crypto();
    let database = TestDatabase::new().await;
    let key = Cli::on(&database).run(&["admin", "create", "ada@example.com"]).await.exits(0);
    let admin = Admin {
        http: Client::builder().no_proxy().build().unwrap(),
        key: key.out.trim().to_owned(),
    };
    let (ours, foreign) = ("5a".repeat(31) + "01", "5a".repeat(31) + "02");
    let one = Server::start(&database, &ours, true).await;
    let mut two = Server::start(&database, &ours, true).await;
    let hidden = Server::start(&database, &ours, false).await;
    let stranger = Server::start(&database, &foreign, true).await;

    let list = admin.json(&one, "/api/admin/replicas").await;
    let replicas = list["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 4, "{list}");
    let of = |server: &Server| {
        let named =
            |replica: &&Value| replica["name"].as_str().unwrap().ends_with(&server.name_ends());
        replicas.iter().find(named).unwrap()
    };
    assert_eq!((&of(&one)["self"], &of(&two)["self"]), (&true.into(), &false.into()));
    assert_eq!(of(&two)["address"], two.url);
    assert_eq!(of(&hidden)["address"], Value::Null);

    // By id and by name, lines and stream; its own by its own.
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (id, name) = (text(&of(&two)["id"]), text(&of(&two)["name"]));
    for wanted in [&id, &name] {
        let lines = admin.json(&one, &format!("/api/admin/logs?q=ready&replica={wanted}")).await;
        let entries = lines["entries"].as_array().unwrap();
        assert!(!entries.is_empty() && entries.iter().all(|e| e["replica"] == name), "{lines}");
    }
    let own = admin.json(&one, &format!("/api/admin/logs?replica={}", text(&of(&one)["id"]))).await;
    assert_eq!(own["entries"][0]["replica"], of(&one)["name"]);
    let wrong = admin.get(&one, &format!("/api/admin/logs?replica={id}&level=loud")).await;
    assert_eq!(wrong.status(), 422);

    let path = format!("/api/admin/logs/stream?replica={id}&q=/auth/me");
    let mut stream = admin.get(&one, &path).await;
    assert_eq!(stream.status(), 200);
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let asked =
        admin.http.get(format!("{}/auth/me", two.url)).header("x-request-id", "asked-of-two");
    asked.bearer_auth(&admin.key).send().await.unwrap();
    let mut seen = String::new();
    while !seen.contains("asked-of-two") {
        seen.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert!(seen.contains(&name));

    // Who nobody can reach is told what to set.
    let path = format!("/api/admin/logs?replica={}", text(&of(&hidden)["id"]));
    let answer = admin.get(&one, &path).await;
    assert_eq!(answer.status(), 409);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "replica_unreachable");
    assert!(problem["detail"].as_str().unwrap().contains("LOOM_SERVER_PEER_URL"));
    let path = format!("/api/admin/logs?replica={}", text(&of(&stranger)["id"]));
    let answer = admin.get(&one, &path).await;
    assert_eq!(answer.status(), 503);
    let problem: Value = answer.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("LOOM_SERVER_MASTER_KEY"), "{problem}");

    // One that goes in good order is off the list at once, and its stream says good-bye.
    two.process.terminate(PATIENCE).await.unwrap();
    while !seen.contains("event: bye") {
        seen.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
    }
    let gone = admin.get(&one, &format!("/api/admin/logs?replica={id}")).await;
    assert_eq!(gone.status(), 404);

    // One that was killed is there for a while, and does not answer.
    let mut stranger = stranger;
    stranger.process.kill9().await.unwrap();
    let answer = admin.get(&one, &path).await;
    assert_eq!(answer.status(), 503);
    let name = text(&of(&stranger)["name"]);
    let ago = |minutes: u8| {
        sqlx::query(
            "UPDATE replicas SET last_seen = now() - make_interval(mins => $1) WHERE name = $2",
        )
        .bind(i32::from(minutes))
        .bind(&name)
        .execute(database.pool())
    };
    ago(2).await.unwrap();
    let list = admin.json(&one, "/api/admin/replicas").await;
    let stale: Vec<_> =
        list["replicas"].as_array().unwrap().iter().filter(|r| r["stale"] == true).collect();
    assert_eq!(stale.len(), 1);
    assert_eq!(stale[0]["name"], name);
    // The next beat of anybody takes it off.
    ago(11).await.unwrap();
    let _three = Server::start(&database, &ours, true).await;
    eventually(async || {
        let list = admin.json(&one, "/api/admin/replicas").await;
        let names = list["replicas"].to_string();
        (!names.contains(&name)).then_some(())
    })
    .await;
}

/// A server with the same key and the same time as the other.
async fn twin() -> (TestApp, User, String) {
    let key = "5a".repeat(31) + "01";
    let app = Setup::default().manual_clock().set("LOOM_SERVER_MASTER_KEY", key).start().await;
    let admin = app.admin("ada@example.com").await;
    let list = admin.get("/api/admin/replicas").await.expect(200).json();
    let id = list["replicas"][0]["id"].as_str().unwrap().to_owned();
    (app, admin, id)
}

#[tokio::test]
async fn a_proof_is_good_for_one_server_one_question_one_user_and_half_a_minute() {
    let ((one, ada, own), (two, _, other)) = (twin().await, twin().await);
    // The first server believes that the second is here.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    sqlx::query("INSERT INTO replicas VALUES ($1::uuid, 'two', '0', $2, now(), now())")
        .bind(&other)
        .bind(&address)
        .execute(one.database.pool())
        .await
        .unwrap();
    let path = format!("/api/admin/logs?replica={other}&q=hello%20there&level=info");
    let capture = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut head, mut piece) = (String::new(), [0; 4096]);
        while !head.contains("\r\n\r\n") {
            let len = stream.read(&mut piece).await.unwrap();
            head.push_str(std::str::from_utf8(&piece[..len]).unwrap());
        }
        stream.write_all(b"HTTP/1.1 401 no\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        head
    };
    let (answer, head) = tokio::join!(ada.get(&path), capture);
    assert_eq!(answer.expect(503).code(), "replica_unreachable");
    assert!(!head.to_lowercase().contains("authorization"), "the user's key goes no further");
    let question = head.split(' ').nth(1).unwrap().to_owned();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(of, _)| of.eq_ignore_ascii_case(name)).unwrap().1.to_owned()
    };
    let (proof, user) = (header("x-loom-peer"), header("x-loom-peer-user"));
    assert_eq!(question, "/internal/logs?level=info&q=hello+there");

    let ask = async |app: &TestApp, question: &str, proof: &str, user: &str| {
        let caller = app.anonymous().with("x-loom-peer", proof).with("x-loom-peer-user", user);
        caller.get(question).await.status.as_u16()
    };
    assert_eq!(ask(&two, &question, &proof, &user).await, 200, "it is good at all");
    assert_eq!(ask(&two, "/internal/logs?level=info", &proof, &user).await, 401);
    assert_eq!(ask(&two, &question.replace("logs?", "logs/stream?"), &proof, &user).await, 401);
    assert_eq!(ask(&two, &question, &proof, "user:another").await, 401);
    assert_eq!(ask(&two, &question, &proof.replace(&own, &other), &user).await, 401);
    assert_eq!(ask(&two, &question, &proof[..proof.len() - 2], &user).await, 401);
    assert_eq!(ask(&one, &question, &proof, &user).await, 401, "it is for the other");
    two.clock.advance(Duration::from_secs(30));
    assert_eq!(ask(&two, &question, &proof, &user).await, 200);
    two.clock.advance(Duration::from_secs(1));
    assert_eq!(ask(&two, &question, &proof, &user).await, 401, "it is too old");
}
