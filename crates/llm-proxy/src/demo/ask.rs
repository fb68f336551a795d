//! What the demo is asked on any of the wires, and what it says to it.

use serde_json::{Value, json};

use super::{Refusal, example::example};
use crate::dialect::Operation;

/// So much of what was said is repeated.
const REPEATED: usize = 200;

/// A request, understood, with its answer.
pub(super) struct Ask {
    pub(super) answer: Answer,
    /// The same for the same request; ids are made of it.
    pub(super) digest: u64,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
}

pub(super) enum Answer {
    Text(String),
    Call { name: String, arguments: Value },
}

impl Ask {
    pub(super) fn read(operation: Operation, body: &Value) -> Result<Self, Refusal> {
        let mut turns = turns(operation, body)?;
        let mut size = 0;
        count(body.get("messages").or_else(|| body.get("input")), &mut size);
        for name in ["system", "instructions", "tools"] {
            count(body.get(name), &mut size);
        }
        let answer = answer(operation, body, &mut turns);
        let said = match &answer {
            Answer::Text(text) => text.chars().count(),
            Answer::Call { name, arguments } => {
                name.chars().count() + arguments.to_string().chars().count()
            }
        };
        Ok(Self {
            answer,
            digest: digest(body.to_string().as_bytes()),
            input_tokens: tokens(size),
            output_tokens: tokens(said),
        })
    }

    /// An id of this reply.
    pub(super) fn id(&self, prefix: &str) -> String {
        format!("{prefix}_demo{:016x}", self.digest)
    }
}

/// One for four characters.
pub(super) fn tokens(characters: usize) -> u64 {
    u64::try_from(characters.div_ceil(4)).unwrap_or(u64::MAX).max(1)
}

/// All characters of the texts in a value.
pub(super) fn count(value: Option<&Value>, size: &mut usize) {
    match value {
        Some(Value::String(text)) => *size += text.chars().count(),
        Some(Value::Array(list)) => list.iter().for_each(|item| count(Some(item), size)),
        Some(Value::Object(members)) => members.values().for_each(|item| count(Some(item), size)),
        Some(Value::Number(_)) => *size += 1,
        _ => {}
    }
}

/// FNV-1a: the same in every build, which std's hasher does not promise.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What was said last.
#[derive(Default)]
struct Turns {
    /// By the user.
    said: String,
    /// By a tool, when it was a tool that spoke last.
    result: Option<String>,
}

fn turns(operation: Operation, body: &Value) -> Result<Turns, Refusal> {
    let mut turns = Turns::default();
    if operation == Operation::Responses {
        return match body.get("input") {
            Some(Value::String(text)) if !text.is_empty() => {
                Ok(Turns { said: text.clone(), result: None })
            }
            Some(Value::Array(items)) if !items.is_empty() => {
                items.iter().for_each(|item| turns.item(item));
                Ok(turns)
            }
            _ => Err(Refusal::malformed("`input` must be a text or a list that is not empty")),
        };
    }
    match body.get("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => {
            for message in messages {
                if message.get("role").and_then(Value::as_str).is_none() {
                    return Err(Refusal::malformed("each message must have a `role`"));
                }
                turns.item(message);
            }
            Ok(turns)
        }
        _ => Err(Refusal::malformed("`messages` must be a list that is not empty")),
    }
}

impl Turns {
    /// A message of either chat wire, or an item of the responses wire.
    fn item(&mut self, item: &Value) {
        let member = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
        if member("type") == "function_call_output" {
            self.result = Some(text(item.get("output")));
            return;
        }
        match member("role") {
            "tool" => self.result = Some(text(item.get("content"))),
            "user" => {
                let mut results =
                    item.get("content").and_then(Value::as_array).into_iter().flatten();
                let result = results.rfind(|block| {
                    block.get("type").and_then(Value::as_str) == Some("tool_result")
                });
                self.result = result.map(|block| text(block.get("content")));
                if result.is_none() {
                    self.said = text(item.get("content"));
                }
            }
            "assistant" => self.result = None,
            _ => {}
        }
    }
}

/// The text in a content: a string, or parts that have texts.
fn text(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts: Vec<_> =
                parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect();
            texts.join(" ")
        }
        _ => String::new(),
    }
}

fn answer(operation: Operation, body: &Value, turns: &mut Turns) -> Answer {
    if let Some(result) = &turns.result {
        return Answer::Text(format!(
            "The tool answered: “{}”. {NEXT}",
            loom_core::text::cut(result, REPEATED)
        ));
    }
    if let Some(call) = call(operation, body) {
        return call;
    }
    let said = loom_core::text::cut(&turns.said, REPEATED);
    let text = format!(
        "I am {}, the demo model that is built into Loom. You said: “{said}”. {NEXT}",
        super::MODEL
    );
    Answer::Text(match wanted_schema(body) {
        Some(schema) => example(&schema).to_string(),
        None if wants_json(body) => json!({"demo": true, "text": text}).to_string(),
        None => text,
    })
}

const NEXT: &str = "To hear a real model, set LOOM_SERVER_ANTHROPIC_API_KEY or \
    LOOM_SERVER_OPENAI_API_KEY and start Loom again.";

/// A call of the tool that must be called, or of the first one.
fn call(operation: Operation, body: &Value) -> Option<Answer> {
    let choice = body.get("tool_choice");
    let choice_is = |word: &str| {
        choice.is_some_and(|choice| {
            choice.as_str() == Some(word)
                || choice.get("type").and_then(Value::as_str) == Some(word)
        })
    };
    if choice_is("none") {
        return None;
    }
    let tools = body.get("tools")?.as_array()?;
    let mut known = tools.iter().filter_map(|tool| {
        // Tools that the vendor runs itself have no schema, and nobody here runs them.
        let (owner, schema) = match operation {
            Operation::Messages | Operation::CountTokens => (tool, tool.get("input_schema")?),
            Operation::Responses if tool.get("type")?.as_str()? != "function" => return None,
            Operation::Responses => (tool, tool.get("parameters").unwrap_or(&Value::Null)),
            _ => {
                let function = tool.get("function")?;
                (function, function.get("parameters").unwrap_or(&Value::Null))
            }
        };
        Some((owner.get("name")?.as_str()?, schema))
    });
    let named = choice.and_then(|choice| {
        choice.get("name").or_else(|| choice.get("function")?.get("name"))?.as_str()
    });
    let (name, schema) = match named {
        Some(named) => known.find(|(name, _)| *name == named)?,
        None => known.next()?,
    };
    let arguments = match example(schema) {
        arguments @ Value::Object(_) => arguments,
        _ => json!({}),
    };
    Some(Answer::Call { name: name.to_owned(), arguments })
}

/// Where each wire has the schema of a structured answer.
fn wanted_schema(body: &Value) -> Option<Value> {
    [
        "/response_format/json_schema/schema",
        "/text/format/schema",
        "/output_config/format/schema",
        "/output_format/schema",
    ]
    .iter()
    .find_map(|at| body.pointer(at).cloned())
}

fn wants_json(body: &Value) -> bool {
    ["/response_format/type", "/text/format/type"]
        .iter()
        .any(|at| body.pointer(at).and_then(Value::as_str) == Some("json_object"))
}

/// A text as the words in which it is streamed, each with the space before it.
pub(super) fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (_, behind) = rest.split_at(rest.chars().next().map_or(0, char::len_utf8));
        let first = rest.len() - behind.len();
        let end = behind.find(' ').map_or(rest.len(), |at| first + at);
        let (word, tail) = rest.split_at(end);
        words.push(word);
        rest = tail;
    }
    words
}
