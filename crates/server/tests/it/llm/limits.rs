//! Limits and budgets on one server.

use std::time::Duration;

use loom_core::{Clock, principal::OrgRole};
use loom_testkit::{Answer, Setup, TestApp, TestDatabase, app::User, eventually};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{GPT, Op, SONNET, ask, begin_stream, stream};

/// What the mock's usual answer of [`SONNET`] costs, in billionths of a dollar.
pub(super) const COST: i64 = 7_725_000;

/// Sets a limit of the user's own organisation.
pub(super) async fn limit(user: &User, subject: &str, caps: Value) -> Answer {
    let answer = user.put(&format!("/api/orgs/{}/llm/limits/{subject}", user.org), &caps).await;
    assert!([200, 201].contains(&answer.status.as_u16()), "{answer:?}");
    answer
}

pub(super) async fn limits(user: &User) -> Vec<Value> {
    let answer = user.get(&format!("/api/orgs/{}/llm/limits", user.org)).await.expect(200);
    answer.json()["limits"].as_array().unwrap().clone()
}

/// A request to [`SONNET`] whose longest answer costs a little more than its answer does.
pub(super) fn tight() -> Value {
    let mut body = Op::Messages.body(SONNET);
    body["max_tokens"] = json!(510);
    body
}

/// What [`tight`] reserves: a quarter of its bytes as input, and its longest answer.
pub(super) fn estimate() -> i64 {
    let input = i64::try_from(tight().to_string().len() / 4 + 1).unwrap();
    (input * 3 + 510 * 15) * 1000
}

pub(super) async fn spent(app: &TestApp) -> i64 {
    let rows =
        app.rows("SELECT coalesce(sum(cost_nanousd), 0)::bigint AS cost FROM llm_requests").await;
    rows[0]["cost"].as_i64().unwrap()
}

/// What the budgets have counted.
pub(super) async fn counted(app: &TestApp) -> Vec<i64> {
    let rows = app
        .rows("SELECT used FROM llm_limit_uses WHERE measure IN ('day', 'month') ORDER BY used")
        .await;
    rows.iter().map(|row| row["used"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn requests_per_minute_refill_evenly_and_a_refusal_tells_when() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("a@example.com").await;
    limit(&user, "organisation/all", json!({"requests_per_minute": 5})).await;
    for left in (0..5).rev() {
        let answer = ask(&user, Op::Chat, GPT).await.expect(200);
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("5"));
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some(&*left.to_string()));
    }
    for op in Op::ALL {
        let refused = ask(&user, op, op.priced_model()).await.expect(429);
        assert_eq!(refused.header("retry-after"), Some("12"));
        let (message, kind) = op.error_of(&refused.json());
        assert!(message.contains("5 requests per minute of this organisation"), "{message}");
        assert_eq!(
            kind,
            if op == Op::Messages { "rate_limit_error" } else { "rate_limit_exceeded" }
        );
    }
    // What was refused is in the account, and was asked of nobody.
    let rows = app.llm_requests(8).await;
    assert_eq!(rows.iter().filter(|row| row["error_code"] == "rate_limited").count(), 3);
    assert_eq!(app.mock.requests().len(), 5);
    app.clock.advance(Duration::from_secs(12));
    ask(&user, Op::Chat, GPT).await.expect(200);
    ask(&user, Op::Chat, GPT).await.expect(429);
}

#[tokio::test]
async fn native_requests_come_under_the_same_limits_with_a_problem_document() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("a@example.com").await;
    limit(&user, &format!("user/{}", user.id), json!({"requests_per_minute": 2})).await;
    let body = json!({"model": SONNET, "messages": [{"role": "user", "content": "Hi"}]});
    for path in ["/proxy/anthropic/complete", "/proxy/anthropic/stream"] {
        let answer = user.post(path, &body).await.expect(200);
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("2"));
    }
    let refused = user.post("/proxy/anthropic/complete", &body).await.expect(429);
    assert_eq!(refused.code(), "rate_limited");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));
    assert_eq!(refused.header("retry-after"), Some("30"));
    assert_eq!(refused.json()["limit"]["measure"], "requests");
    limit(&user, "organisation/all", json!({"usd_per_day": 0.000_5})).await;
    app.clock.advance(Duration::from_secs(60));
    let refused = user.post("/proxy/anthropic/complete", &body).await.expect(429);
    assert_eq!(refused.code(), "quota_exceeded");
    assert_eq!(refused.json()["limit"]["limit_usd"], 0.000_5, "{}", refused.text);
}

#[tokio::test]
async fn tokens_are_reserved_with_the_longest_answer_and_what_is_unused_comes_back() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("a@example.com").await;
    limit(&user, "model/claude-*", json!({"tokens_per_minute": 20_000})).await;
    let mut body = Op::Messages.body(SONNET);
    body["max_tokens"] = json!(15_000);
    // Each uses 5740 of the 15000 and more that it reserves.
    user.post("/v1/messages", &body).await.expect(200);
    let refused = user.post("/v1/messages", &body).await.expect(429);
    assert!(
        refused.text.contains("20000 tokens per minute of the models `claude-*`"),
        "{refused:?}"
    );
    body["max_tokens"] = json!(10_000);
    user.post("/v1/messages", &body).await.expect(200);
    // Another model is not under it.
    ask(&user, Op::Chat, GPT).await.expect(200);
}

#[tokio::test]
async fn the_input_of_a_stream_that_is_left_counts_also_where_it_is_told_of_at_the_end() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("a@example.com").await;
    limit(&user, "organisation/all", json!({"tokens_per_minute": 20_000})).await;
    let mut body = Op::Chat.stream_body("mock-paced-100");
    body["messages"][0]["content"] = json!("and ".repeat(10_000));
    body["max_completion_tokens"] = json!(5000);
    let mut left = super::begin(&user, Op::Chat.path(), body.to_string()).await;
    left.chunk().await.unwrap();
    drop(left);
    app.llm_requests(1).await;
    let mut short = Op::Chat.body(GPT);
    short["max_completion_tokens"] = json!(10);
    let next = user.post(Op::Chat.path(), &short).await.expect(200);
    let left: u32 = next.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap();
    assert!(left < 10_000, "{left}");
}

#[tokio::test]
async fn so_many_run_at_once_and_one_that_ends_or_is_left_makes_room() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    limit(&user, "organisation/all", json!({"concurrent": 2})).await;
    let first = begin_stream(&user, Op::Messages, "mock-paced-100").await;
    let _second = begin_stream(&user, Op::Chat, "mock-paced-100").await;
    let refused = ask(&user, Op::Chat, GPT).await.expect(429);
    assert!(refused.text.contains("2 requests at the same time"), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    drop(first);
    eventually(async || (ask(&user, Op::Chat, GPT).await.status == 200).then_some(())).await;
    for _ in 0..20 {
        ask(&user, Op::Chat, GPT).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_at_once_never_spend_more_than_the_budget() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    // Room for a hundred.
    let budget = 100 * estimate();
    limit(&user, "organisation/all", json!({"usd_per_day": budget as f64 / 1e9})).await;
    let mut asked = JoinSet::new();
    for _ in 0..1000 {
        let caller = user.caller.clone();
        asked.spawn(async move { caller.post("/v1/messages", &tight()).await });
    }
    let answers = asked.join_all().await;
    let ok = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((99..=101).contains(&ok), "{ok} of 1000");
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(refused.status, 429, "{refused:?}");
    }
    app.llm_requests(1000).await;
    let cost = spent(&app).await;
    assert!(cost <= budget + estimate(), "{cost} of {budget}");
    assert_eq!(counted(&app).await, [cost], "the budget counts what the rows say");
}

#[tokio::test]
async fn a_budget_counts_every_kind_of_reply_by_its_row() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    ask(&user, Op::Messages, SONNET).await.expect(200);
    app.llm_requests(1).await;
    // What was spent before the limit counts, too.
    let caps = json!({"usd_per_day": 10, "usd_per_month": 100});
    let made = limit(&user, "organisation/all", caps).await.json();
    assert_eq!(made["current"]["usd_today"], COST as f64 / 1e9, "{made}");
    let native = json!({"model": SONNET, "messages": [{"role": "user", "content": "Hi"}]});
    for op in Op::ALL {
        ask(&user, op, op.priced_model()).await.expect(200);
        stream(&user, op, op.priced_model()).await;
        let other = if op == Op::Messages { GPT } else { SONNET };
        ask(&user, op, other).await.expect(200);
        stream(&user, op, other).await;
    }
    user.post("/proxy/anthropic/complete", &native).await.expect(200);
    user.post("/proxy/anthropic/stream", &native).await.expect(200);
    ask(&user, Op::Chat, "mock-error-500").await.expect(500);
    app.llm_requests(16).await;
    let cost = spent(&app).await;
    eventually(async || (counted(&app).await == [cost, cost]).then_some(())).await;
    let current = &limits(&user).await[0]["current"];
    assert_eq!(current["usd_today"], cost as f64 / 1e9, "{current}");
    assert_eq!(current["usd_this_month"], cost as f64 / 1e9);
    assert!(current["day_ends_at"].as_str().unwrap().ends_with("T00:00:00.000Z"), "{current}");
    // What nothing runs against is given back at the end.
    let database = app.stop().await;
    let held: i64 = sqlx::query_scalar("SELECT count(*) FROM llm_limit_leases")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(held, 0);
}

#[tokio::test]
async fn what_failed_or_was_cancelled_gives_its_reservation_back() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    // Two of them fit at once, and more than two do not.
    let budget = 2 * estimate() + 1;
    limit(&user, "organisation/all", json!({"usd_per_day": budget as f64 / 1e9})).await;
    app.mock.enqueue(loom_testkit::llm::Script::error(500));
    user.post("/v1/messages", &tight()).await.expect(500);
    app.mock.enqueue(loom_testkit::llm::Script::error(400));
    user.post("/v1/messages", &tight()).await.expect(400);
    let mut slow = tight();
    slow["stream"] = json!(true);
    for _ in 0..2 {
        app.mock.enqueue(loom_testkit::llm::Script::model("mock-hang"));
        let sent = user.request(http::Method::POST, "/v1/messages").json(&slow).send();
        // The client leaves before it has heard anything.
        let seen = app.mock.requests().len() + 1;
        tokio::select! {
            _ = sent => panic!("it hangs"),
            _ = app.mock.wait_for_request(seen) => {}
        }
    }
    for _ in 0..2 {
        eventually(async || {
            (user.post("/v1/messages", &tight()).await.status == 200).then_some(())
        })
        .await;
    }
    user.post("/v1/messages", &tight()).await.expect(429);
}

#[tokio::test]
async fn without_a_longest_answer_the_models_own_is_reserved() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    // 16384 tokens of gpt-4o are 0.16 dollars.
    limit(&user, "model/gpt-4o*", json!({"usd_per_month": 0.1})).await;
    let refused = ask(&user, Op::Chat, GPT).await.expect(429);
    let (message, code) = Op::Chat.error_of(&refused.json());
    assert_eq!(code, "insufficient_quota");
    assert!(message.contains("may cost 0.16"), "{message}");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    for (op, field) in [
        (Op::Chat, "max_tokens"),
        (Op::Chat, "max_completion_tokens"),
        (Op::Responses, "max_output_tokens"),
    ] {
        let mut body = op.body(GPT);
        body[field] = json!(100);
        user.post(op.path(), &body).await.expect(200);
    }
    let mut many = Op::Chat.body(GPT);
    many["max_tokens"] = json!(8000);
    user.post("/v1/chat/completions", &many).await.expect(200);
    many["n"] = json!(2);
    user.post("/v1/chat/completions", &many).await.expect(429);
}

#[tokio::test]
async fn a_budget_begins_anew_with_its_day() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("a@example.com").await;
    let usd = estimate() as f64 / 1e9;
    limit(&user, "organisation/all", json!({"usd_per_day": usd, "usd_per_month": 100})).await;
    user.post("/v1/messages", &tight()).await.expect(200);
    let refused = user.post("/v1/messages", &tight()).await.expect(429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    // 2027-01-15 08:00:00 UTC
    assert_eq!(wait, 16 * 3600);
    app.clock.advance(Duration::from_secs(wait));
    // Keys are read again after so long, and so is what was spent.
    user.post("/v1/messages", &tight()).await.expect(200);
    user.post("/v1/messages", &tight()).await.expect(429);
    app.llm_requests(4).await;
    let month = &limits(&user).await[0]["current"]["usd_this_month"];
    assert_eq!(*month, 2.0 * COST as f64 / 1e9);
}

#[tokio::test]
async fn models_without_a_price_pass_a_budget_unless_it_refuses_them() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    limit(&user, "organisation/all", json!({"usd_per_day": 0})).await;
    ask(&user, Op::Chat, "gpt-of-tomorrow").await.expect(200);
    ask(&user, Op::Chat, GPT).await.expect(429);
    limit(&user, "organisation/all", json!({"usd_per_day": 5, "refuse_unpriced": true})).await;
    let refused = ask(&user, Op::Chat, "gpt-of-tomorrow").await.expect(403);
    assert_eq!(Op::Chat.error_of(&refused.json()).1, "unpriced_model");
    ask(&user, Op::Chat, GPT).await.expect(200);
}

#[tokio::test]
async fn an_api_keys_own_budget_holds_and_can_be_raised() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let new = json!({"name": "small", "kind": "personal", "scopes": ["llm:use"], "monthly_budget_usd": 0.02});
    let keys = format!("/api/orgs/{}/api-keys", user.org);
    let made = user.post(&keys, &new).await.expect(201).json();
    let key = user.with_key(made["secret"].as_str().unwrap());
    key.post("/v1/messages", &tight()).await.expect(200);
    key.post("/v1/messages", &tight()).await.expect(200);
    let refused = key.post("/v1/messages", &tight()).await.expect(429);
    assert!(refused.text.contains("0.02 US dollars per month of this API key"), "{refused:?}");
    // Other keys of the same user are not under it.
    user.post("/v1/messages", &tight()).await.expect(200);
    let path = format!("{keys}/{}", made["id"].as_str().unwrap());
    user.patch(&path, &json!({"monthly_budget_usd": 1})).await.expect(200);
    eventually(async || (key.post("/v1/messages", &tight()).await.status == 200).then_some(()))
        .await;
}

#[tokio::test]
async fn limits_are_of_one_organisation_and_change_at_once() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user("ada@example.com").await, app.user("eve@example.com").await);
    limit(&ada, "organisation/all", json!({"requests_per_minute": 0})).await;
    limit(&ada, "model/*", json!({"concurrent": 0})).await;
    ask(&ada, Op::Chat, GPT).await.expect(429);
    ask(&eve, Op::Chat, GPT).await.expect(200);
    let answer = limit(&ada, "organisation/all", json!({"requests_per_minute": 10})).await;
    assert_eq!(answer.status, 200);
    ask(&ada, Op::Chat, GPT).await.expect(429);
    let path = format!("/api/orgs/{}/llm/limits/model/*", ada.org);
    ada.delete(&path).await.expect(204);
    ada.delete(&path).await.expect(404);
    ask(&ada, Op::Chat, GPT).await.expect(200);
    assert!(limits(&eve).await.is_empty());
    let acts = app
        .rows(
            "SELECT action, target FROM audit_log WHERE action LIKE 'llm_limit.%' ORDER BY at, id",
        )
        .await;
    let acts: Vec<_> = acts.iter().map(|act| (&act["action"], &act["target"])).collect();
    assert_eq!(acts.len(), 4, "{acts:?}");
    assert_eq!(acts[3], (&json!("llm_limit.delete"), &json!("model/*")));
}

#[tokio::test]
async fn members_see_the_organisations_limits_and_their_own_and_change_none() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user("ada@example.com").await, app.user("bob@example.com").await);
    app.join(bob.id, ada.org, OrgRole::Member).await;
    for subject in [
        "organisation/all".to_owned(),
        "model/openai%2Fgpt-*".to_owned(),
        format!("user/{}", ada.id),
        format!("user/{}", bob.id),
    ] {
        limit(&ada, &subject, json!({"requests_per_minute": 10})).await;
    }
    let path = format!("/api/orgs/{}/llm/limits", ada.org);
    let seen = |answer: Answer| {
        let limits = answer.json()["limits"].as_array().unwrap().clone();
        limits.iter().map(|limit| limit["subject"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut own = vec!["openai/gpt-*".to_owned(), "all".to_owned(), bob.id.to_string()];
    assert_eq!(seen(bob.get(&path).await.expect(200)), own);
    own.push(ada.id.to_string());
    assert_eq!(seen(ada.get(&path).await.expect(200)).len(), 4);
    // By pages.
    let first = ada.get(&format!("{path}?limit=3")).await.expect(200);
    let cursor = first.json()["next_cursor"].as_str().unwrap().to_owned();
    let rest = ada.get(&format!("{path}?limit=3&cursor={cursor}")).await.expect(200);
    assert_eq!(seen(first).len() + seen(rest).len(), 4);
    bob.put(&format!("{path}/organisation/all"), &json!({"requests_per_minute": 1}))
        .await
        .expect(403);
    bob.delete(&format!("{path}/organisation/all")).await.expect(403);
    for (subject, body, status) in [
        ("organisation/other", json!({"concurrent": 1}), 422),
        ("user/nobody", json!({"concurrent": 1}), 422),
        ("planet/earth", json!({"concurrent": 1}), 404),
        ("organisation/all", json!({}), 422),
        ("organisation/all", json!({"concurrent": -1}), 422),
        ("organisation/all", json!({"usd_per_day": 1e12}), 422),
    ] {
        ada.put(&format!("{path}/{subject}"), &body).await.expect(status);
    }
}

#[tokio::test]
async fn with_the_database_away_what_is_leased_may_be_spent_and_nothing_else() {
    let database = TestDatabase::new().await;
    let (proxy, url) = database.proxied().await;
    let app =
        Setup::default().clock(Clock::system()).set("DATABASE_URL", url).start_on(database).await;
    let user = app.user("a@example.com").await;
    // A server that knows itself alone takes a tenth of it.
    limit(&user, "organisation/all", json!({"usd_per_day": 5})).await;
    for _ in 0..5 {
        user.post("/v1/messages", &tight()).await.expect(200);
    }
    proxy.refuse().await;
    proxy.cut();
    user.post("/v1/messages", &tight()).await.expect(200);
    // 60000 tokens of Sonnet are 0.9 dollars.
    let mut large = tight();
    large["max_tokens"] = json!(60_000);
    let refused = user.post("/v1/messages", &large).await.expect(503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    proxy.resume().unwrap();
    eventually(async || (user.post("/v1/messages", &large).await.status == 200).then_some(()))
        .await;
}

#[tokio::test]
async fn what_was_counted_of_days_long_over_and_of_limits_that_are_gone_is_deleted() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("a@example.com").await;
    limit(&user, "organisation/all", json!({"usd_per_day": 5, "requests_per_minute": 9})).await;
    ask(&user, Op::Chat, GPT).await.expect(200);
    let kept = "SELECT measure FROM llm_limit_uses ORDER BY measure";
    assert_eq!(app.rows(kept).await.len(), 2);
    app.clock.advance(Duration::from_secs(4 * 24 * 3600));
    app.running.features.jobs.run_now("llm-request-cleanup").await.unwrap();
    assert_eq!(app.rows(kept).await, [json!({"measure": "requests"})]);
    sqlx::query("DELETE FROM llm_limits").execute(app.database.pool()).await.unwrap();
    app.running.features.jobs.run_now("llm-request-cleanup").await.unwrap();
    assert!(app.rows(kept).await.is_empty());
}
