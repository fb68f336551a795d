//! `idempotency-key`: one request, however often it is sent.

use std::time::Duration;

use loom_testkit::{
    Answer, Caller, Setup, TestApp, eventually,
    llm::{Ended, trigger::PACED_DELTAS},
};
use serde_json::{Value, json};

use super::{GPT, Op, Received, SONNET, ask, begin, begin_stream, post, stream};

const REPLAY: &str = "x-loom-idempotent-replay";

/// Everything that a model can be asked by: the path and the body.
fn all() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for op in Op::ALL {
        let model = op.priced_model();
        all.push((op.path().to_owned(), op.body(model)));
        all.push((op.path().to_owned(), op.stream_body(model)));
    }
    // Translated.
    all.push((Op::Chat.path().to_owned(), Op::Chat.stream_body(SONNET)));
    all.push((Op::Messages.path().to_owned(), Op::Messages.body(GPT)));
    all.push((
        "/v1/embeddings".to_owned(),
        json!({"model": "text-embedding-3-small", "input": "Hi"}),
    ));
    let native = json!({"model": GPT, "messages": [{"role": "user", "content": "Hi"}]});
    for path in ["/proxy/openai/complete", "/proxy/openai/stream"] {
        all.push((path.to_owned(), native.clone()));
    }
    all
}

fn keyed(caller: &Caller, key: &str) -> Caller {
    caller.with("idempotency-key", key)
}

fn is_replay(received: &Received) -> bool {
    received.headers.get(REPLAY).is_some_and(|value| value == "true")
}

async fn post_again(caller: &Caller, path: &str, body: &Value) -> Received {
    post(caller, path, body.to_string()).await
}

#[tokio::test]
async fn a_repeat_gets_the_same_reply_and_nobody_is_asked_or_pays() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    let other = app.replica().await;
    for (n, (path, body)) in all().into_iter().enumerate() {
        let caller = keyed(&user, &format!("key-{n}"));
        let first = post_again(&caller, &path, &body).await;
        assert!(first.status == 200 && !is_replay(&first), "{path}: {}", first.text());
        for caller in [caller.clone(), caller.at(&other), caller.clone()] {
            let again = post_again(&caller, &path, &body).await;
            assert_eq!(again.status, 200, "{path}: {}", again.text());
            assert!(is_replay(&again), "{path}: {:?}", again.headers);
            assert_eq!(again.body, first.body, "{path}");
            assert_eq!(again.headers["content-type"], first.headers["content-type"], "{path}");
        }
        assert_eq!(app.mock.requests().len(), n + 1, "{path}");
    }
    other.shut_down().await;
    let requests = all().len();
    // All rows are written when the server has gone.
    let database = app.stop().await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM llm_requests")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(usize::try_from(rows).unwrap(), requests);
}

#[tokio::test]
async fn who_asks_meanwhile_hears_the_running_reply_from_its_beginning() {
    let app = TestApp::start().await;
    let user = keyed(&app.user("ada@example.com").await.caller, "k");
    let other = app.replica().await;
    for op in Op::ALL {
        app.mock.clear();
        let user = user.with("idempotency-key", op.path());
        let running = begin_stream(&user, op, "openai/mock-paced-20").await;
        let elsewhere = user.at(&other);
        let (first, joined, waited) = tokio::join!(
            super::receive(running),
            stream(&user, op, "openai/mock-paced-20"),
            stream(&elsewhere, op, "openai/mock-paced-20"),
        );
        assert!(is_replay(&joined) && is_replay(&waited));
        assert_eq!(
            joined.body, waited.body,
            "what the first had read of its own is not in `first`"
        );
        assert!(joined.text().ends_with(first.text()), "{op:?}");
        assert!(
            joined.text().contains(&format!("tick{PACED_DELTAS}")),
            "{op:?}: {}",
            joined.text()
        );
        assert_eq!(app.mock.requests().len(), 1, "{op:?}");
    }
    other.shut_down().await;
}

#[tokio::test]
async fn many_at_once_are_one_request() {
    let app = TestApp::start().await;
    let user = keyed(&app.user("ada@example.com").await.caller, "the same");
    let other = app.replica().await;
    let asks = (0..20).map(|n| {
        let caller = if n % 2 == 0 { user.clone() } else { user.at(&other) };
        async move { ask(&caller, Op::Chat, "openai/mock-slow-body-100").await }
    });
    let answers = futures::future::join_all(asks).await;
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.text), (200, &answers[0].text));
    }
    assert_eq!(answers.iter().filter(|answer| answer.header(REPLAY).is_none()).count(), 1);
    assert_eq!(app.mock.requests().len(), 1);
    other.shut_down().await;
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused_whether_the_first_runs_or_is_done() {
    let app = TestApp::start().await;
    let user = keyed(&app.user("ada@example.com").await.caller, "k");
    let other = app.replica().await;
    let refused = |op: Op, answer: Answer| {
        let answer = answer.expect(422);
        let (message, _) = op.error_of(&answer.json());
        assert!(message.contains("a new request needs a new key"), "{message}");
    };
    for op in Op::ALL {
        let running = begin_stream(&user, op, "openai/mock-paced-20").await;
        for caller in [user.clone(), user.at(&other)] {
            refused(op, ask(&caller, op, "openai/mock-paced-20").await);
        }
        super::receive(running).await;
        for caller in [user.clone(), user.at(&other)] {
            refused(op, ask(&caller, op, "openai/mock-paced-20").await);
        }
    }
    let native =
        |text: &str| json!({"model": GPT, "messages": [{"role": "user", "content": text}]});
    user.post("/proxy/openai/complete", &native("a")).await.expect(200);
    let answer = user.post("/proxy/openai/complete", &native("b")).await.expect(422);
    assert_eq!(answer.code(), "idempotency_key_reused");
    other.shut_down().await;
}

#[tokio::test]
async fn what_failed_is_tried_anew() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    let models = ["error-500", "error-400", "midstream-error", "cut", "close"];
    for op in Op::ALL {
        for model in models.map(|model| format!("openai/mock-{model}")) {
            app.mock.clear();
            let user = keyed(&user, &format!("{}-{}", model.replace('/', "-"), op.path()));
            for n in 1..=2 {
                let received = stream(&user, op, &model).await;
                assert!(!is_replay(&received), "{op:?} {model}");
                app.mock.wait_for_request(n).await;
            }
        }
    }
    // A body that is wrong costs nothing; put right, it goes through under the same key.
    let user = keyed(&user, "k");
    user.post(Op::Chat.path(), &json!({"messages": []})).await.expect(400);
    ask(&user, Op::Chat, GPT).await.expect(200);
}

#[tokio::test]
async fn a_request_goes_on_when_its_client_leaves_and_is_there_when_it_comes_back() {
    let app = TestApp::start().await;
    let user = keyed(&app.user("ada@example.com").await.caller, "k");
    let body = Op::Chat.stream_body("mock-paced-10");
    drop(begin_stream(&user, Op::Chat, "mock-paced-10").await);
    assert_eq!(app.mock.wait_for_end(1).await.ended(), Some(Ended::Finished));
    let again = post_again(&user, Op::Chat.path(), &body).await;
    assert!(is_replay(&again));
    assert!(again.text().contains(&format!("tick{PACED_DELTAS}")), "{}", again.text());
    assert!(again.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(app.mock.requests().len(), 1);
    let row = app.llm_requests(1).await.remove(0);
    assert_eq!(row["outcome"], "succeeded");
}

#[tokio::test]
async fn the_claim_of_a_server_that_says_nothing_any_more_ends() {
    let app = Setup::default().manual_clock().start().await;
    let user = keyed(&app.user("ada@example.com").await.caller, "k");
    let other = app.replica().await;
    // It hangs here: only the clock tells whether its server lives.
    let hanging =
        begin(&user, "/v1/chat/completions", Op::Chat.stream_body("mock-stall").to_string()).await;
    let body = Op::Chat.stream_body("mock-stall");
    let elsewhere = user.at(&other);
    let takes_over = begin(&elsewhere, "/v1/chat/completions", body.to_string());
    let moves = async {
        app.clock.advance(Duration::from_secs(31));
        app.mock.wait_for_request(2).await;
    };
    let (taken_over, ()) = tokio::join!(takes_over, moves);
    assert_eq!(taken_over.status(), 200);
    assert!(!taken_over.headers().contains_key(REPLAY));
    drop((hanging, taken_over));
    other.shut_down().await;
}

#[tokio::test]
async fn a_key_is_the_callers_own_and_of_one_route() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user("ada@example.com").await, app.user("bob@example.com").await);
    for (n, caller) in [&ada, &bob].into_iter().enumerate() {
        let caller = keyed(caller, "k");
        for (m, op) in Op::ALL.into_iter().enumerate() {
            let answer = ask(&caller, op, op.priced_model()).await.expect(200);
            assert_eq!(answer.header(REPLAY), None);
            assert_eq!(app.mock.requests().len(), 3 * n + m + 1);
        }
    }
    // Another key of the same user is the same caller.
    let second = app.with_scopes(&ada, &[loom_core::principal::Scope::LlmUse]).await;
    let again = ask(&keyed(&second, "k"), Op::Chat, GPT).await.expect(200);
    assert_eq!(again.header(REPLAY), Some("true"));
    // The key itself is ours alone.
    assert!(app.mock.requests().iter().all(|r| r.header("idempotency-key").is_none()));
    let none = app.with_scopes(&ada, &[loom_core::principal::Scope::ThreadsRead]).await;
    ask(&keyed(&none, "k"), Op::Chat, GPT).await.expect(403);
}

#[tokio::test]
async fn a_key_is_free_again_after_a_day_and_nothing_is_left_of_it() {
    let app = Setup::default().manual_clock().start().await;
    let user = keyed(&app.user("ada@example.com").await.caller, "k");
    ask(&user, Op::Chat, GPT).await.expect(200);
    app.clock.advance(Duration::from_secs(24 * 3600 - 60));
    let again = ask(&user, Op::Chat, GPT).await.expect(200);
    assert_eq!(again.header(REPLAY), Some("true"));
    let jobs = &app.running.features.jobs;
    jobs.run_now("llm-record-cleanup").await.unwrap();
    assert_eq!(app.rows("SELECT 1 FROM llm_idempotency_keys").await.len(), 1);
    app.clock.advance(Duration::from_secs(120));
    let anew = ask(&user, Op::Chat, GPT).await.expect(200);
    assert_eq!(anew.header(REPLAY), None);
    assert_eq!(app.mock.requests().len(), 2);
    app.clock.advance(Duration::from_secs(24 * 3600 + 60));
    jobs.run_now("llm-record-cleanup").await.unwrap();
    assert!(app.rows("SELECT 1 FROM llm_idempotency_keys").await.is_empty());
}

#[tokio::test]
async fn a_reply_that_is_too_large_to_be_kept_reaches_its_client_and_is_not_paid_twice() {
    let app = TestApp::start().await;
    let user = keyed(&app.user("ada@example.com").await.caller, "k");
    let first = stream(&user, Op::Chat, "mock-huge-line").await;
    assert!(first.status == 200 && !first.broke_off && first.body.len() > 10 << 20);
    assert!(first.text().ends_with("data: [DONE]\n\n"));
    let again = eventually(async || {
        let again = stream(&user, Op::Chat, "mock-huge-line").await;
        (again.status == 409).then_some(again)
    })
    .await;
    let told: Value = serde_json::from_slice(&again.body).unwrap();
    assert_eq!(Op::Chat.error_of(&told).1, "idempotency_too_large");
    assert_eq!(app.mock.requests().len(), 1);
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    for bad in ["", &"k".repeat(256), "a\tb"] {
        let answer = ask(&keyed(&user, bad), Op::Chat, GPT).await.expect(400);
        assert_eq!(Op::Chat.error_of(&answer.json()).1, "invalid_idempotency_key");
    }
    assert!(app.mock.requests().is_empty());
}
