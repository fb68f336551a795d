//! Providers that refuse, break off, fall silent or talk nonsense, and clients that leave: a stream
//! has one end, a whole reply is a problem document, and there is one row.

use std::time::{Duration, Instant};

use loom_testkit::{
    Setup,
    llm::{Ended, REPLY_PIECES, Reply, Step, trigger::DELTAS_BEFORE},
};
use serde_json::{Value, json};

use super::{
    Anthropic, OpenAi, Streamed, Wire, begin_stream, hi, rest, stream, with_patient_user, with_user,
};

fn before() -> String {
    REPLY_PIECES[..DELTAS_BEFORE].concat()
}

#[track_caller]
fn failed(row: &Value, status: u16, code: &str) {
    assert_eq!(row["outcome"], "failed", "{row}");
    assert_eq!(row["status"], status, "{row}");
    assert_eq!(row["error_code"], code, "{row}");
    assert_eq!(row["cost_nanousd"], Value::Null);
}

#[tokio::test]
async fn a_break_in_mid_stream_is_one_error_behind_what_came() {
    let (app, user) = with_user().await;
    for wire in Wire::ALL {
        for model in ["mock-reset", "mock-close", "mock-cut"] {
            let streamed = stream(&user, wire, &hi(model)).await;
            assert_eq!(streamed.error(), "upstream_error", "{wire:?} {model}");
            assert_eq!(streamed.text(), before(), "{wire:?} {model}");
            assert!(streamed.last().get("retry_after_secs").is_none());
        }
    }
    let rows = app.llm_requests(6).await;
    assert_eq!(rows.len(), 6);
    for row in rows {
        failed(&row, 200, "upstream_error");
    }
}

#[tokio::test]
async fn an_error_that_the_provider_tells_in_mid_stream_is_told_on() {
    let (app, user) = with_user().await;
    let streamed = stream(&user, Anthropic, &hi("mock-midstream-error")).await;
    assert_eq!(streamed.error(), "unavailable");
    assert!(streamed.last()["retry_after_secs"].as_u64().unwrap() > 0);
    assert!(streamed.last()["message"].as_str().unwrap().contains("Overloaded"));
    assert_eq!(streamed.text(), before());
    let streamed = stream(&user, OpenAi, &hi("mock-midstream-error")).await;
    assert_eq!(streamed.error(), "upstream_error");
    assert_eq!(streamed.text(), before());
    let rows = app.llm_requests(2).await;
    failed(&rows[0], 200, "overloaded_error");
    failed(&rows[1], 200, "server_error");
    // Asked for whole, it is a refusal like any other.
    let answer = user.post(&Anthropic.complete(), &hi("mock-midstream-error")).await.expect(503);
    assert_eq!(answer.code(), "unavailable");
    let answer = user.post(&OpenAi.complete(), &hi("mock-midstream-error")).await.expect(502);
    assert_eq!(answer.code(), "upstream_error");
}

#[tokio::test]
async fn silence_in_mid_reply_ends_it_after_the_idle_limit() {
    let app = Setup::default().set("LOOM_SERVER_LLM_IDLE_TIMEOUT_SECS", "1").start().await;
    let user = app.user("a@example.com").await;
    for wire in Wire::ALL {
        app.mock.clear();
        let streamed = stream(&user, wire, &hi("mock-stall")).await;
        assert_eq!(streamed.error(), "upstream_timeout");
        assert_eq!(streamed.text(), before());
        assert_eq!(app.mock.wait_for_end(1).await.ended(), Some(Ended::ClientGone));
        let answer = user.post(&wire.complete(), &hi("mock-stall")).await.expect(504);
        assert_eq!(answer.code(), "upstream_timeout");
        assert_eq!(app.mock.wait_for_end(2).await.ended(), Some(Ended::ClientGone));
    }
    for (at, row) in app.llm_requests(4).await.iter().enumerate() {
        failed(row, if at % 2 == 0 { 200 } else { 504 }, "upstream_timeout");
    }
    // 50 pieces, more than a second in all: the limit is for silence.
    let streamed = stream(&user, OpenAi, &hi("mock-paced-30")).await;
    assert_eq!(streamed.last()["type"], "completed");
}

#[tokio::test]
async fn a_provider_that_does_not_begin_to_answer_is_a_504() {
    let app = Setup::default().set("LOOM_SERVER_LLM_FIRST_BYTE_TIMEOUT_SECS", "1").start().await;
    let user = app.user("a@example.com").await;
    let mut asked = 0;
    for wire in Wire::ALL {
        for path in wire.both() {
            let answer = user.post(&path, &hi("mock-hang")).await.expect(504);
            assert_eq!(answer.code(), "upstream_timeout");
            asked += 1;
            assert_eq!(app.mock.wait_for_end(asked).await.ended(), Some(Ended::ClientGone));
        }
    }
    for row in app.llm_requests(4).await {
        failed(&row, 504, "upstream_timeout");
    }
}

#[tokio::test]
async fn a_whole_reply_that_breaks_off_is_a_502_and_no_half_of_it() {
    let (app, user) = with_user().await;
    for wire in Wire::ALL {
        for model in ["mock-reset", "mock-close", "mock-cut"] {
            let answer = user.post(&wire.complete(), &hi(model)).await.expect(502);
            assert_eq!(answer.code(), "upstream_error", "{wire:?} {model}");
            assert!(!answer.text.contains("Hello"), "{}", answer.text);
        }
    }
    for row in app.llm_requests(6).await {
        failed(&row, 502, "upstream_error");
    }
}

#[tokio::test]
async fn nonsense_is_an_error_and_not_a_reply() {
    let (app, user) = with_user().await;
    let html = || Reply::new(200, "text/html").bytes("<html>maintenance</html>");
    for wire in Wire::ALL {
        for path in wire.both() {
            for reply in [html(), Reply::json(200, &json!([])), Reply::new(204, "text/plain")] {
                app.mock.enqueue(reply);
                let answer = user.post(&path, &hi("m")).await.expect(502);
                assert_eq!(answer.code(), "upstream_error");
                assert!(!answer.text.contains("maintenance"));
            }
        }
        for events in [
            Reply::sse(),
            Reply::sse().bytes("data: {\"half\n\n"),
            Reply::sse().bytes("data: 42\n\n"),
            Reply::sse().bytes("<html>\n\n"),
            Reply::sse().bytes("data: {\"type\":\"ping\"}\n\ndata: {\"cho").step(Step::Close),
            Reply::sse().bytes("data: \u{fffd}\n\n"),
            Reply::sse().bytes(&b"data: {\"type\":\"\xff\"}\n\n"[..]),
        ] {
            app.mock.enqueue(events);
            // What may be something of a reply is an event, what is nothing at all a status.
            let answer = user.post(&wire.stream(), &hi("m")).await;
            let code = match answer.status.as_u16() {
                502 => answer.code(),
                _ => Streamed::of(answer).error().to_owned(),
            };
            assert_eq!(code, "upstream_error", "{wire:?}");
        }
    }
    let rows = app.llm_requests(26).await;
    assert_eq!(rows.len(), 26);
    for row in rows {
        assert_eq!(row["outcome"], "failed", "{row}");
        assert_eq!(row["error_code"], "upstream_error", "{row}");
    }
}

#[tokio::test]
async fn nothing_comes_behind_the_end() {
    let (app, user) = with_user().await;
    let text = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "late"}});
    let error = json!({"type": "error", "error": {"type": "api_error", "message": "late"}});
    let stop = json!({"type": "message_stop"});
    app.mock.enqueue(Reply::sse().event(&stop).event(&text).event(&error).event(&stop));
    assert_eq!(stream(&user, Anthropic, &hi("m")).await.events.len(), 1);
    app.mock.enqueue(Reply::sse().event(&text).event(&error).event(&stop).event(&text));
    assert_eq!(stream(&user, Anthropic, &hi("m")).await.error(), "upstream_error");
    let chunk = json!({"choices": [{"index": 0, "delta": {"content": "late"}}]});
    app.mock.enqueue(Reply::sse().done().event(&chunk).done());
    assert_eq!(stream(&user, OpenAi, &hi("m")).await.events.len(), 1);
    let error = json!({"error": {"message": "no", "type": "rate_limit_exceeded"}});
    app.mock.enqueue(Reply::sse().event(&chunk).event(&error).event(&chunk).done());
    let streamed = stream(&user, OpenAi, &hi("m")).await;
    assert_eq!(streamed.error(), "rate_limited");
    assert_eq!(streamed.events.len(), 2);
    assert_eq!(app.llm_requests(4).await.len(), 4);
}

#[tokio::test]
async fn each_refusal_has_its_status_and_code() {
    let (app, user) = with_patient_user().await;
    let mut expected = Vec::new();
    for wire in Wire::ALL {
        for (told, status, code) in [
            (400, 400, "invalid_request"),
            (401, 502, "upstream_error"),
            (402, 502, "upstream_error"),
            (403, 502, "upstream_error"),
            (404, 404, "model_not_found"),
            (408, 504, "upstream_timeout"),
            (409, 502, "upstream_error"),
            (413, 413, "payload_too_large"),
            (418, 502, "upstream_error"),
            (422, 400, "invalid_request"),
            (429, 429, "rate_limited"),
            (500, 502, "upstream_error"),
            (502, 502, "upstream_error"),
            (503, 503, "unavailable"),
            (504, 504, "upstream_timeout"),
            (520, 502, "upstream_error"),
            (529, 503, "unavailable"),
        ] {
            for path in wire.both() {
                app.mock.clear();
                let answer = user.post(&path, &hi(&format!("mock-error-{told}"))).await;
                let answer = answer.expect(status);
                assert_eq!(answer.code(), code, "{path} {told}");
                let wait = match told {
                    429 => Some("17"),
                    503 | 529 => Some("5"),
                    _ => None,
                };
                assert_eq!(answer.header("retry-after"), wait, "{path} {told}");
                let detail = answer.json()["detail"].as_str().unwrap().to_owned();
                assert!(detail.contains(wire.provider()), "{detail}");
                assert!(!detail.contains("API key"), "{detail}");
                // It is the client who tries again, not we.
                assert_eq!(app.mock.requests().len(), 1);
                expected.push((status, code));
                rest(&app);
            }
        }
    }
    let rows = app.llm_requests(expected.len()).await;
    assert_eq!(rows.len(), expected.len());
    for (row, (status, code)) in rows.iter().zip(expected) {
        failed(row, status, code);
    }
}

#[tokio::test]
async fn the_providers_wait_is_kept_and_an_empty_account_is_not_the_clients_fault() {
    let (app, user) = with_patient_user().await;
    for wire in Wire::ALL {
        for path in wire.both() {
            for (status, name, value, wait) in [
                (429, "retry-after", "60", "60"),
                (503, "retry-after", "9", "9"),
                (529, "retry-after-ms", "1500", "2"),
            ] {
                app.mock.enqueue(Reply::json(status, &json!({})).header(name, value));
                let answer = user.post(&path, &hi("m")).await;
                assert_eq!(answer.header("retry-after"), Some(wait), "{path} {status}");
                rest(&app);
            }
            let answer = user.post(&path, &hi("mock-insufficient-quota")).await.expect(502);
            assert_eq!(answer.code(), "upstream_error");
            assert!(answer.header("retry-after").is_none());
            rest(&app);
            app.mock.enqueue(Reply::new(302, "text/html").header("location", "/elsewhere"));
            user.post(&path, &hi("m")).await.expect(502);
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request_at_the_provider() {
    let (app, user) = with_user().await;
    for wire in Wire::ALL {
        for (path, model) in [
            (wire.complete(), "mock-hang"),
            (wire.complete(), "mock-stall"),
            (wire.stream(), "mock-hang"),
        ] {
            app.mock.clear();
            let caller = user.caller.clone();
            let waiting = tokio::spawn(async move { caller.post(&path, &hi(model)).await });
            app.mock.wait_for_request(1).await;
            // So that the beginning of a body is on its way.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let left = Instant::now();
            waiting.abort();
            gone(&app, left).await;
        }
        for model in ["mock-stall", "mock-paced-100"] {
            app.mock.clear();
            let response = begin_stream(&user, wire, &hi(model)).await;
            let left = Instant::now();
            drop(response);
            gone(&app, left).await;
        }
    }
    let rows = app.llm_requests(10).await;
    assert_eq!(rows.len(), 10);
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row["outcome"], "cancelled", "{row}");
        assert_eq!(row["error_code"], Value::Null);
        let answered = ![0, 2].contains(&(at % 5));
        assert_eq!(row["status"], if answered { json!(200) } else { Value::Null }, "{row}");
        if at % 5 > 2 {
            assert!(row["response_bytes"].as_u64().unwrap() > 0);
            let input = if at < 5 { json!(1200) } else { Value::Null };
            assert_eq!(row["input_tokens"], input);
        }
    }
}

async fn gone(app: &loom_testkit::TestApp, left: Instant) {
    let end = app.mock.wait_for_end(1).await.end.unwrap();
    assert_eq!(end.how, Ended::ClientGone);
    let elapsed = end.at.duration_since(left);
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
}

#[tokio::test]
async fn a_reply_of_which_only_the_end_was_not_taken_counts_as_given() {
    let (app, user) = with_user().await;
    // A client that leaves at the provider's error does not make it a cancellation.
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "x"}});
    let text = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}});
    app.mock.enqueue(Reply::sse().event(&text).event(&error).step(Step::Stall));
    let request = user.request(http::Method::POST, &Anthropic.stream()).json(&hi("m"));
    let mut response = request.send().await.unwrap();
    let mut seen = String::new();
    while !seen.contains("error") {
        seen.push_str(&String::from_utf8_lossy(&response.chunk().await.unwrap().unwrap()));
    }
    drop(response);
    failed(&app.llm_requests(1).await[0], 200, "overloaded_error");
}
