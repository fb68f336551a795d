//! Credentials whose tokens end: renewed once for all, and never lost.

use std::{collections::HashMap, time::Duration};

use futures::future::join_all;
use loom_testkit::{
    Setup, TestApp, User, app::UPSTREAM_KEY, eventually, google, llm::Script,
    webhook::WebhookReceiver,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{GPT, Op, SONNET, ask};

const OPENAI: &str = "/api/admin/llm/providers/openai/credentials";
const ANTHROPIC: &str = "/api/admin/llm/providers/anthropic/credentials";

struct World {
    app: TestApp,
    admin: User,
    /// The token endpoint.
    tokens: WebhookReceiver,
}

impl World {
    async fn new(setup: Setup) -> Self {
        let app = setup
            .manual_clock()
            .set("LOOM_SERVER_ANTHROPIC_API_KEY", "")
            .set("LOOM_SERVER_OPENAI_API_KEY", "")
            .set("LOOM_SERVER_OUTBOUND_ALLOW", "127.0.0.0/8")
            .start()
            .await;
        let admin = app.admin("root@example.com").await;
        Self { app, admin, tokens: WebhookReceiver::start() }
    }

    fn gives(&self, refresh_token: Option<&str>) {
        let mut body =
            json!({"access_token": UPSTREAM_KEY, "token_type": "Bearer", "expires_in": 3600});
        if let Some(rotated) = refresh_token {
            body["refresh_token"] = rotated.into();
        }
        self.tokens.enqueue(200, None, &body.to_string());
    }

    async fn oauth(&self, refresh_token: &str) -> String {
        let new = json!({"kind": "oauth", "token_url": self.tokens.url("/token"), "client_id": "c1",
                         "client_secret": "cs1", "refresh_token": refresh_token});
        let view = self.admin.post(OPENAI, &new).await.expect(201).json();
        format!("{OPENAI}/{}", view["id"].as_str().unwrap())
    }

    fn form(&self, n: usize) -> HashMap<String, String> {
        let body = &self.tokens.calls()[n].body;
        let url: reqwest::Url = format!("x:/?{body}").parse().unwrap();
        url.query_pairs().into_owned().collect()
    }

    fn calls(&self) -> usize {
        self.tokens.calls().len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_replicas_that_need_a_token_at_once_ask_for_one() {
    let world = World::new(Setup::default()).await;
    world.gives(Some("r2"));
    world.oauth("r1").await;
    let replicas = join_all((0..3).map(|_| world.app.replica())).await;
    let callers: Vec<_> = replicas
        .iter()
        .map(|replica| world.admin.at(replica))
        .chain([world.admin.at(&world.app.running)])
        .collect();
    let all =
        callers.iter().flat_map(|caller| [caller; 5]).map(|caller| ask(caller, Op::Chat, GPT));
    for answer in join_all(all).await {
        answer.expect(200);
    }
    assert_eq!(world.calls(), 1);
    let form = world.form(0);
    let sent = |name: &str| form[name].as_str();
    assert_eq!((sent("grant_type"), sent("refresh_token")), ("refresh_token", "r1"));
    assert_eq!((sent("client_id"), sent("client_secret")), ("c1", "cs1"));
    // The next time with the one that took its place, again once.
    world.app.clock.advance(Duration::from_secs(3600));
    world.gives(None);
    for answer in join_all(callers.iter().map(|caller| ask(caller, Op::Chat, GPT))).await {
        answer.expect(200);
    }
    assert_eq!(world.calls(), 2);
    assert_eq!(world.form(1)["refresh_token"], "r2");
    for replica in replicas {
        replica.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_token_is_stored_before_it_is_used() {
    let world = World::new(Setup::default()).await;
    world.gives(Some("r2"));
    world.oauth("r1").await;
    // The provider sees the new token only when it is stored: the first request with it finds the row.
    ask(&world.admin, Op::Chat, GPT).await.expect(200);
    // The server that asked for it is gone as if killed: another one has all of it from the database.
    let other = world.app.replica().await;
    let there = world.admin.at(&other);
    let rows = world.app.rows("SELECT generation, refreshing_until FROM llm_credentials").await;
    assert_eq!((&rows[0]["generation"], &rows[0]["refreshing_until"]), (&json!(1), &Value::Null));
    ask(&there, Op::Chat, GPT).await.expect(200);
    assert_eq!(world.calls(), 1);
    world.app.clock.advance(Duration::from_secs(3600));
    world.gives(None);
    ask(&there, Op::Chat, GPT).await.expect(200);
    assert_eq!(world.form(1)["refresh_token"], "r2");
    other.shut_down().await;
}

#[tokio::test]
async fn a_replica_that_died_while_it_refreshed_holds_nobody_up_for_long() {
    let world = World::new(Setup::default()).await;
    world.oauth("r1").await;
    let begun = "UPDATE llm_credentials SET refreshing_by = gen_random_uuid(), refreshing_until = now() + interval '1 second'
                 RETURNING id";
    sqlx::query(begun).execute(world.app.database.pool()).await.unwrap();
    world.gives(None);
    ask(&world.admin, Op::Chat, GPT).await.expect(200);
    assert_eq!(world.calls(), 1);
}

#[tokio::test]
async fn a_refused_refresh_token_disables_its_credential_and_the_admins_hear_of_it() {
    let world = World::new(Setup::default()).await;
    let one = world.oauth("a-long-refresh-token-of-ours").await;
    world.tokens.enqueue(
        400,
        None,
        r#"{"error": "invalid_grant", "error_description": "revoked a-long-refresh-token-of-ours"}"#,
    );
    let refused = ask(&world.admin, Op::Chat, GPT).await.expect(503);
    assert_eq!(Op::Chat.error_of(&refused.json()).1, "credentials_disabled");
    let view = world.admin.get(&one).await.expect(200).json();
    assert_eq!(
        (view["state"].as_str(), view["disabled_by"].as_str()),
        (Some("disabled"), Some("token_endpoint"))
    );
    assert!(view["disabled_reason"].as_str().unwrap().contains("invalid_grant revoked"), "{view}");
    assert!(!view.to_string().contains("a-long-refresh-token-of-ours"), "{view}");
    let told = world.admin.get("/api/admin/deliveries").await.expect(200);
    assert!(told.text.contains("llm.credential_disabled"), "{}", told.text);
    ask(&world.admin, Op::Chat, GPT).await.expect(503);
    assert_eq!(world.calls(), 1, "it is not asked again");
    // Another refresh token mends it.
    world.gives(None);
    world.admin.patch(&one, &json!({"refresh_token": "r9"})).await.expect(200);
    ask(&world.admin, Op::Chat, GPT).await.expect(200);
    assert_eq!(world.form(1)["refresh_token"], "r9");
    assert_eq!(world.form(1)["client_secret"], "cs1");
}

#[tokio::test]
async fn a_refresh_token_that_somebody_else_used_first_disables_nothing() {
    let world = World::new(Setup::default()).await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let database = world.app.database.pool().clone();
    // While it is asked, another one has changed the row.
    let endpoint = tokio::spawn(async move {
        let answers = [
            (400, json!({"error": "invalid_grant"})),
            (200, json!({"access_token": UPSTREAM_KEY, "expires_in": 60})),
        ];
        for (status, body) in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            assert!(socket.read(&mut asked).await.unwrap() > 0);
            let changed = "UPDATE llm_credentials SET version = version + 1";
            sqlx::query(changed).execute(&database).await.unwrap();
            let (body, length) = (body.to_string(), body.to_string().len());
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let new = json!({"kind": "oauth", "token_url": url, "refresh_token": "r1"});
    let view = world.admin.post(OPENAI, &new).await.expect(201).json();
    assert!(ask(&world.admin, Op::Chat, GPT).await.status.is_server_error());
    let one = format!("{OPENAI}/{}", view["id"].as_str().unwrap());
    let view = world.admin.get(&one).await.expect(200).json();
    assert_eq!(view["disabled_reason"], Value::Null, "{view}");
    ask(&world.admin, Op::Chat, GPT).await.expect(200);
    endpoint.await.unwrap();
}

#[tokio::test]
async fn a_token_endpoint_that_is_down_disables_nothing() {
    let world = World::new(Setup::default()).await;
    let one = world.oauth("r1").await;
    world.tokens.enqueue(503, None, "down");
    assert!(ask(&world.admin, Op::Chat, GPT).await.status.is_server_error());
    let view = world.admin.get(&one).await.expect(200).json();
    assert_eq!(view["state"], "available");
    assert!(view["last_error"].as_str().unwrap().contains("503"), "{view}");
    world.gives(None);
    ask(&world.admin, Op::Chat, GPT).await.expect(200);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_before_its_credential_is_disabled() {
    let world = World::new(Setup::default()).await;
    let one = world.oauth("r1").await;
    world.gives(None);
    ask(&world.admin, Op::Chat, GPT).await.expect(200);
    // Revoked: the next one is good.
    world.gives(None);
    world.app.mock.enqueue(Script::error(401));
    ask(&world.admin, Op::Chat, GPT).await;
    ask(&world.admin, Op::Chat, GPT).await.expect(200);
    assert_eq!(world.calls(), 2);
    // And now the next one is not good either.
    world.gives(None);
    world.app.mock.enqueue(Script::error(401));
    world.app.mock.enqueue(Script::error(401));
    ask(&world.admin, Op::Chat, GPT).await;
    ask(&world.admin, Op::Chat, GPT).await;
    eventually(async || {
        let view = world.admin.get(&one).await.expect(200).json();
        (view["disabled_by"] == "provider").then_some(())
    })
    .await;
    assert_eq!(world.calls(), 3);
}

#[tokio::test]
async fn the_job_renews_what_ends_within_a_quarter_of_an_hour() {
    let world = World::new(Setup::default()).await;
    let one = world.oauth("r1").await;
    let run = async || {
        world.app.running.features.jobs.run_now("token-refresh").await.unwrap();
        world.calls()
    };
    world.gives(None);
    assert_eq!(run().await, 1, "one that has no token yet");
    assert_eq!(run().await, 1);
    let before = world.admin.get(&one).await.json()["token_expires_at"].clone();
    world.app.clock.advance(Duration::from_secs(2701));
    world.gives(None);
    assert_eq!(run().await, 2);
    assert_ne!(world.admin.get(&one).await.json()["token_expires_at"], before);
    ask(&world.admin, Op::Chat, GPT).await.expect(200);
    assert_eq!(world.calls(), 2, "nobody had to wait");
}

#[tokio::test]
async fn a_service_account_signs_for_its_tokens() {
    let world = World::new(Setup::default()).await;
    let url = world.tokens.url("/token");
    let new =
        json!({"kind": "google_service_account", "service_account": google::service_account(&url)});
    world.admin.post(OPENAI, &new).await.expect(201);
    world.gives(None);
    ask(&world.admin, Op::Chat, GPT).await.expect(200);
    let form = world.form(0);
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let claims = google::claims(&form["assertion"]);
    assert_eq!(claims["iss"], google::CLIENT_EMAIL);
    assert_eq!(claims["aud"], url);
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/cloud-platform");
    let now = world.app.clock.now().timestamp();
    let (issued, ends) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    assert!(issued <= now && now < ends && ends - issued <= 3600);
    // Until five minutes before its end.
    world.app.clock.advance(Duration::from_secs(3299));
    ask(&world.admin, Op::Chat, GPT).await.expect(200);
    assert_eq!(world.calls(), 1);
    world.app.clock.advance(Duration::from_secs(1));
    world.gives(None);
    ask(&world.admin, Op::Chat, GPT).await.expect(200);
    assert_eq!(world.calls(), 2);
}

#[tokio::test]
async fn a_workload_shows_its_assertion_and_gets_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("assertion");
    std::fs::write(&file, "eyJ.one.x\n").unwrap();
    let file = file.display().to_string();
    let world = World::new(Setup::default().set("LOOM_SERVER_LLM_ASSERTION_FILES", &*file)).await;
    let new = json!({"kind": "workload_identity", "token_url": world.tokens.url("/v1/oauth/token"),
                     "assertion_file": file, "federation_rule_id": "fdrl_1", "organization_id": "o1",
                     "service_account_id": "svac_1"});
    world.admin.post(ANTHROPIC, &new).await.expect(201);
    world.gives(None);
    let caller = world.admin.with("anthropic-beta", "of-the-client");
    ask(&caller, Op::Messages, SONNET).await.expect(200);
    let call = world.tokens.call(1).await;
    assert_eq!(
        call.json(),
        json!({"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "eyJ.one.x",
               "federation_rule_id": "fdrl_1", "organization_id": "o1", "service_account_id": "svac_1"})
    );
    assert_eq!(call.header("anthropic-beta"), "oidc-federation-2026-04-01");
    let sent = world.app.mock.requests().pop().unwrap();
    assert_eq!(sent.header("authorization"), Some(&*format!("Bearer {UPSTREAM_KEY}")));
    assert_eq!(sent.header("x-api-key"), None);
    let betas: Vec<_> = sent.headers.get_all("anthropic-beta").iter().collect();
    assert_eq!(betas, ["of-the-client", "oauth-2025-04-20"]);
}

#[tokio::test]
async fn tokens_come_only_from_where_the_operator_lets_requests_go() {
    let world = World::new(Setup::default()).await;
    // Loopback is allowed here, and nothing else that is private.
    let new =
        json!({"kind": "oauth", "token_url": "https://192.168.7.7/token", "refresh_token": "r1"});
    let view = world.admin.post(OPENAI, &new).await.expect(201).json();
    assert!(ask(&world.admin, Op::Chat, GPT).await.status.is_server_error());
    let one = format!("{OPENAI}/{}", view["id"].as_str().unwrap());
    let view = world.admin.get(&one).await.json();
    assert!(view["last_error"].as_str().unwrap().contains("LOOM_SERVER_OUTBOUND_ALLOW"), "{view}");
}
