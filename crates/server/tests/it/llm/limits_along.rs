//! Limits and accounts where a request does not go the plain way: by another target of its route, counted
//! and not answered, under a key, out of the cache, and left by its client while limits are asked.

use loom_testkit::{Setup, TestApp, User, eventually, llm::Script};
use serde_json::{Value, json};

use super::{
    GPT, Op, SONNET, ask, begin_stream,
    limits::{counted, estimate, limit, spent, tight},
    receive, stream,
};

/// A route `fast`: first GPT, then Sonnet.
async fn with_route() -> (TestApp, User) {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let route = json!({"targets": [
        {"provider": "openai", "model": GPT},
        {"provider": "anthropic", "model": SONNET, "priority": 1},
    ]});
    user.put(&format!("/api/orgs/{}/llm/routes/fast", user.org), &route).await.expect(201);
    (app, user)
}

fn fast() -> Value {
    let mut body = Op::Chat.body("fast");
    body["max_tokens"] = json!(1000);
    body
}

#[tokio::test]
async fn the_limits_of_the_next_targets_model_hold_when_the_first_fails() {
    let (app, user) = with_route().await;
    limit(&user, "model/claude-*", json!({"concurrent": 0})).await;
    app.mock.enqueue(Script::error(500));
    user.post(Op::Chat.path(), &fast()).await.expect(500);
    assert!(app.mock.requests().iter().all(|asked| asked.path == "/v1/chat/completions"));
    app.mock.clear();
    limit(&user, "model/claude-*", json!({"concurrent": 1})).await;
    app.mock.enqueue(Script::error(500));
    user.post(Op::Chat.path(), &fast()).await.expect(200);
    assert_eq!(app.mock.requests().last().unwrap().path, "/v1/messages");
}

#[tokio::test]
async fn a_request_that_goes_on_keeps_its_place_and_pays_where_it_was_answered() {
    let (app, user) = with_route().await;
    let one = json!({"concurrent": 1, "requests_per_minute": 4});
    limit(&user, "organisation/all", one).await;
    // Room for one request to GPT, which reserves a little more than a cent.
    limit(&user, "model/gpt-*", json!({"usd_per_day": 0.011})).await;
    limit(&user, "model/claude-*", json!({"usd_per_day": 0.05})).await;
    for _ in 0..2 {
        app.mock.enqueue(Script::error(500));
        user.post(Op::Chat.path(), &fast()).await.expect(200);
    }
    let rows = app.llm_requests(2).await;
    assert!(rows.iter().all(|row| row["provider"] == "anthropic"), "{rows:?}");
    let cost = spent(&app).await;
    eventually(async || (counted(&app).await.last() == Some(&cost)).then_some(())).await;
    // What they cost was no business of GPT's budget.
    let first = user.post(Op::Chat.path(), &fast()).await.expect(200);
    assert_eq!(first.header("x-ratelimit-remaining-requests"), Some("1"));
    assert_eq!(app.llm_requests(3).await[2]["provider"], "openai");
}

#[tokio::test]
async fn counting_tokens_reserves_none() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let none = json!({"tokens_per_minute": 0, "usd_per_day": 0, "refuse_unpriced": true});
    limit(&user, "organisation/all", none).await;
    // By Anthropic's own count, and by OpenAI's.
    for model in [SONNET, GPT, "gpt-of-tomorrow"] {
        let body = Op::Messages.body(model);
        user.post("/v1/messages/count_tokens", &body).await.expect(200);
        user.post("/v1/messages", &body).await;
    }
    let rows = app.llm_requests(6).await;
    let went = rows.iter().filter(|row| row["status"] == 200);
    assert!(went.clone().all(|row| row["operation"] == "count_tokens"), "{rows:?}");
    assert_eq!(went.count(), 3);
}

#[tokio::test]
async fn a_repeat_under_a_key_reserves_nothing_and_a_left_request_is_charged() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let caps = json!({"concurrent": 1, "usd_per_day": estimate() as f64 / 1e9});
    limit(&user, "organisation/all", caps).await;
    let keyed = user.with("idempotency-key", "k");
    let mut body = tight();
    body["stream"] = json!(true);
    body["model"] = json!("mock-paced-20");
    let running = begin_stream(&keyed, Op::Messages, "mock-paced-20").await;
    // Whoever joins takes no second place; another request finds none.
    ask(&user, Op::Messages, "mock-paced-20").await.expect(429);
    let joined = stream(&keyed, Op::Messages, "mock-paced-20").await;
    assert_eq!(joined.status, 200, "{}", joined.text());
    drop(receive(running).await);
    // One that its client leaves is charged all the same, once.
    let keyed = user.with("idempotency-key", "l");
    let caller = keyed.clone();
    let left = tokio::spawn(async move { caller.post("/v1/messages", &tight()).await });
    app.mock.wait_for_request(2).await;
    left.abort();
    let cost = eventually(async || Some(spent(&app).await).filter(|cost| *cost > 0)).await;
    for _ in 0..2 {
        keyed.post("/v1/messages", &tight()).await.expect(200);
    }
    user.post("/v1/messages", &tight()).await.expect(429);
    assert_eq!((spent(&app).await, counted(&app).await), (cost, vec![cost]));
}

#[tokio::test]
async fn a_cached_reply_needs_no_budget_and_is_whole_in_the_usage() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let settings = format!("/api/orgs/{}/llm/settings", user.org);
    user.patch(&settings, &json!({"cache": {"enabled": true}})).await.expect(200);
    limit(&user, "organisation/all", json!({"usd_per_day": estimate() as f64 / 1e9})).await;
    let mut body = tight();
    body["temperature"] = json!(0);
    body["max_tokens"] = json!(500);
    user.post("/v1/messages", &body).await.expect(200);
    // It is kept behind the reply; whoever asks before is refused, for nothing is left of the budget.
    let kept = "SELECT 1 FROM llm_cached_replies";
    eventually(async || (app.rows(kept).await.len() == 1).then_some(())).await;
    let again = user.post("/v1/messages", &body).await.expect(200);
    assert_eq!(again.header("x-loom-cache"), Some("hit"));
    user.post("/v1/messages", &tight()).await.expect(429);
    let refused = "SELECT 1 FROM llm_requests WHERE status = 429";
    eventually(async || (app.rows(refused).await.len() == 1).then_some(())).await;
    let usage = user.get("/api/llm/usage").await.expect(200).json();
    assert_eq!(usage["total"]["incomplete"], 0, "{usage}");
    let cost = spent(&app).await;
    assert_eq!(usage["total"]["cost_usd"], cost as f64 / 1e9);
    assert_eq!(counted(&app).await, [cost]);
}

#[tokio::test]
async fn what_somebodys_own_token_was_answered_is_not_cached_for_others() {
    let setup = Setup::default().set("LOOM_SERVER_LLM_CALLER_TOKENS", "openai");
    let app = setup.start().await;
    let user = app.user("a@example.com").await;
    let settings = format!("/api/orgs/{}/llm/settings", user.org);
    user.patch(&settings, &json!({"cache": {"enabled": true}})).await.expect(200);
    let mut body = Op::Chat.body(GPT);
    body["temperature"] = json!(0);
    let own = user.with("x-loom-provider-token", loom_testkit::app::UPSTREAM_KEY);
    for caller in [&own, &user.caller, &own] {
        let answer = caller.post(Op::Chat.path(), &body).await.expect(200);
        assert_ne!(answer.header("x-loom-cache"), Some("hit"));
    }
    assert_eq!(app.mock.requests().len(), 3);
}

#[tokio::test]
async fn a_token_of_the_callers_own_goes_to_one_provider_alone() {
    let setup = Setup::default().set("LOOM_SERVER_LLM_CALLER_TOKENS", "anthropic,openai");
    let app = setup.start().await;
    let user = app.user("a@example.com").await;
    let target = |provider: &str, model: &str, priority: u32| json!({"provider": provider, "model": model, "priority": priority});
    let routes = format!("/api/orgs/{}/llm/routes", user.org);
    let both = json!({"targets": [target("openai", GPT, 0), target("anthropic", SONNET, 1)]});
    user.put(&format!("{routes}/both"), &both).await.expect(201);
    let one = json!({"targets": [target("openai", GPT, 0), target("openai", "gpt-4o-mini", 1)]});
    user.put(&format!("{routes}/one"), &one).await.expect(201);
    let own = user.with("x-loom-provider-token", "sk-of-the-caller-31337");
    let refused = ask(&own, Op::Chat, "both").await.expect(400);
    assert!(refused.text.contains("is for one"), "{}", refused.text);
    assert!(app.mock.requests().is_empty(), "nobody has seen it");
    ask(&own, Op::Chat, "one").await.expect(401);
    ask(&user, Op::Chat, "both").await.expect(200);
}

#[tokio::test]
async fn a_share_that_comes_when_its_client_has_left_is_not_lost() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    limit(&user, "organisation/all", json!({"concurrent": 1})).await;
    // The database gives no share until this ends.
    let mut held = loom_db::begin(app.database.pool()).await.unwrap();
    sqlx::query("LOCK TABLE llm_limit_uses IN EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
                    AND wait_event_type = 'Lock' AND query LIKE '%llm_limit_take%'";
    let caller = user.caller.clone();
    let left = tokio::spawn(async move { ask(&caller, Op::Chat, GPT).await });
    eventually(async || (app.rows(waits).await.len() == 1).then_some(())).await;
    left.abort();
    app.llm_requests(1).await;
    held.rollback().await.unwrap();
    eventually(async || app.rows(waits).await.is_empty().then_some(())).await;
    let leased = async || app.rows("SELECT held FROM llm_limit_leases").await.pop();
    assert_eq!(eventually(leased).await["held"], 1);
    ask(&user, Op::Chat, GPT).await.expect(200);
}

#[tokio::test]
async fn an_own_price_goes_by_the_models_name_without_its_providers() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let price = json!({"provider": "openai", "model": "house-model", "input": 1000, "output": 0});
    user.post(&format!("/api/orgs/{}/llm/prices", user.org), &price).await.expect(201);
    // It does not say which model it is.
    let reply = json!({"id": "1", "object": "chat.completion", "choices": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": 1}});
    for model in ["house-model", "openai/house-model"] {
        app.mock.enqueue(loom_testkit::llm::Reply::json(200, &reply));
        ask(&user, Op::Chat, model).await.expect(200);
    }
    for row in app.llm_requests(2).await {
        assert_eq!(row["cost_nanousd"], 7_000_000, "{row}");
    }
}
