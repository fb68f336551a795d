//! For each provider: what it says of tokens, and what is made of it, to the billionth of a dollar.

use loom_testkit::{
    TestApp,
    llm::{Reply, Step},
};
use serde_json::{Value, json};

use super::{Op, begin_stream, post};

/// Input, output, cache read, cache write for 5 minutes and for an hour, reasoning, searches.
type Tokens = [Option<u64>; 7];

struct Case {
    what: &'static str,
    op: Op,
    model: &'static str,
    streamed: bool,
    reply: Reply,
    tokens: Tokens,
    tier: Option<&'static str>,
    cost: Option<i64>,
    outcome: &'static str,
    complete: bool,
}

impl Case {
    fn new(what: &'static str, op: Op, model: &'static str, reply: Reply, tokens: Tokens) -> Self {
        let streamed = reply.headers[0].1.starts_with("text/event-stream");
        let (tier, cost, outcome, complete) = (None, None, "succeeded", true);
        Self { what, op, model, streamed, reply, tokens, tier, cost, outcome, complete }
    }

    fn tier(self, tier: &'static str) -> Self {
        Self { tier: Some(tier), ..self }
    }

    fn costs(self, nanousd: i64) -> Self {
        Self { cost: Some(nanousd), ..self }
    }

    fn broke_off(self, outcome: &'static str) -> Self {
        Self { outcome, complete: false, ..self }
    }
}

fn start(usage: &Value) -> Reply {
    Reply::sse().event(&json!({"type": "message_start", "message": {"id": "m", "type": "message",
        "role": "assistant", "model": "claude-opus-5", "content": [], "usage": usage}}))
}

fn delta(reply: Reply, text: &str) -> Reply {
    reply.event(&json!({"type": "content_block_delta", "index": 0,
        "delta": {"type": "text_delta", "text": text}}))
}

fn end(reply: Reply, usage: &Value) -> Reply {
    reply
        .event(
            &json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}),
        )
        .event(&json!({"type": "message_stop"}))
}

fn message(usage: &Value) -> Reply {
    Reply::json(
        200,
        &json!({"id": "m", "type": "message", "role": "assistant",
        "model": "claude-opus-5", "content": [], "stop_reason": "end_turn", "usage": usage}),
    )
}

fn chunk(reply: Reply, content: &str) -> Reply {
    reply.event(&json!({"id": "c", "object": "chat.completion.chunk", "model": "gpt-5.4",
        "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": null}]}))
}

fn chat_end(reply: Reply, tier: &str, usage: &Value) -> Reply {
    reply
        .event(&json!({"id": "c", "model": "gpt-5.4", "service_tier": tier,
            "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
        .event(&json!({"id": "c", "model": "gpt-5.4", "service_tier": tier, "choices": [], "usage": usage}))
        .done()
}

fn response(tier: &str, output: &Value, usage: &Value) -> Value {
    json!({"id": "r", "object": "response", "status": "completed", "model": "gpt-5.6",
        "service_tier": tier, "output": output, "usage": usage})
}

/// Prices: claude-opus-5 5/25, cache 0.5, 6.25, 10, fast × 2, us × 1.1, searches 10 a thousand; gpt-5.4
/// 2.5/15, cache 0.25, above 272,000 5/22.5/0.5, flex 1.25/7.5, priority 5/30; gpt-5.6 4/20, cache 0.4
/// and 5, searches 10 a thousand.
fn cases() -> Vec<Case> {
    let opus = "claude-opus-5";
    let messages = |what, reply, tokens| Case::new(what, Op::Messages, opus, reply, tokens);
    let chat = |what, reply, tokens| Case::new(what, Op::Chat, "gpt-5.4", reply, tokens);
    let responses = |what, reply, tokens| Case::new(what, Op::Responses, "gpt-5.6", reply, tokens);
    vec![
        messages(
            "the split of cache writes is in message_start alone, and the total grows beyond it",
            end(
                delta(start(&json!({"input_tokens": 100, "cache_creation_input_tokens": 500,
                    "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 200},
                    "cache_read_input_tokens": 1000, "output_tokens": 1, "service_tier": "standard"})), "a"),
                &json!({"input_tokens": 150, "cache_creation_input_tokens": 800,
                    "cache_read_input_tokens": 2000, "output_tokens": 40,
                    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1}}),
            ),
            [Some(150), Some(40), Some(2000), Some(600), Some(200), None, Some(2)],
        )
        .tier("standard")
        // 150 × 5 + 40 × 25 + 2000 × 0.5 + 600 × 6.25 + 200 × 10, and 2 of 0.01
        .costs(750_000 + 1_000_000 + 1_000_000 + 3_750_000 + 2_000_000 + 20_000_000),
        messages(
            "cache numbers come in message_delta alone, and the input is told anew",
            end(
                delta(start(&json!({"input_tokens": 900, "output_tokens": 1})), "a"),
                &json!({"input_tokens": 100, "cache_read_input_tokens": 800, "output_tokens": 10}),
            ),
            [Some(100), Some(10), Some(800), None, None, None, None],
        )
        .costs(500_000 + 250_000 + 400_000),
        messages(
            "fast, in the United States, with thinking",
            message(&json!({"input_tokens": 1000, "output_tokens": 100, "speed": "fast",
                "inference_geo": "us", "output_tokens_details": {"thinking_tokens": 60}})),
            [Some(1000), Some(100), None, None, None, Some(60), None],
        )
        // (1000 × 5 + 100 × 25) × 2 × 1.1
        .costs(16_500_000),
        messages(
            "in a batch",
            message(&json!({"input_tokens": 1000, "output_tokens": 100, "service_tier": "batch"})),
            [Some(1000), Some(100), None, None, None, None, None],
        )
        .tier("batch")
        .costs(3_750_000),
        messages(
            "the provider says that it has failed in the middle",
            delta(delta(start(&json!({"input_tokens": 1000, "output_tokens": 1})), "a"), "b").event(
                &json!({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}),
            ),
            [Some(1000), Some(2), None, None, None, None, None],
        )
        .costs(5_050_000)
        .broke_off("failed"),
        messages(
            "the provider breaks off, after three pieces and a count of one",
            delta(delta(delta(start(&json!({"input_tokens": 1000, "output_tokens": 1})), "a"), "b"), "c")
                .step(Step::End),
            [Some(1000), Some(3), None, None, None, None, None],
        )
        .costs(5_075_000)
        .broke_off("failed"),
        chat(
            "what is cached is part of the prompt",
            chat_end(
                chunk(Reply::sse(), "a"),
                "default",
                &json!({"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050,
                    "prompt_tokens_details": {"cached_tokens": 600},
                    "completion_tokens_details": {"reasoning_tokens": 20}}),
            ),
            [Some(400), Some(50), Some(600), None, None, Some(20), None],
        )
        .tier("standard")
        // 400 × 2.5 + 50 × 15 + 600 × 0.25
        .costs(1_900_000),
        chat(
            "a long prompt, cached for the most part, is dear in all its tokens",
            chat_end(
                chunk(Reply::sse(), "a"),
                "default",
                &json!({"prompt_tokens": 300_000, "completion_tokens": 10,
                    "prompt_tokens_details": {"cached_tokens": 200_000}}),
            ),
            [Some(100_000), Some(10), Some(200_000), None, None, None, None],
        )
        .tier("standard")
        // 100,000 × 5 + 10 × 22.5 + 200,000 × 0.5
        .costs(600_225_000),
        chat(
            "flex",
            chat_end(
                chunk(Reply::sse(), "a"),
                "flex",
                &json!({"prompt_tokens": 1000, "completion_tokens": 10}),
            ),
            [Some(1000), Some(10), None, None, None, None, None],
        )
        .tier("flex")
        .costs(1_325_000),
        chat(
            "at once, by priority",
            Reply::json(200, &json!({"id": "c", "model": "gpt-5.4", "service_tier": "priority",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 10}})),
            [Some(1000), Some(10), None, None, None, None, None],
        )
        .tier("priority")
        .costs(5_300_000),
        chat(
            "a tier of tomorrow has tokens and no cost",
            Reply::json(200, &json!({"id": "c", "model": "gpt-5.4", "service_tier": "warp",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 10}})),
            [Some(1000), Some(10), None, None, None, None, None],
        )
        .tier("other"),
        chat(
            "the provider breaks off before its chunk of usage: two pieces, and no input is known",
            chunk(chunk(Reply::sse(), "a"), "b").step(Step::End),
            [None, Some(2), None, None, None, None, None],
        )
        // 2 × 15
        .costs(30_000)
        .broke_off("failed"),
        responses(
            "searches of the web are counted by their items",
            Reply::json(200, &response(
                "default",
                &json!([{"type": "web_search_call", "id": "w1", "status": "completed"},
                       {"type": "web_search_call", "id": "w2", "status": "completed"},
                       {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}]),
                &json!({"input_tokens": 1000, "input_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 200},
                    "output_tokens": 100, "output_tokens_details": {"reasoning_tokens": 60}, "total_tokens": 1100}),
            )),
            [Some(500), Some(100), Some(300), Some(200), None, Some(60), Some(2)],
        )
        .tier("standard")
        // 500 × 4 + 100 × 20 + 300 × 0.4 + 200 × 5, and 2 of 0.01
        .costs(2_000_000 + 2_000_000 + 120_000 + 1_000_000 + 20_000_000),
        responses(
            "a stream that is incomplete is counted all the same",
            Reply::sse()
                .event(&json!({"type": "response.created", "response": {"id": "r", "model": "gpt-5.6", "status": "in_progress", "usage": null}}))
                .event(&json!({"type": "response.output_text.delta", "delta": "a"}))
                .event(&json!({"type": "response.incomplete", "response": {"id": "r", "model": "gpt-5.6",
                    "status": "incomplete", "service_tier": "default",
                    "usage": {"input_tokens": 1000, "output_tokens": 100}}})),
            [Some(1000), Some(100), None, None, None, None, None],
        )
        .tier("standard")
        .costs(6_000_000),
        responses(
            "one that has failed may say what it used",
            Reply::sse()
                .event(&json!({"type": "response.output_text.delta", "delta": "a"}))
                .event(&json!({"type": "response.failed", "response": {"id": "r", "model": "gpt-5.6",
                    "status": "failed", "error": {"code": "server_error", "message": "no"},
                    "usage": {"input_tokens": 1000, "output_tokens": 100}}})),
            [Some(1000), Some(100), None, None, None, None, None],
        )
        .costs(6_000_000)
        .broke_off("failed")
        .counted(),
    ]
}

impl Case {
    fn counted(self) -> Self {
        Self { complete: true, ..self }
    }
}

#[tokio::test]
async fn every_reply_is_accounted_by_its_providers_rules() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for (n, case) in cases().into_iter().enumerate() {
        let Case { what, op, model, streamed, reply, tokens, tier, cost, outcome, complete } = case;
        app.mock.enqueue(reply);
        let body = if streamed { op.stream_body(model) } else { op.body(model) };
        post(&user, op.path(), body.to_string()).await;
        let row = &app.llm_requests(n + 1).await[n];
        let told = [
            "input_tokens",
            "output_tokens",
            "cache_read_tokens",
            "cache_write_5m_tokens",
            "cache_write_1h_tokens",
            "reasoning_tokens",
            "web_searches",
        ]
        .map(|name| row[name].as_u64());
        assert_eq!(told, tokens, "{what}: {row}");
        assert_eq!(row["service_tier"].as_str(), tier, "{what}");
        assert_eq!(row["cost_nanousd"].as_i64(), cost, "{what}: {row}");
        assert_eq!(row["outcome"], outcome, "{what}");
        assert_eq!(row["usage_complete"], complete, "{what}");
    }
}

#[tokio::test]
async fn a_reply_on_another_wire_costs_what_its_provider_counts() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    // A Claude model through OpenAI's wire, and a GPT model through Anthropic's.
    let usage = json!({"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 1000,
        "server_tool_use": {"web_search_requests": 1}});
    app.mock.enqueue(message(&usage));
    let whole =
        user.post("/v1/chat/completions", &Op::Chat.body("claude-opus-5")).await.expect(200);
    // 100 × 5 + 10 × 25 + 1000 × 0.5, and one of 0.01
    assert_eq!(whole.header("x-loom-cost-usd"), Some("0.01125"));
    let usage = json!({"input_tokens": 1000, "output_tokens": 100});
    app.mock.enqueue(Reply::json(
        200,
        &response(
            "flex",
            &json!([{"type": "message",
        "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}]),
            &usage,
        ),
    ));
    let whole = user.post("/v1/messages", &Op::Messages.body("gpt-5.6")).await.expect(200);
    assert_eq!(whole.header("x-loom-cost-usd"), Some("0.003"));
    let rows = app.llm_requests(2).await;
    assert_eq!(rows[0]["cost_nanousd"], 11_250_000);
    assert_eq!(rows[1]["cost_nanousd"], 3_000_000);
}

#[tokio::test]
async fn a_request_that_is_refused_uses_nothing_and_one_that_is_left_is_not_complete() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    super::ask(&user, Op::Chat, "mock-error-400").await.expect(400);
    let row = &app.llm_requests(1).await[0];
    assert_eq!((&row["usage_complete"], &row["cost_nanousd"]), (&json!(true), &Value::Null));
    drop(begin_stream(&user, Op::Chat, "mock-stall").await);
    let row = &app.llm_requests(2).await[1];
    assert_eq!(row["outcome"], "cancelled");
    assert_eq!(row["usage_complete"], false);
}
