//! Development mode lets the developer in, and nobody and nothing else.

use std::collections::BTreeMap;

use loom_server::config::{self, Overrides};
use loom_testkit::{Setup, TestApp};
use serde_json::json;

const SWITCH: &str = "LOOM_SERVER_AUTH_DEV_MODE";

async fn dev_app() -> TestApp {
    Setup::default().set(SWITCH, "true").start().await
}

#[tokio::test]
async fn a_request_from_this_machine_acts_as_the_development_user() {
    let app = dev_app().await;
    let me = app.anonymous().get("/auth/me").await.expect(200).json();
    assert_eq!(me["user"]["email"], "dev@localhost");
    assert_eq!(me["user"]["is_system_admin"], true);
    assert_eq!(me["via"]["kind"], "dev_mode");
    assert_eq!(me["role"], "owner");
    let threads = app.anonymous().get("/api/threads").await.expect(200).json();
    assert_eq!(threads["threads"], json!([]));
}

#[tokio::test]
async fn it_is_off_unless_it_is_switched_on() {
    let app = TestApp::start().await;
    app.anonymous().get("/auth/me").await.expect(401);
    assert!(app.rows("SELECT 1 FROM users").await.is_empty());
}

#[tokio::test]
async fn what_a_proxy_hands_on_or_a_foreign_page_sends_is_not_the_developer() {
    let app = dev_app().await;
    let here = format!("http://{}", app.running.address);
    for (header, value) in [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-host", "loom.example.com"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "203.0.113.9"),
        ("forwarded", "for=203.0.113.9"),
        ("via", "1.1 proxy"),
        // A name that was made to lead here (DNS rebinding).
        ("host", "attacker.example"),
        ("host", "localhost.attacker.example"),
        ("host", "127.0.0.1.attacker.example:8080"),
        ("host", "192.168.1.5"),
        ("host", ""),
        ("origin", "https://attacker.example"),
        ("origin", "http://localhost:1"),
        ("origin", "null"),
        ("origin", &here.replace("http:", "https:")),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let answer = app.anonymous().with(header, value).get("/auth/me").await;
        assert_eq!(answer.status, 401, "{header}: {value}: {}", answer.text);
    }
    let port = app.running.address.port();
    for (header, value) in [
        ("host", format!("localhost:{port}")),
        ("host", "LOCALHOST".to_owned()),
        ("host", format!("[::1]:{port}")),
        ("origin", here),
        ("sec-fetch-site", "same-origin".to_owned()),
        ("sec-fetch-site", "none".to_owned()),
    ] {
        let answer = app.anonymous().with(header, &value).get("/auth/me").await;
        assert_eq!(answer.status, 200, "{header}: {value}: {}", answer.text);
    }
}

/// As nginx does it with `proxy_pass` and nothing more.
#[tokio::test]
async fn what_a_proxy_hands_on_without_a_word_is_not_the_developer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let app = dev_app().await;
    let here = app.running.address;
    for (version, expected) in [("1.0", "401"), ("1.1", "200")] {
        let mut socket = tokio::net::TcpStream::connect(here).await.unwrap();
        let request =
            format!("GET /auth/me HTTP/{version}\r\nhost: {here}\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(expected), "{version}: {answer}");
    }
}

#[tokio::test]
async fn a_wrong_credential_is_a_401_also_then() {
    let app = dev_app().await;
    for (header, value) in [
        ("authorization", "Bearer nonsense"),
        ("authorization", "Basic ZGV2OmRldg=="),
        ("x-api-key", "nonsense"),
        ("x-api-key", ""),
    ] {
        let answer = app.anonymous().with(header, value).get("/auth/me").await.expect(401);
        assert_eq!(answer.code(), "unauthenticated");
    }
    // And a good one counts, not the mode.
    let ada = app.user("ada@example.com").await;
    let me = ada.get("/auth/me").await.expect(200).json();
    assert_eq!(me["user"]["email"], "ada@example.com");
}

#[tokio::test]
async fn the_development_user_can_use_an_organisation_that_was_just_made() {
    let app = dev_app().await;
    let caller = app.anonymous();
    let org = caller.post("/api/orgs", &json!({"slug": "lab", "name": "Lab"})).await.expect(201);
    let me = caller.with("x-loom-org", "lab").get("/auth/me").await.expect(200).json();
    assert_eq!(me["org_id"], org.json()["id"]);
    caller.with("x-loom-org", "elsewhere").get("/auth/me").await.expect(404);
}

#[tokio::test]
async fn what_is_done_in_it_stands_in_the_audit_as_done_in_it() {
    let app = dev_app().await;
    let new = json!({"slug": "lab", "name": "Lab"});
    app.anonymous().post("/api/orgs", &new).await.expect(201);
    let rows = app.rows("SELECT via, actor_name, ip FROM audit_log").await;
    assert_eq!(
        rows,
        [json!({"via": "dev_mode", "actor_name": "dev@localhost", "ip": "127.0.0.1"})]
    );
}

#[test]
fn production_refuses_it_as_a_problem_of_the_configuration() {
    let load = |env: &str, demo| {
        let vars = BTreeMap::from([
            ("LOOM_SERVER_ENV".to_owned(), env.to_owned()),
            ("DATABASE_URL".to_owned(), "postgres://db/loom".to_owned()),
            (SWITCH.to_owned(), if demo { "false" } else { "true" }.to_owned()),
        ]);
        config::load(vars, Overrides { demo, stdout_is_terminal: false })
    };
    let loaded = load("production", false);
    assert!(
        matches!(loaded.problems.as_slice(), [one] if one.name == SWITCH),
        "{:?}",
        loaded.problems
    );
    // The demonstration switches it on, so that production refuses that too.
    let loaded = load("production", true);
    assert!(matches!(loaded.problems.as_slice(), [one] if one.name == "LOOM_SERVER_ENV"));
    for demo in [true, false] {
        let loaded = load("development", demo);
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        assert!(loaded.config.auth.dev_mode);
        assert_eq!(loaded.config.http.host.is_loopback(), demo);
    }
}
