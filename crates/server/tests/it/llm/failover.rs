//! Who is asked next when a provider fails: before anything of a reply, never after.

use std::time::Duration;

use loom_testkit::{
    Setup, TestApp, User,
    app::UPSTREAM_KEY,
    llm::{Ended, Head, MockLlm, Reply, Script, Step},
};
use serde_json::{Value, json};

use super::{GPT, Op, SONNET, ask, begin, post, post_directly, receive, stream};

const OTHER_KEY: &str = "sk-other-77aa01";

/// A server with so many stored credentials beside the one of its environment.
async fn with_credentials(setup: Setup, more: usize) -> (TestApp, User) {
    let app = setup.start().await;
    let admin = app.admin("admin@example.com").await;
    for n in 0..more {
        for provider in ["anthropic", "openai"] {
            let new = json!({"name": format!("more-{n}"), "secret": UPSTREAM_KEY});
            let path = format!("/api/admin/llm/providers/{provider}/credentials");
            admin.post(&path, &new).await.expect(201);
        }
    }
    let user = app.user("a@example.com").await;
    (app, user)
}

fn announcement(op: Op) -> Reply {
    let reply = Reply::sse();
    match op {
        Op::Messages => reply
            .event(&json!({"type": "message_start", "message": {"id": "lost", "model": "m", "usage": {"input_tokens": 9}}}))
            .event(&json!({"type": "ping"})),
        Op::Chat => reply.event(&json!({"id": "lost", "model": "m", "choices": [{"delta": {"role": "assistant", "content": ""}}]})),
        Op::Responses => reply
            .event(&json!({"type": "response.created", "response": {"id": "lost"}}))
            .event(&json!({"type": "response.in_progress", "response": {"id": "lost"}})),
    }
}

fn error_event(op: Op) -> Value {
    match op {
        Op::Messages => {
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
        }
        Op::Chat => json!({"error": {"message": "no", "type": "server_error", "code": null}}),
        Op::Responses => {
            json!({"type": "response.failed", "response": {"id": "lost", "error": {"code": "server_error", "message": "no"}}})
        }
    }
}

/// The same without what the mock numbers.
fn content(text: &str) -> String {
    text.split("mock0000")
        .map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()))
        .collect()
}

#[tokio::test]
async fn each_failure_before_a_reply_goes_to_the_next_credential() {
    let (app, user) = with_credentials(Setup::default(), 8).await;
    for op in Op::ALL {
        for body in [op.body(op.priced_model()), op.stream_body(op.priced_model())] {
            let direct = post_directly(&app, op.path(), body.to_string()).await;
            for failure in [
                Script::error(429),
                Script::error(408),
                Script::error(500),
                Script::error(503),
                Script::error(529),
            ] {
                app.mock.enqueue(failure);
                app.mock.clear();
                let through = post(&user, op.path(), body.to_string()).await;
                assert_eq!(through.status, 200, "{op:?}: {}", through.text());
                assert_eq!(content(through.text()), content(direct.text()), "{op:?}");
                assert_eq!(app.mock.requests().len(), 2, "{op:?}");
                assert_eq!(app.mock.requests()[1].body, body.to_string());
            }
        }
    }
    let metrics = app.anonymous().get("/metrics").await.expect(200).text;
    for outcome in ["rate_limited", "failed", "sound"] {
        let line = format!("loom_llm_attempts_total{{provider=\"openai\",outcome=\"{outcome}\"}}");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test]
async fn an_error_or_a_break_behind_the_announcement_alone_goes_to_the_next_credential() {
    let (app, user) = with_credentials(Setup::default(), 1).await;
    for op in Op::ALL {
        let body = op.stream_body(op.priced_model()).to_string();
        let direct = post_directly(&app, op.path(), body.clone()).await;
        for failure in [
            announcement(op).event(&error_event(op)),
            announcement(op).event(&error_event(op)).step(Step::Stall),
            announcement(op).step(Step::Reset),
            announcement(op).step(Step::Close),
            announcement(op),
            announcement(op).bytes("data: {\"half").step(Step::Close),
            Reply::sse().header("content-length", "0"),
        ] {
            app.mock.enqueue(failure);
            app.mock.clear();
            let through = post(&user, op.path(), body.clone()).await;
            assert_eq!(through.status, 200, "{op:?}");
            assert_eq!(content(through.text()), content(direct.text()), "{op:?}");
            assert!(!through.text().contains("lost"), "{op:?}");
            assert_eq!(app.mock.requests().len(), 2, "{op:?}");
            assert!(app.mock.wait_for_end(1).await.end.is_some());
        }
    }
    for row in app.llm_requests(21).await {
        assert_eq!((&row["outcome"], &row["status"]), (&json!("succeeded"), &json!(200)), "{row}");
        assert_ne!(row["input_tokens"], 9, "of the reply that came in the end: {row}");
        assert!(row["first_token_ms"].is_number(), "{row}");
    }
}

#[tokio::test]
async fn silence_behind_the_announcement_goes_to_the_next_credential() {
    let setup = Setup::default()
        .set("LOOM_SERVER_LLM_IDLE_TIMEOUT_SECS", "1")
        .set("LOOM_SERVER_LLM_FIRST_BYTE_TIMEOUT_SECS", "1");
    let (app, user) = with_credentials(setup, 1).await;
    for op in Op::ALL {
        for failure in [announcement(op).step(Step::Stall), Reply::sse().head(Head::Never)] {
            app.mock.enqueue(failure);
            app.mock.clear();
            let through = stream(&user, op, op.priced_model()).await;
            assert!(through.text().contains("Hello"), "{op:?}: {}", through.text());
            assert_eq!(app.mock.wait_for_end(1).await.ended(), Some(Ended::ClientGone));
            assert_eq!(app.mock.requests().len(), 2);
        }
    }
}

#[tokio::test]
async fn once_something_of_a_reply_is_out_nobody_else_is_asked() {
    let setup = Setup::default().set("LOOM_SERVER_LLM_IDLE_TIMEOUT_SECS", "1");
    let (app, user) = with_credentials(setup, 1).await;
    for op in Op::ALL {
        for model in ["mock-midstream-error", "mock-reset", "mock-close", "mock-cut", "mock-stall"]
        {
            app.mock.clear();
            let through = stream(&user, op, model).await;
            assert!(through.text().contains("Hello"), "{op:?} {model}");
            assert!(through.data().last().unwrap().contains("error"), "{op:?} {model}");
            assert_eq!(app.mock.requests().len(), 1, "{op:?} {model}");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_itself_at_fault_is_asked_once() {
    let (app, user) = with_credentials(Setup::default(), 2).await;
    for op in Op::ALL {
        for status in [400, 404, 413, 422] {
            app.mock.clear();
            let model = format!("mock-error-{status}");
            ask(&user, op, &model).await.expect(status);
            assert_eq!(app.mock.requests().len(), 1, "{op:?} {status}");
        }
    }
    let invalid =
        json!({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}});
    app.mock.enqueue(announcement(Op::Messages).event(&invalid));
    app.mock.clear();
    let through = stream(&user, Op::Messages, SONNET).await;
    assert!(through.text().ends_with(&format!("data: {invalid}\n\n")), "{}", through.text());
    assert_eq!(app.mock.requests().len(), 1);
}

#[tokio::test]
async fn the_same_place_is_asked_again_where_there_is_no_other() {
    let app = Setup::default().set("LOOM_SERVER_LLM_RETRIES", "2").start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        app.mock.enqueue(Script::error(500));
        app.mock.enqueue(Script::error(503));
        app.mock.clear();
        ask(&user, op, op.priced_model()).await.expect(200);
        assert_eq!(app.mock.requests().len(), 3);
    }
    app.mock.clear();
    ask(&user, Op::Chat, "mock-error-529").await.expect(529);
    assert_eq!(app.mock.requests().len(), 3);
    // Who says that it is of no use is believed.
    app.mock.clear();
    app.mock.enqueue(Reply::json(503, &json!({})).header("x-should-retry", "false"));
    ask(&user, Op::Chat, GPT).await.expect(503);
    assert_eq!(app.mock.requests().len(), 1);
}

/// Whichever of its credentials was the last to be tried.
#[tokio::test]
async fn what_may_pass_is_tried_again_also_when_another_credential_is_at_its_limit() {
    let setup = Setup::default().manual_clock().set("LOOM_SERVER_LLM_RETRIES", "1");
    let (app, user) = with_credentials(setup, 1).await;
    for failures in [[429, 503], [503, 429]] {
        for status in failures {
            app.mock.enqueue(Script::error(status));
        }
        app.mock.clear();
        ask(&user, Op::Messages, SONNET).await.expect(200);
        assert_eq!(app.mock.requests().len(), 3);
        // Both are at rest no more.
        app.clock.advance(Duration::from_secs(60));
    }
}

/// A route `fast`: first the wire's own vendor, then another provider, which speaks chat.
async fn with_route(setup: Setup) -> (TestApp, User, MockLlm) {
    let other = MockLlm::start(OTHER_KEY);
    let app = setup
        .set("LOOM_SERVER_LLM_PROVIDERS", "other")
        .set("LOOM_SERVER_LLM_OTHER_BASE_URL", format!("{}/v1", other.url()))
        .set("LOOM_SERVER_LLM_OTHER_API_KEY", OTHER_KEY)
        .start()
        .await;
    let user = app.user("a@example.com").await;
    for (name, provider, model) in [("fast-messages", "anthropic", SONNET), ("fast", "openai", GPT)]
    {
        let route = json!({"targets": [
            {"provider": provider, "model": model},
            {"provider": "other", "model": "llama", "priority": 1},
        ]});
        user.put(&format!("/api/orgs/{}/llm/routes/{name}", user.org), &route).await.expect(201);
    }
    (app, user, other)
}

fn fast(op: Op) -> &'static str {
    if op == Op::Messages { "fast-messages" } else { "fast" }
}

#[tokio::test]
async fn a_route_goes_on_to_its_next_target_in_that_ones_words() {
    let (app, user, other) = with_route(Setup::default()).await;
    for op in Op::ALL {
        app.mock.clear();
        let sound = ask(&user, op, fast(op)).await.expect(200);
        assert!(sound.text.contains("Hello"), "{}", sound.text);
        assert_eq!(app.mock.wait_for_request(1).await.json()["model"], op.priced_model());
        for failure in [Script::error(500), Script::from(announcement(op).event(&error_event(op)))]
        {
            app.mock.enqueue(failure);
            other.clear();
            let through = stream(&user, op, fast(op)).await;
            assert_eq!(through.status, 200, "{}", through.text());
            assert!(through.text().contains("Hello") && !through.text().contains("lost"));
            let asked = other.wait_for_request(1).await;
            assert_eq!(asked.path, "/v1/chat/completions");
            assert_eq!(asked.json()["model"], "llama");
        }
    }
    let rows = app.llm_requests(9).await;
    for (at, row) in rows.iter().enumerate() {
        let vendor = at % 3 == 0;
        let provider = if at == 0 { "anthropic" } else { "openai" };
        assert_eq!(row["provider"], if vendor { provider } else { "other" }, "{row}");
        assert_eq!(row["outcome"], "succeeded");
        if !vendor {
            assert_eq!(
                (&row["model"], &row["operation"]),
                (&json!("llama"), &json!("chat")),
                "{row}"
            );
        }
    }
    assert!(rows.iter().all(|row| row["model"] != "fast"));
}

#[tokio::test]
async fn when_all_have_failed_the_client_hears_what_tells_it_most() {
    let (app, user, other) = with_route(Setup::default()).await;
    // The other's 429 is in the client's form, whatever wire it is of.
    for op in Op::ALL {
        app.mock.enqueue(Script::error(529));
        let wait = Reply::json(
            429,
            &json!({"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}),
        );
        other.enqueue(wait.header("retry-after-ms", "20").header("retry-after", "1"));
        let answer = ask(&user, op, fast(op)).await.expect(429);
        assert_eq!(answer.header("retry-after"), Some("1"));
        let (message, _) = op.error_of(&answer.json());
        assert_eq!(message, "slow down");
        // It rests for that long.
        loom_testkit::eventually(async || {
            let answer = ask(&user, Op::Chat, "other/llama").await;
            (answer.status == 200).then_some(())
        })
        .await;
    }
    // Of two that tell as much the last; what passes is not touched.
    app.mock.enqueue(Script::error(503));
    other.enqueue(Script::error(500));
    let answer = ask(&user, Op::Chat, "fast").await.expect(500);
    assert!(answer.text.contains("The server had an error"), "{}", answer.text);
    let failed = async || {
        app.rows("SELECT provider, model FROM llm_requests WHERE status = 500").await.pop()
    };
    let row = loom_testkit::eventually(failed).await;
    assert_eq!(row, json!({"provider": "other", "model": "llama"}));
    // A model that a route names and a provider does not have is not the client's fault.
    app.mock.enqueue(Script::error(404));
    ask(&user, Op::Chat, "fast").await.expect(200);
}

#[tokio::test]
async fn a_client_that_leaves_while_others_are_asked_ends_it_all() {
    let (app, user) = with_credentials(Setup::default(), 1).await;
    for op in Op::ALL {
        for last in [Reply::sse().head(Head::Never), announcement(op).step(Step::Stall)] {
            app.mock.clear();
            app.mock.enqueue(Script::error(500));
            app.mock.enqueue(last);
            let caller = user.caller.clone();
            let body = op.stream_body(op.priced_model()).to_string();
            let waiting = tokio::spawn(async move { begin(&caller, op.path(), body).await });
            app.mock.wait_for_request(2).await;
            waiting.abort();
            assert_eq!(app.mock.wait_for_end(2).await.ended(), Some(Ended::ClientGone), "{op:?}");
        }
    }
    for row in app.llm_requests(6).await {
        assert_eq!(row["outcome"], "cancelled", "{row}");
    }
    assert_eq!(app.mock.requests().len(), 2);
}

#[tokio::test]
async fn the_native_routes_go_on_with_the_next_credential_too() {
    let (app, user) = with_credentials(Setup::default(), 1).await;
    let body =
        |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]});
    for (provider, op) in [("anthropic", Op::Messages), ("openai", Op::Chat)] {
        for failure in
            [Script::error(500), Script::from(Reply::new(200, "text/html").bytes("<html>"))]
        {
            app.mock.enqueue(failure);
            app.mock.clear();
            let path = format!("/proxy/{provider}/complete");
            let reply = user.post(&path, &body("m")).await.expect(200).json();
            assert!(reply["message"]["content"].as_str().unwrap().starts_with("Hello"));
            assert_eq!(app.mock.requests().len(), 2);
        }
        for failure in
            [announcement(op).event(&error_event(op)), announcement(op).step(Step::Close)]
        {
            app.mock.enqueue(failure);
            app.mock.clear();
            let path = format!("/proxy/{provider}/stream");
            let text = user.post(&path, &body("m")).await.expect(200).text;
            assert!(text.contains("\"completed\"") && !text.contains("\"error\""), "{text}");
            assert_eq!(app.mock.requests().len(), 2);
        }
        // With nobody left it is a problem document: nothing has been said yet.
        for _ in 0..2 {
            app.mock.enqueue(announcement(op).event(&error_event(op)));
        }
        let answer = user.post(&format!("/proxy/{provider}/stream"), &body("m")).await;
        let expected =
            if op == Op::Messages { (503, "unavailable") } else { (502, "upstream_error") };
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), expected);
    }
}

#[tokio::test]
async fn a_reply_has_to_be_whole_within_the_time_for_a_request() {
    let app = Setup::default().set("LOOM_SERVER_LLM_TOTAL_TIMEOUT_SECS", "1").start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        let received = stream(&user, op, "mock-paced-100").await;
        assert_eq!(received.status, 200);
        let last: Value = serde_json::from_str(received.data().last().unwrap()).unwrap();
        assert!(received.text().contains("tick1"), "{}", received.text());
        if op != Op::Messages {
            assert!(last.to_string().contains("deadline_exceeded"), "{last}");
        }
        assert!(last.to_string().contains("within the time for a request"), "{last}");
        let answer = ask(&user, op, "mock-hang").await.expect(504);
        assert!(op.error_of(&answer.json()).0.contains("within 1 s"), "{}", answer.text);
        let translated =
            if op == Op::Messages { "openai/mock-paced-100" } else { "anthropic/mock-paced-100" };
        let body = op.stream_body(translated).to_string();
        let received = receive(begin(&user, op.path(), body).await).await;
        assert!(received.text().contains("within the time for a request"), "{}", received.text());
    }
    for row in app.llm_requests(9).await {
        assert_eq!(
            (&row["outcome"], &row["error_code"]),
            (&json!("failed"), &json!("deadline_exceeded"))
        );
    }
}
