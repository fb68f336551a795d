//! Which credential is used, and when it rests.

use std::time::Duration;

use loom_testkit::{
    Setup, TestApp, User,
    app::UPSTREAM_KEY,
    eventually,
    llm::{Reply, Script},
};
use serde_json::{Value, json};

use super::{GPT, Op, SONNET, ask};

const KEYS: &str = "/api/admin/llm/providers/openai/credentials";

async fn start(setup: Setup) -> (TestApp, User) {
    let app = setup
        .manual_clock()
        .set("LOOM_SERVER_ANTHROPIC_API_KEY", "")
        .set("LOOM_SERVER_OPENAI_API_KEY", "")
        .start()
        .await;
    let admin = app.admin("root@example.com").await;
    (app, admin)
}

async fn add(admin: &User, name: &str) -> String {
    let new = json!({"name": name, "secret": UPSTREAM_KEY});
    let view = admin.post(KEYS, &new).await.expect(201).json();
    assert_eq!(view["state"], "available");
    view["id"].as_str().unwrap().to_owned()
}

async fn list(admin: &User) -> Vec<Value> {
    let list = admin.get(KEYS).await.expect(200).json();
    list["credentials"].as_array().unwrap().clone()
}

async fn one(admin: &User, id: &str) -> Value {
    admin.get(&format!("{KEYS}/{id}")).await.expect(200).json()
}

fn limited(after: &str) -> Reply {
    let body = json!({"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}});
    Reply::json(429, &body).header("retry-after", after)
}

#[tokio::test]
async fn a_credential_rests_for_as_long_as_its_provider_asks_and_then_serves_again() {
    let (app, admin) = start(Setup::default()).await;
    let id = add(&admin, "a").await;
    ask(&admin, Op::Chat, GPT).await.expect(200);
    app.mock.enqueue(limited("30"));
    ask(&admin, Op::Chat, GPT).await.expect(429);
    let asked = app.mock.requests().len();
    for op in [Op::Chat, Op::Responses] {
        let refused = ask(&admin, op, GPT).await.expect(429);
        assert_eq!(refused.header("retry-after"), Some("30"), "{}", refused.text);
        let (message, _) = op.error_of(&refused.json());
        assert!(message.contains("wait for its rate limits"), "{message}");
    }
    assert_eq!(app.mock.requests().len(), asked, "nothing is sent meanwhile");
    let view = one(&admin, &id).await;
    assert_eq!(
        (view["state"].as_str(), view["cooldown_left_secs"].as_u64()),
        (Some("cooling_down"), Some(30))
    );
    assert_eq!(view["last_error"], "429: rate limited");
    app.clock.advance(Duration::from_secs(29));
    let refused = ask(&admin, Op::Chat, GPT).await.expect(429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    app.clock.advance(Duration::from_secs(1));
    ask(&admin, Op::Chat, GPT).await.expect(200);
    assert_eq!(one(&admin, &id).await["state"], "available");
}

#[tokio::test]
async fn without_a_time_it_rests_as_configured_and_longer_when_the_quota_is_used_up() {
    let setup = Setup::default()
        .set("LOOM_SERVER_LLM_COOLDOWN_SECS", "7")
        .set("LOOM_SERVER_LLM_QUOTA_COOLDOWN_SECS", "5000");
    let (app, admin) = start(setup).await;
    let id = add(&admin, "a").await;
    app.mock.enqueue(Reply::json(
        429,
        &json!({"error": {"message": "m", "code": "rate_limit_exceeded"}}),
    ));
    ask(&admin, Op::Chat, GPT).await.expect(429);
    assert_eq!(ask(&admin, Op::Chat, GPT).await.header("retry-after"), Some("7"));
    app.clock.advance(Duration::from_secs(7));
    let quota = json!({"error": {"message": "m", "type": "insufficient_quota", "code": "insufficient_quota"}});
    app.mock.enqueue(Reply::json(429, &quota).header("retry-after", "1"));
    ask(&admin, Op::Chat, GPT).await.expect(429);
    assert_eq!(ask(&admin, Op::Chat, GPT).await.header("retry-after"), Some("5000"));
    assert_eq!(one(&admin, &id).await["last_error"], "429: its quota is used up");
}

#[tokio::test]
async fn when_all_rest_the_shortest_time_left_is_told() {
    let (app, admin) = start(Setup::default()).await;
    add(&admin, "a").await;
    add(&admin, "b").await;
    app.mock.enqueue(limited("50"));
    app.mock.enqueue(limited("20"));
    ask(&admin, Op::Chat, GPT).await;
    ask(&admin, Op::Chat, GPT).await;
    let refused = ask(&admin, Op::Chat, GPT).await.expect(429);
    assert_eq!(refused.header("retry-after"), Some("20"), "{}", refused.text);
    app.clock.advance(Duration::from_secs(20));
    ask(&admin, Op::Chat, GPT).await.expect(200);
}

/// The last of them may say more than that, or nothing.
#[tokio::test]
async fn the_request_that_finds_the_last_at_its_limit_is_told_the_shortest_time_too() {
    let (app, admin) = start(Setup::default()).await;
    for name in ["a", "b", "c"] {
        add(&admin, name).await;
    }
    for (op, path) in [(Op::Chat, ""), (Op::Messages, ""), (Op::Chat, "/proxy/openai/complete")] {
        let unknown = Reply::json(429, &json!({"error": {"message": "slow down"}}));
        for limit in [limited("50"), limited("20"), unknown.header("retry-after-ms", "70000")] {
            app.mock.enqueue(limit);
        }
        let path = if path.is_empty() { op.path() } else { path };
        let refused = admin.post(path, &op.body(GPT)).await.expect(429);
        assert_eq!(refused.header("retry-after"), Some("20"), "{path}: {}", refused.text);
        assert_eq!(refused.header("retry-after-ms"), None);
        app.clock.advance(Duration::from_secs(70));
    }
}

#[tokio::test]
async fn a_refused_credential_is_disabled_with_the_reason_and_another_one_serves() {
    let (app, admin) = start(Setup::default()).await;
    add(&admin, "a").await;
    add(&admin, "b").await;
    app.mock.enqueue(Script::error(401));
    ask(&admin, Op::Chat, GPT).await;
    for _ in 0..4 {
        ask(&admin, Op::Chat, GPT).await.expect(200);
    }
    let disabled = eventually(async || {
        let all = list(&admin).await;
        all.into_iter().find(|one| one["disabled_by"] == "provider")
    })
    .await;
    assert_eq!(disabled["state"], "disabled");
    assert!(disabled["disabled_reason"].as_str().unwrap().contains("401"), "{disabled}");
    let alerts = admin.get("/api/admin/deliveries").await.expect(200);
    assert!(alerts.text.contains("llm.credential_disabled"), "{}", alerts.text);

    // The last one too.
    let message = format!("not from here: {UPSTREAM_KEY}");
    app.mock.enqueue(Reply::json(403, &json!({"error": {"message": message, "code": "x"}})));
    ask(&admin, Op::Chat, GPT).await.expect(403);
    // What it repeats of the key is written nowhere.
    let reasons = eventually(async || {
        let all = list(&admin).await.iter().map(ToString::to_string).collect::<String>();
        (all.matches("\"disabled_by\":\"provider\"").count() == 2).then_some(all)
    })
    .await;
    let alerts = admin.get("/api/admin/deliveries").await.expect(200).text;
    assert!(reasons.contains("not from here") && !reasons.contains(UPSTREAM_KEY), "{reasons}");
    assert!(!alerts.contains(UPSTREAM_KEY), "{alerts}");
    let refused = ask(&admin, Op::Chat, GPT).await.expect(503);
    assert_eq!(Op::Chat.error_of(&refused.json()).1, "credentials_disabled");
    let health = admin.get("/api/admin/health").await.json();
    let component = &health["components"]["llm_providers"];
    assert_eq!(component["providers"]["openai"]["credential_states"]["disabled"], 2, "{health}");
    assert!(health.to_string().contains("LLM_CREDENTIALS_UNAVAILABLE"), "{health}");

    // Who renews it has it back at once.
    let id = disabled["id"].as_str().unwrap();
    let view = admin.post(&format!("{KEYS}/{id}/enable"), &json!({})).await.expect(200).json();
    assert_eq!((&view["state"], &view["disabled_reason"]), (&json!("available"), &Value::Null));
    ask(&admin, Op::Chat, GPT).await.expect(200);
}

#[tokio::test]
async fn what_the_provider_refused_is_asked_again_by_the_job_and_comes_back() {
    let (app, admin) = start(Setup::default()).await;
    let id = add(&admin, "a").await;
    app.mock.enqueue(Script::error(401));
    ask(&admin, Op::Chat, GPT).await.expect(401);
    eventually(async || (one(&admin, &id).await["disabled_by"] == "provider").then_some(())).await;
    app.running.features.jobs.run_now("token-refresh").await.unwrap();
    assert_eq!(one(&admin, &id).await["state"], "available");
    ask(&admin, Op::Chat, GPT).await.expect(200);
    // What an admin disabled stays so.
    let why = json!({"reason": "too dear"});
    admin.post(&format!("{KEYS}/{id}/disable"), &why).await.expect(200);
    app.running.features.jobs.run_now("token-refresh").await.unwrap();
    assert_eq!(one(&admin, &id).await["disabled_reason"], "too dear");
}

#[tokio::test]
async fn the_key_of_the_environment_is_tried_again_after_a_while() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("a@example.com").await;
    app.mock.enqueue(Script::error(401));
    ask(&user, Op::Messages, SONNET).await.expect(401);
    ask(&user, Op::Messages, SONNET).await.expect(503);
    app.clock.advance(Duration::from_secs(300));
    ask(&user, Op::Messages, SONNET).await.expect(200);
    ask(&user, Op::Messages, SONNET).await.expect(200);
}

#[tokio::test]
async fn after_failures_in_a_row_one_request_at_a_time_finds_out() {
    let setup = Setup::default()
        .set("LOOM_SERVER_LLM_CIRCUIT_FAILURES", "1")
        .set("LOOM_SERVER_LLM_CIRCUIT_OPEN_SECS", "10");
    let (app, admin) = start(setup).await;
    add(&admin, "a").await;
    for _ in 0..2 {
        app.mock.enqueue(Script::error(500));
        let failed = ask(&admin, Op::Chat, GPT).await;
        assert!(failed.status.is_server_error());
        let asked = app.mock.requests().len();
        let refused = ask(&admin, Op::Chat, GPT).await.expect(503);
        assert_eq!(Op::Chat.error_of(&refused.json()).1, "upstream_unavailable");
        assert_eq!(refused.header("retry-after"), Some("10"));
        assert_eq!(app.mock.requests().len(), asked, "nothing is sent while the circuit is open");
        assert_eq!(list(&admin).await[0]["state"], "circuit_open");
        app.clock.advance(Duration::from_secs(10));
    }
    ask(&admin, Op::Chat, GPT).await.expect(200);
    assert_eq!(list(&admin).await[0]["state"], "available");
}

#[tokio::test]
async fn requests_go_round_and_each_credential_gets_its_share() {
    let (app, admin) = start(Setup::default()).await;
    for name in ["a", "b", "c"] {
        add(&admin, name).await;
    }
    for _ in 0..9 {
        ask(&admin, Op::Chat, GPT).await.expect(200);
    }
    app.llm_requests(9).await;
    let shares = app.rows("SELECT credential_id, count(*) AS n FROM llm_requests GROUP BY 1").await;
    assert_eq!(shares.len(), 3);
    assert!(shares.iter().all(|share| share["n"] == 3), "{shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_and_a_change_reach_the_other_replicas() {
    let (app, admin) = start(Setup::default()).await;
    let other = app.replica().await;
    let there = admin.at(&other);
    let id = add(&admin, "a").await;
    let reaches = async |status: u16| {
        eventually(async || {
            (ask(&there, Op::Chat, GPT).await.status.as_u16() == status).then_some(())
        })
        .await;
    };
    reaches(200).await;
    app.mock.enqueue(limited("40"));
    ask(&admin, Op::Chat, GPT).await.expect(429);
    reaches(429).await;
    let refused = ask(&there, Op::Chat, GPT).await.expect(429);
    assert_eq!(refused.header("retry-after"), Some("40"));
    there.post(&format!("{KEYS}/{id}/enable"), &json!({})).await.expect(200);
    ask(&there, Op::Chat, GPT).await.expect(200);
    eventually(async || (ask(&admin, Op::Chat, GPT).await.status == 200).then_some(())).await;
    admin.post(&format!("{KEYS}/{id}/disable"), &json!({})).await.expect(200);
    reaches(503).await;
    admin.post(&format!("{KEYS}/{id}/enable"), &json!({})).await.expect(200);
    reaches(200).await;
    admin.delete(&format!("{KEYS}/{id}")).await.expect(204);
    eventually(async || {
        let refused = ask(&there, Op::Chat, GPT).await;
        refused.text.contains("feature_disabled").then_some(())
    })
    .await;
    other.shut_down().await;
}

#[tokio::test]
async fn a_token_of_the_callers_own_goes_along_where_the_operator_allows_it() {
    let app = Setup::default().set("LOOM_SERVER_LLM_CALLER_TOKENS", "openai").start().await;
    let user = app.user("a@example.com").await;
    let own = user.with("x-loom-provider-token", "sk-of-the-caller-31337");
    // The mock takes no other key than ours, which shows that it was not ours.
    let refused = ask(&own, Op::Chat, GPT).await.expect(401);
    assert!(refused.text.contains("x-loom-provider-token"), "{}", refused.text);
    let sent = app.mock.requests().pop().unwrap();
    assert_eq!(sent.header("authorization"), Some("Bearer sk-of-the-caller-31337"));
    assert_eq!(sent.header("x-loom-provider-token"), None);
    // Ours is not blamed for it.
    ask(&user, Op::Chat, GPT).await.expect(200);
    let good = user.with("x-loom-provider-token", UPSTREAM_KEY);
    let message = format!("{UPSTREAM_KEY} is bad");
    let body = json!({"error": {"message": message, "type": "t", "code": "c"}});
    app.mock.enqueue(Reply::json(400, &body));
    let refused = ask(&good, Op::Chat, GPT).await.expect(400);
    assert!(!refused.text.contains(UPSTREAM_KEY), "{}", refused.text);
    // Across wires too.
    ask(&good, Op::Messages, GPT).await.expect(200);
    let row = app.llm_requests(4).await.pop().unwrap();
    assert_eq!(row["credential_id"], Value::Null);

    let refused = ask(&own, Op::Messages, SONNET).await.expect(400);
    assert!(refused.text.contains("x-loom-provider-token"), "{}", refused.text);
}
