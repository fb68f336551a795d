//! The cache of replies: nothing by default; where it is on, the same question gets the same answer.

use std::time::Duration;

use loom_testkit::{Answer, Setup, TestApp, User, eventually};
use serde_json::{Value, json};

use super::{GPT, Op, post, stream};

fn certain(mut body: Value) -> Value {
    body["temperature"] = json!(0);
    body
}

async fn turn_on(user: &User, settings: Value) -> Answer {
    let path = format!("/api/orgs/{}/llm/settings", user.org);
    user.patch(&path, &json!({"cache": settings})).await.expect(200)
}

fn told(answer: &Answer) -> Option<&str> {
    answer.header("x-loom-cache")
}

/// Asks until the reply comes from the cache, into which the one before goes behind the client's back.
async fn hit(user: &User, path: &str, body: &Value) -> Answer {
    eventually(async || {
        let answer = user.post(path, body).await.expect(200);
        (told(&answer) == Some("hit")).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn nothing_is_cached_until_it_is_turned_on() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    for n in 1..=2 {
        let answer = user.post(Op::Chat.path(), &certain(Op::Chat.body(GPT))).await.expect(200);
        assert_eq!(told(&answer), None);
        assert_eq!(app.mock.requests().len(), n);
    }
    assert!(app.rows("SELECT 1 FROM llm_cached_replies").await.is_empty());
}

#[tokio::test]
async fn the_same_question_gets_the_same_reply_which_costs_nothing_and_says_so() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("ada@example.com").await;
    let other = app.replica().await;
    turn_on(&user, json!({"enabled": true})).await;
    let native =
        json!({"model": GPT, "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.0});
    let mut asks: Vec<_> = Op::ALL
        .into_iter()
        .flat_map(|op| {
            let model = op.priced_model();
            [(op.path(), certain(op.body(model))), (op.path(), certain(op.stream_body(model)))]
        })
        .collect();
    asks.push(("/v1/embeddings", json!({"model": "text-embedding-3-small", "input": "Hi"})));
    asks.push(("/proxy/openai/complete", native.clone()));
    asks.push(("/proxy/openai/stream", native));
    for (n, (path, body)) in asks.iter().enumerate() {
        let asked = app.mock.requests().len();
        let first = user.post(path, body).await.expect(200);
        assert_eq!(told(&first), Some("miss"), "{path}");
        eventually(async || {
            let kept = app.rows("SELECT 1 FROM llm_cached_replies").await.len();
            (kept == n + 1).then_some(())
        })
        .await;
        let again = user.post(path, body).await.expect(200);
        assert_eq!((told(&again), &again.text), (Some("hit"), &first.text), "{path}");
        assert_eq!(again.header("content-type"), first.header("content-type"), "{path}");
        assert_eq!(app.mock.requests().len(), asked + 1, "{path} {body}");
        app.clock.advance(Duration::from_secs(7));
        // On every replica.
        let there = eventually(async || {
            let there = user.at(&other).post(path, body).await.expect(200);
            (told(&there) == Some("hit")).then_some(there)
        })
        .await;
        assert_eq!((&there.text, there.header("age")), (&first.text, Some("7")), "{path}");
    }
    other.shut_down().await;
    let database = app.stop().await;
    let rows: Vec<Value> =
        sqlx::query_scalar("SELECT to_jsonb(r) FROM llm_requests r WHERE served_from IS NOT NULL")
            .fetch_all(database.pool())
            .await
            .unwrap();
    assert!(rows.len() >= 2 * asks.len(), "{}", rows.len());
    assert!(rows.iter().any(|row| row["streamed"] == true));
    assert!(rows.iter().any(|row| row["provider"] == "anthropic"));
    for row in rows {
        assert_eq!((&row["served_from"], &row["cost_nanousd"]), (&json!("cache"), &json!(0)));
        assert_eq!((&row["input_tokens"], &row["outcome"]), (&json!(null), &json!("succeeded")));
        assert_eq!(row["usage_complete"], true, "nothing of it was used: {row}");
    }
}

#[tokio::test]
async fn what_is_another_question_or_left_to_chance_is_asked() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user("ada@example.com").await, app.user("bob@example.com").await);
    for user in [&ada, &bob] {
        turn_on(user, json!({"enabled": true})).await;
    }
    let path = Op::Messages.path();
    let body = certain(Op::Messages.body(super::SONNET));
    ada.post(path, &body).await.expect(200);
    hit(&ada, path, &body).await;
    // The same said otherwise: blanks, the order of members.
    let spaced = serde_json::to_string_pretty(&body).unwrap();
    let turned = format!("{{\"temperature\": 0.0, {}", &body.to_string()[1..])
        .replace(",\"temperature\":0}", "}");
    for text in [spaced, turned] {
        let same = post(&ada, path, text).await;
        // 0 and 0.0 are two ways to write it, which JSON does not make one.
        assert!(same.headers.contains_key("x-loom-cache"), "{:?}", same.headers);
    }
    let asked = app.mock.requests().len();
    let warm = |temperature: Value| {
        let mut body = body.clone();
        body["temperature"] = temperature;
        body
    };
    for body in
        [Op::Messages.body(super::SONNET), warm(json!(0.1)), warm(json!("0")), warm(json!(null))]
    {
        for _ in 0..2 {
            assert_eq!(told(&ada.post(path, &body).await), None, "{body}");
        }
    }
    assert_eq!(app.mock.requests().len(), asked + 8);
    // Others, another version of the wire, another wire.
    let miss = |answer: Answer| assert_eq!(told(&answer.expect(200)), Some("miss"));
    miss(bob.post(path, &body).await);
    miss(ada.with("anthropic-beta", "something-2026").post(path, &body).await);
    let mut more = body.clone();
    more["max_tokens"] = json!(1025);
    miss(ada.post(path, &more).await);
}

#[tokio::test]
async fn a_client_may_ask_past_the_cache() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    turn_on(&user, json!({"enabled": true})).await;
    let (path, body) = (Op::Chat.path(), certain(Op::Chat.body(GPT)));
    for _ in 0..2 {
        let answer = user.with("cache-control", "max-age=0, no-store").post(path, &body).await;
        assert_eq!(told(&answer.expect(200)), None);
    }
    assert_eq!(told(&user.post(path, &body).await), Some("miss"));
    hit(&user, path, &body).await;
    let asked = app.mock.requests().len();
    let past = user.with("cache-control", "No-Cache").post(path, &body).await.expect(200);
    assert_eq!(told(&past), Some("bypass"));
    assert_eq!(app.mock.requests().len(), asked + 1);
    // It is the newer one that is kept.
    eventually(async || (hit(&user, path, &body).await.text == past.text).then_some(())).await;
}

#[tokio::test]
async fn what_failed_or_was_cut_is_never_given_again() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    turn_on(&user, json!({"enabled": true})).await;
    for op in Op::ALL {
        for model in ["error-500", "error-400", "midstream-error", "cut", "close"] {
            let body = certain(op.stream_body(&format!("openai/mock-{model}"))).to_string();
            for _ in 0..2 {
                let received = post(&user, op.path(), body.clone()).await;
                assert!(
                    received.headers.get("x-loom-cache").is_none_or(|told| told == "miss"),
                    "{op:?} {model}"
                );
            }
        }
    }
    drop(stream(&user, Op::Chat, "mock-paced-10").await);
    // All that was to be written is.
    let database = app.stop().await;
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM llm_cached_replies")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(kept, 0);
}

#[tokio::test]
async fn a_reply_serves_for_its_time_and_is_gone_when_the_cache_is_turned_off() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("ada@example.com").await;
    turn_on(&user, json!({"enabled": true, "ttl_secs": 60})).await;
    let (path, body) = (Op::Chat.path(), certain(Op::Chat.body(GPT)));
    let count = async || app.rows("SELECT 1 FROM llm_cached_replies").await.len();
    let clean = async || app.running.features.jobs.run_now("llm-record-cleanup").await.unwrap();
    user.post(path, &body).await.expect(200);
    hit(&user, path, &body).await;
    app.clock.advance(Duration::from_secs(59));
    assert_eq!(told(&user.post(path, &body).await), Some("hit"));
    clean().await;
    assert_eq!(count().await, 1);
    app.clock.advance(Duration::from_secs(2));
    assert_eq!(told(&user.post(path, &body).await), Some("miss"));
    hit(&user, path, &body).await;
    app.clock.advance(Duration::from_secs(61));
    clean().await;
    assert_eq!(count().await, 0);
    user.post(path, &body).await.expect(200);
    hit(&user, path, &body).await;
    turn_on(&user, json!({"enabled": false})).await;
    assert_eq!(count().await, 0);
    assert_eq!(told(&user.post(path, &body).await), None);
}

#[tokio::test]
async fn settings_have_bounds_and_their_changes_are_audited() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    let path = format!("/api/orgs/{}/llm/settings", user.org);
    let defaults = json!({
        "cache": {"enabled": false, "ttl_secs": 3600},
        "capture": {"enabled": false, "retention_days": 30, "redact": true},
    });
    assert_eq!(user.get(&path).await.expect(200).json(), defaults);
    for (wrong, at) in [
        (json!({"cache": {"ttl_secs": 0}}), "cache.ttl_secs"),
        (json!({"cache": {"ttl_secs": 604_801}}), "cache.ttl_secs"),
        (json!({"capture": {"retention_days": 366}}), "capture.retention_days"),
    ] {
        let answer = user.patch(&path, &wrong).await.expect(422);
        assert_eq!(answer.json()["errors"][0]["path"], at);
    }
    let changed = user.patch(&path, &json!({"capture": {"retention_days": 7}})).await.expect(200);
    assert_eq!(changed.json()["capture"]["retention_days"], 7);
    assert_eq!(user.get(&path).await.json(), changed.json());
    let acts = app.rows("SELECT * FROM audit_log WHERE action = 'llm_settings.change'").await;
    assert_eq!(acts.len(), 1, "what was refused is no change");
    assert_eq!(acts[0]["details"]["from"]["capture"]["retention_days"], 30);
}
