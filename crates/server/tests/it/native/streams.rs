//! Streams that go well: told piece by piece, whatever form the provider sends them in.

use loom_testkit::llm::{Ended, REPLY_PIECES, Reply, THINKING_PIECES, reply_text, trigger};
use serde_json::{Value, json};

use super::{Anthropic, OpenAi, Wire, begin_stream, hi, stream, weather, with, with_user};

#[tokio::test]
async fn each_piece_of_the_provider_is_an_event() {
    let (app, user) = with_user().await;
    for wire in Wire::ALL {
        let streamed = stream(&user, wire, &hi(wire.model())).await;
        let mut expected: Vec<Value> = REPLY_PIECES
            .iter()
            .map(|piece| json!({"type": "text_delta", "content": piece}))
            .collect();
        expected.push(json!({"type": "completed", "response": streamed.response()}));
        assert_eq!(streamed.events, expected);
        assert!(streamed.headers.get("x-loom-demo").is_none());
    }
    for row in app.llm_requests(2).await {
        assert_eq!(row["outcome"], "succeeded");
        assert_eq!(row["streamed"], true);
        let first = row["first_token_ms"].as_f64().unwrap();
        assert!(first > 0.0 && first <= row["latency_ms"].as_f64().unwrap(), "{row}");
    }
    for at in 1..=2 {
        assert_eq!(app.mock.wait_for_end(at).await.ended(), Some(Ended::Finished));
    }
}

#[tokio::test]
async fn thinking_and_tool_calls_have_events_of_their_own() {
    let (_app, user) = with_user().await;
    let more = json!({"thinking": {"budget_tokens": 1024}, "tools": [weather()]});
    for wire in Wire::ALL {
        let streamed = stream(&user, wire, &with(hi(wire.model()), more.clone())).await;
        let mut kinds: Vec<&str> =
            streamed.events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        kinds.dedup();
        if wire == Anthropic {
            let all = ["thinking_delta", "text_delta", "tool_call_delta", "completed"];
            assert_eq!(kinds, all);
            let told: Vec<_> = streamed.events[..3].iter().map(|event| &event["content"]).collect();
            assert_eq!(told, THINKING_PIECES);
        } else {
            assert_eq!(kinds, ["tool_call_delta", "completed"]);
        }
        let call = streamed.events.iter().find(|e| e["type"] == "tool_call_delta").unwrap();
        // A client can show the tool before there are arguments.
        assert_eq!(call["tool_name"], "weather");
        assert_eq!(call["arguments_fragment"], "");
    }
}

#[tokio::test]
async fn characters_that_are_cut_and_lines_of_megabytes_arrive_whole() {
    let (app, user) = with_user().await;
    for wire in Wire::ALL {
        let streamed = stream(&user, wire, &hi("mock-split-utf8")).await;
        assert_eq!(streamed.text(), trigger::SPLIT_PIECES.concat());
        assert_eq!(streamed.last()["type"], "completed");
        let streamed = stream(&user, wire, &hi("mock-huge-line")).await;
        let text = streamed.text();
        assert_eq!(text.len(), "before  after".len() + trigger::HUGE);
        assert!(text.starts_with("before xx") && text.ends_with("xx after"));
        assert_eq!(streamed.response()["usage"], wire.usage(0, false));
    }
    for row in app.llm_requests(4).await {
        assert_eq!(row["outcome"], "succeeded", "{row}");
    }
}

#[tokio::test]
async fn what_is_said_is_passed_on_before_the_rest_is_there() {
    let (app, user) = with_user().await;
    for wire in Wire::ALL {
        app.mock.clear();
        // The rest never comes.
        let response = begin_stream(&user, wire, &hi("mock-stall")).await;
        assert!(app.mock.requests()[0].end.is_none());
        drop(response);
        app.mock.wait_for_end(1).await;
    }
}

#[tokio::test]
async fn a_provider_that_does_not_stream_is_told_all_at_once() {
    let (app, user) = with_user().await;
    let thinking = json!({"type": "thinking", "thinking": "Hm.", "signature": "sig"});
    let call = json!({"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}});
    app.mock.enqueue(Reply::json(
        200,
        &json!({
            "type": "message", "model": "m", "stop_reason": "tool_use",
            "content": [thinking, {"type": "text", "text": "Yes."}, call],
            "usage": {"input_tokens": 3, "output_tokens": 5},
        }),
    ));
    let streamed = stream(&user, Anthropic, &hi("m")).await;
    let response = streamed.response();
    assert_eq!(response["message"]["thinking"], "Hm.");
    assert_eq!(response["message"]["content"], "Yes.");
    assert_eq!(response["usage"]["output_tokens"], 5);
    assert_eq!(streamed.events.len(), 4);
    app.mock.enqueue(Reply::json(
        200,
        &json!({
            "model": "m",
            "choices": [{"index": 0, "message": {"content": "Yes."}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 5},
        }),
    ));
    let streamed = stream(&user, OpenAi, &hi("m")).await;
    assert_eq!(streamed.response()["usage"]["input_tokens"], 3);
    assert_eq!(streamed.events.len(), 2);
    for row in app.llm_requests(2).await {
        assert_eq!(row["outcome"], "succeeded", "{row}");
        assert_eq!(row["output_tokens"], 5);
    }
}

#[tokio::test]
async fn an_end_without_done_is_an_end_when_its_reason_was_told() {
    let (app, user) = with_user().await;
    let chunk = |delta: Value, reason: Value| json!({"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]});
    app.mock.enqueue(
        Reply::sse()
            .event(&chunk(json!({"content": "Yes."}), Value::Null))
            .event(&chunk(json!({}), json!("length"))),
    );
    let streamed = stream(&user, OpenAi, &hi("m")).await;
    assert_eq!(streamed.response()["finish_reason"], "max_tokens");
    assert_eq!(streamed.response()["cost_usd"], Value::Null);
    assert_eq!(app.llm_requests(1).await[0]["outcome"], "succeeded");
}

#[tokio::test]
async fn a_provider_that_refuses_stream_options_is_asked_without_them_from_then_on() {
    let (app, user) = with_user().await;
    for _ in 0..2 {
        let streamed = stream(&user, OpenAi, &hi("mock-refuse-stream-options")).await;
        assert_eq!(streamed.text(), reply_text());
        assert_eq!(streamed.response()["usage"]["input_tokens"], Value::Null);
    }
    let asked: Vec<_> =
        app.mock.requests().iter().map(|r| r.json().get("stream_options").is_some()).collect();
    assert_eq!(asked, [true, false, false]);
    assert_eq!(app.llm_requests(2).await.len(), 2);
}

#[tokio::test]
async fn many_streams_at_once_keep_their_words_apart() {
    let (app, user) = with_user().await;
    let streams = (0..48).map(|n| {
        let caller = user.caller.clone();
        async move {
            let model = format!("model-{n}");
            let streamed = stream(&caller, Wire::ALL[n % 2], &hi(&model)).await;
            assert_eq!(streamed.text(), reply_text());
            assert_eq!(streamed.response()["model"], model);
        }
    });
    futures::future::join_all(streams).await;
    assert_eq!(app.llm_requests(48).await.len(), 48);
}
