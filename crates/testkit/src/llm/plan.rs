//! What the mock says, before it is put on one of the wires.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::route::{Ask, Route, Wire};

/// The deltas of the usual answer in text.
pub const REPLY_PIECES: [&str; 8] =
    ["Hello", " from", " the", " mock", ", grüß", " dich", " 👋", " – done."];

/// The deltas of a thinking block, and of a reasoning summary.
pub const THINKING_PIECES: [&str; 3] = ["Let me", " think", " about it."];

/// The signature of a thinking block, to be sent back as it is.
pub const THINKING_SIGNATURE: &str = "EqQBCgIYAhIkbW9jay1zaWduYXR1cmUvd2l0aCtiYXNlNjQ9PQ==";

/// The usual answer in one piece.
pub fn reply_text() -> String {
    REPLY_PIECES.concat()
}

pub(super) struct Plan {
    pub(super) thinking: bool,
    pub(super) calls: Vec<Call>,
    pub(super) pieces: Vec<String>,
}

pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: Value,
}

/// An answer on the wire: what comes before the deltas, the deltas, and what ends it.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) lead: Vec<Bytes>,
    pub(super) deltas: Vec<Bytes>,
    pub(super) tail: Vec<Bytes>,
}

impl Plan {
    pub(super) fn usual(ask: &Ask) -> Self {
        let mut plan = Self::text(ask, REPLY_PIECES.map(str::to_owned).to_vec());
        plan.calls = calls(ask);
        plan
    }

    /// Text, even if there are tools.
    pub(super) fn text(ask: &Ask, pieces: Vec<String>) -> Self {
        Self { thinking: thinks(ask), calls: Vec::new(), pieces }
    }

    pub(super) fn whole_text(&self) -> String {
        self.pieces.concat()
    }
}

impl Call {
    /// The arguments as the fragments in which they are streamed.
    pub(super) fn fragments(&self) -> Vec<String> {
        let chars: Vec<char> = self.arguments.to_string().chars().collect();
        chars.chunks(chars.len().div_ceil(4).max(1)).map(|part| part.iter().collect()).collect()
    }
}

fn thinks(ask: &Ask) -> bool {
    let body = &ask.body;
    match ask.route {
        Route::Messages => {
            body["thinking"]["type"] == "enabled" || body["thinking"]["type"] == "adaptive"
        }
        Route::Responses => body["reasoning"].is_object(),
        Route::Generate => body["generationConfig"]["thinkingConfig"]["includeThoughts"] == true,
        _ => body["reasoning_effort"].as_str().is_some_and(|effort| effort != "none"),
    }
}

/// One call of the first tool, or two calls when the prompt says "parallel".
fn calls(ask: &Ask) -> Vec<Call> {
    let messages = match ask.route {
        Route::Responses => "input",
        Route::Generate => "contents",
        _ => "messages",
    };
    let messages = &ask.body[messages];
    let tools = match ask.route {
        Route::Generate => &ask.body["tools"][0]["functionDeclarations"],
        _ => &ask.body["tools"],
    };
    let tools: Vec<_> =
        tools.as_array().into_iter().flatten().filter_map(|t| tool(ask, t)).collect();
    let last = messages.as_array().and_then(|list| list.last()).unwrap_or(&Value::Null);
    let choice = &ask.body["tool_choice"];
    let none = choice == "none" || choice["type"] == "none";
    let (Some(first), false, false) = (tools.first(), none, is_tool_result(last)) else {
        return Vec::new();
    };
    let parallel = messages.to_string().contains("parallel");
    let second = tools.get(1).unwrap_or(first);
    let chosen = if parallel { vec![first, second] } else { vec![first] };
    let call = |(at, (name, schema)): (usize, &(String, Value))| Call {
        name: name.clone(),
        arguments: arguments(schema, at),
    };
    chosen.into_iter().enumerate().map(call).collect()
}

/// Name and schema of a tool that the client runs.
fn tool(ask: &Ask, tool: &Value) -> Option<(String, Value)> {
    let (owner, schema) = match (ask.wire, &ask.route) {
        (Wire::Anthropic, _) => (tool, "input_schema"),
        (_, Route::Responses) => (tool, "parameters"),
        (Wire::Gemini, _) => (tool, "parametersJsonSchema"),
        _ => (&tool["function"], "parameters"),
    };
    let schema = owner.get(schema)?.clone();
    Some((owner["name"].as_str()?.to_owned(), schema))
}

fn is_tool_result(message: &Value) -> bool {
    message["role"] == "tool"
        || message["type"] == "function_call_output"
        || message["content"]
            .as_array()
            .is_some_and(|blocks| blocks.iter().any(|block| block["type"] == "tool_result"))
        || message["parts"]
            .as_array()
            .is_some_and(|parts| parts.iter().any(|part| part["functionResponse"].is_object()))
}

/// A value of the right type for each property; the `at`th call has a number or city of its own.
fn arguments(schema: &Value, at: usize) -> Value {
    let mut arguments = Map::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let value = match property["type"].as_str() {
            _ if property["enum"][0] != Value::Null => property["enum"][0].clone(),
            Some("integer" | "number") => json!(at + 1),
            Some("boolean") => json!(true),
            Some("array") => json!([]),
            Some("object") => json!({}),
            _ => json!(if at == 0 { "Zürich" } else { "東京" }),
        };
        arguments.insert(name.clone(), value);
    }
    Value::Object(arguments)
}
