//! Rare things: replies that are none, names that cannot be stored, lines without end, a server that
//! goes down, a key that comes later.

use loom_common_secret::SecretString;
use loom_testkit::{Setup, app::UPSTREAM_KEY, eventually, llm::Reply};
use serde_json::{Value, json};

use super::{Anthropic, OpenAi, Streamed, Wire, begin_stream, complete, hi, stream, with_user};

#[tokio::test]
async fn a_200_without_a_reply_in_it_is_not_passed_off_as_an_empty_one() {
    let (app, user) = with_user().await;
    let error = json!({"type": "error", "error": {"type": "api_error", "message": "no"}});
    let empty = json!({"index": 0, "message": {"content": ""}, "finish_reason": null});
    let mut failed = json!({"error": {"message": "no", "code": 502}});
    failed["choices"] = json!([empty]);
    for (wire, body) in [
        (Anthropic, json!({})),
        (Anthropic, error.clone()),
        (Anthropic, json!({"content": null})),
        (OpenAi, json!({})),
        (OpenAi, error),
        (OpenAi, failed),
    ] {
        for path in wire.both() {
            app.mock.enqueue(Reply::json(200, &body));
            let answer = user.post(&path, &hi("m")).await.expect(502);
            assert_eq!(answer.code(), "upstream_error", "{path} {body}");
        }
    }
    for row in app.llm_requests(12).await {
        assert_eq!(row["outcome"], "failed", "{row}");
        assert_eq!(row["status"], 502);
    }
}

#[tokio::test]
async fn names_that_cannot_be_stored_cost_no_row() {
    let (app, user) = with_user().await;
    let long = "x".repeat(100_000);
    for model in ["a\0b", &long] {
        app.mock.enqueue(Reply::json(200, &json!({
            "type": "message", "model": model, "stop_reason": "end_turn", "content": [{"type": "text", "text": "a\0b"}],
            "usage": {"input_tokens": 1, "output_tokens": 1},
        })));
        let reply = complete(&user, Anthropic, &hi("m")).await;
        assert_eq!(reply["message"]["content"], "a\0b");
        let start = json!({"type": "message_start", "message": {"model": model}});
        let error = json!({"type": "error", "error": {"type": model, "message": "a\0b"}});
        app.mock.enqueue(Reply::sse().event(&start).event(&error));
        let answer = user.post(&Anthropic.stream(), &hi("m")).await.expect(502);
        assert_eq!(answer.code(), "upstream_error");
        app.mock.enqueue(Reply::json(
            200,
            &json!({
                "model": model, "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
            }),
        ));
        complete(&user, OpenAi, &hi("m")).await;
    }
    let rows = app.llm_requests(6).await;
    assert_eq!(rows.len(), 6);
    for row in rows {
        for name in ["response_model", "error_code"] {
            assert!(row[name].as_str().unwrap_or_default().len() <= 200, "{name}");
        }
    }
}

#[tokio::test]
async fn a_line_without_end_is_an_error_before_it_fills_the_memory() {
    let (app, user) = with_user().await;
    for wire in Wire::ALL {
        let mut reply = Reply::sse().bytes("data: {\"type\":\"ping\"}\n\ndata: {\"x\":\"");
        for _ in 0..20 {
            reply = reply.bytes("x".repeat(1 << 20));
        }
        app.mock.enqueue(reply.bytes("\"}\n\n").step(loom_testkit::llm::Step::Stall));
        let streamed = stream(&user, wire, &hi("m")).await;
        assert_eq!(streamed.error(), "upstream_error");
        assert_eq!(streamed.events.len(), 1);
    }
    for row in app.llm_requests(2).await {
        assert_eq!(row["outcome"], "failed");
        assert_eq!(row["error_code"], "upstream_error");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_down_ends_its_streams_with_an_error() {
    for wire in Wire::ALL {
        let app = Setup::default().set("LOOM_SERVER_SHUTDOWN_GRACE_SECS", "1").start().await;
        let user = app.user("a@example.com").await;
        let response = begin_stream(&user, wire, &hi("mock-stall")).await;
        let caller = user.caller.clone();
        let whole =
            tokio::spawn(async move { caller.post(&wire.complete(), &hi("mock-hang")).await });
        app.mock.wait_for_request(2).await;
        let rest = tokio::spawn(async move { response.text().await.unwrap() });
        let database = app.stop().await;
        let rest = rest.await.unwrap();
        let last = rest.trim_end().lines().last().unwrap().strip_prefix("data: ").unwrap();
        let last: Value = serde_json::from_str(last).unwrap();
        assert_eq!((&last["type"], &last["error"]), (&json!("error"), &json!("unavailable")));
        assert!(last["retry_after_secs"].as_u64().unwrap() > 0);
        let answer = whole.await.unwrap().expect(503);
        assert_eq!(answer.code(), "unavailable");
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT outcome, error_code FROM llm_requests")
                .fetch_all(database.pool())
                .await
                .unwrap();
        assert_eq!(rows, vec![("failed".to_owned(), "unavailable".to_owned()); 2]);
    }
}

#[tokio::test]
async fn a_key_that_is_stored_later_is_soon_used() {
    let app = Setup::default()
        .set("LOOM_SERVER_OPENAI_API_KEY", "")
        .set("LOOM_SERVER_MASTER_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
        .start()
        .await;
    let user = app.user("a@example.com").await;
    user.post(&OpenAi.stream(), &hi("m")).await.expect(503);
    let secret = SecretString::from(UPSTREAM_KEY);
    app.running
        .features
        .llm
        .add_credential("openai", &loom_llm_proxy::NewCredential::key("later", secret))
        .await
        .unwrap();
    let answer = eventually(async || {
        let answer = user.post(&OpenAi.stream(), &hi("m")).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(Streamed::of(answer).last()["type"], "completed");
    let stored = app.rows("SELECT id FROM llm_credentials").await;
    let rows = app.llm_requests(1).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["credential_id"], stored[0]["id"]);
}
