//! An agent's day: a conversation with tools, kept as a thread, its cost by thread.

use loom_core::{Clock, id::ThreadId, id::new_uuid};
use loom_testkit::{TestApp, llm::reply_text};
use serde_json::{Value, json};

use super::SONNET;

fn without_server_fields(messages: &Value) -> Vec<Value> {
    let mut messages = messages.as_array().unwrap().clone();
    for message in &mut messages {
        let fields = message.as_object_mut().unwrap();
        fields.remove("created_at");
        fields.remove("seq");
    }
    messages
}

#[tokio::test]
async fn three_turns_with_tools_are_stored_as_they_were_and_cost_what_they_cost() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let thread = ThreadId(new_uuid(Clock::system().now()));
    let path = format!("/api/threads/{thread}");
    let caller = user.with("x-loom-thread-id", &thread.to_string());
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tools = json!([{"name": "weather", "description": "The weather", "input_schema": schema}]);

    let mut wire: Vec<Value> = Vec::new();
    let mut stored: Vec<Value> = Vec::new();
    let mut say = |wire: &mut Vec<Value>, role: &str, content: Value, usage: Option<Value>| {
        wire.push(json!({"role": role, "content": content}));
        let mut message =
            json!({"id": format!("m{}", wire.len()), "role": role, "content": content});
        if let Some(usage) = usage {
            message["usage"] = usage;
        }
        stored.push(message.clone());
        message
    };
    let mut version = None;
    for turn in 1..=3 {
        let mut new = vec![say(
            &mut wire,
            "user",
            json!(format!("Turn {turn}: and in Zürich? 👋 \u{1}")),
            None,
        )];
        loop {
            let body =
                json!({"model": SONNET, "max_tokens": 1024, "tools": tools, "messages": wire});
            let reply = caller.post("/v1/messages", &body).await.expect(200).json();
            let content = reply["content"].clone();
            new.push(say(&mut wire, "assistant", content.clone(), Some(reply["usage"].clone())));
            if reply["stop_reason"] != "tool_use" {
                assert_eq!(content[0]["text"], reply_text());
                break;
            }
            let call = &content[1];
            assert_eq!(call["input"], json!({"city": "Zürich"}));
            let result = json!([{"type": "tool_result", "tool_use_id": call["id"], "content": "12 °C, 1.0 mm"}]);
            new.push(say(&mut wire, "user", result, None));
        }
        let answer = if turn == 1 {
            let document = json!({"title": "Weather", "model": SONNET, "provider": "anthropic", "messages": new});
            user.put(&path, &document).await.expect(201)
        } else {
            user.post(&format!("{path}/messages"), &json!({"messages": new})).await.expect(200)
        };
        let now = answer.json()["version"].as_i64().unwrap();
        assert!(version.is_none_or(|before| now == before + 1));
        version = Some(now);
        // The answer was lost, as it were: the same again adds nothing.
        if turn > 1 {
            let again = user.post(&format!("{path}/messages"), &json!({"messages": new})).await;
            assert_eq!(again.expect(200).json()["version"], now);
        }
    }
    let document = user.get(&path).await.expect(200).json();
    assert_eq!(without_server_fields(&document["messages"]), stored);
    assert_eq!(stored.len(), 3 * 4);
    assert_eq!(document["version"], 3);

    // Each turn called a tool and then answered: 60 and 40 tokens of output.
    let rows = app.llm_requests(6).await;
    assert_eq!(rows.len(), 6);
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row["thread_id"], json!(thread.0));
        assert_eq!(row["outcome"], "succeeded");
        assert_eq!(row["output_tokens"], if at % 2 == 0 { 60 } else { 40 });
    }
    let query = format!(
        "SELECT sum(cost_nanousd)::bigint AS cost, sum(output_tokens)::bigint AS output FROM llm_requests
          WHERE org_id = '{}' AND thread_id = '{}'",
        user.org.0, thread.0
    );
    // (7125 + 60 × 15) + (7125 + 40 × 15) millionths of a dollar, three times
    assert_eq!(app.rows(&query).await, [json!({"cost": 47_250_000, "output": 300})]);
}
