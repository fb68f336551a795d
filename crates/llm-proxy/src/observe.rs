//! Reading usage on the side while a reply passes, without touching its bytes.

use std::time::Instant;

use bytes::Bytes;
use memchr::memmem;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    dialect::Operation,
    scan::DataLines,
    usage::{AnthropicUsage, GeminiUsage, OpenAiUsage, Usage},
};

/// A JSON reply longer than this passes on, but is not read for usage.
const MAX_JSON: usize = 64 << 20;

/// What was learned from a reply.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) usage: Usage,
    pub(crate) model: Option<String>,
    /// When the first piece of content came, in a stream.
    pub(crate) first_content: Option<Instant>,
    /// Something of the reply itself has come, and not only its announcement.
    pub(crate) begun: bool,
    /// When the last one came, how many there were, and where the time between two is measured.
    last_content: Option<Instant>,
    pub(crate) pieces: u64,
    pub(crate) gaps: Option<metrics::Histogram>,
    /// The provider's last count is in `usage`.
    pub(crate) counted: bool,
    /// Why the reply ended, in the provider's word.
    pub(crate) finish: Option<String>,
    /// The reply said itself that it was complete.
    pub(crate) complete: bool,
    /// Nothing comes any more: the wire's last word was said.
    pub(crate) last_word: bool,
    /// The code of an error in the middle of a stream.
    pub(crate) error: Option<String>,
}

impl Seen {
    fn piece(&mut self) {
        self.begun = true;
        let now = Instant::now();
        self.first_content.get_or_insert(now);
        if let (Some(gaps), Some(last)) = (&self.gaps, self.last_content) {
            gaps.record(now - last);
        }
        self.last_content = Some(now);
        self.pieces += 1;
    }
}

/// Looks at the pieces of one reply.
pub(crate) struct Observer {
    operation: Operation,
    form: Form,
    pub(crate) seen: Seen,
}

enum Form {
    Stream(DataLines),
    Json { pieces: Vec<Bytes>, len: usize },
}

impl Observer {
    pub(crate) fn stream(operation: Operation) -> Self {
        Self { operation, form: Form::Stream(DataLines::default()), seen: Seen::default() }
    }

    pub(crate) fn json(operation: Operation) -> Self {
        Self { operation, form: Form::Json { pieces: Vec::new(), len: 0 }, seen: Seen::default() }
    }

    pub(crate) fn streams(&self) -> bool {
        matches!(self.form, Form::Stream(_))
    }

    pub(crate) fn feed(&mut self, chunk: &Bytes) {
        match &mut self.form {
            Form::Stream(lines) => {
                let (operation, seen) = (self.operation, &mut self.seen);
                lines.feed(chunk, |data| event(operation, seen, data));
            }
            Form::Json { pieces, len } => {
                *len += chunk.len();
                if *len <= MAX_JSON {
                    pieces.push(chunk.clone());
                } else {
                    pieces.clear();
                }
            }
        }
    }

    /// At the end of the body.
    pub(crate) fn finish(&mut self) {
        if let Form::Json { pieces, .. } = &mut self.form {
            let whole = match pieces.as_slice() {
                [one] => one.clone(),
                many => many.concat().into(),
            };
            pieces.clear();
            self.seen.complete = true;
            match self.operation {
                Operation::Messages => anthropic_reply(&mut self.seen, &whole),
                Operation::CountTokens | Operation::CountInput | Operation::CountContents => {}
                Operation::GenerateContent => gemini_event(&mut self.seen, &whole),
                Operation::Chat | Operation::Responses | Operation::Embeddings => {
                    openai_reply(&mut self.seen, &whole);
                }
            }
        }
    }
}

fn has(data: &[u8], needle: &str) -> bool {
    memmem::find(data, needle.as_bytes()).is_some()
}

/// The value of `type` where it is the first member, as the vendors write it. Only there does a search
/// not find what a model or a client wrote.
fn leading_kind(data: &[u8]) -> Option<&[u8]> {
    let rest = data.strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"type\"")?;
    let rest = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let kind = rest.strip_prefix(b"\"")?;
    kind.get(..memchr::memchr(b'"', kind)?)
}

/// Events that come before anything of the reply does.
const ANTHROPIC_ANNOUNCES: [&str; 4] = ["message_start", "ping", "content_block_start", "error"];
const RESPONSES_ANNOUNCES: [&str; 9] = [
    "response.created",
    "response.queued",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.reasoning_summary_part.added",
    "response.failed",
    "keepalive",
    "error",
];

fn is_announcement(data: &[u8], kinds: &[&str]) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'a, str>,
    }
    match leading_kind(data) {
        Some(kind) => kinds.iter().any(|known| known.as_bytes() == kind),
        // What cannot be read is nothing of a reply.
        None => serde_json::from_slice::<Kind<'_>>(data)
            .map_or(true, |event| kinds.contains(&&*event.kind)),
    }
}

fn event(operation: Operation, seen: &mut Seen, data: &[u8]) {
    match operation {
        Operation::Messages | Operation::CountTokens => anthropic_event(seen, data),
        Operation::Chat | Operation::Embeddings => chat_event(seen, data),
        Operation::Responses | Operation::CountInput => responses_event(seen, data),
        Operation::GenerateContent | Operation::CountContents => gemini_event(seen, data),
    }
}

#[derive(Deserialize)]
struct AnthropicEvent {
    #[serde(rename = "type")]
    kind: String,
    message: Option<AnthropicReply>,
    usage: Option<AnthropicUsage>,
    error: Option<ErrorObject>,
    delta: Option<AnthropicEnd>,
}

#[derive(Deserialize)]
struct AnthropicEnd {
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct AnthropicReply {
    model: Option<String>,
    usage: Option<AnthropicUsage>,
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct ErrorObject {
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<serde_json::Value>,
}

impl ErrorObject {
    fn name(self) -> String {
        match self.code {
            Some(serde_json::Value::String(code)) => code,
            _ => self.kind.unwrap_or_else(|| "error".to_owned()),
        }
    }
}

/// Deltas, by far the most, cost one search; only what may hold usage or an end is parsed.
fn anthropic_event(seen: &mut Seen, data: &[u8]) {
    let is_delta = match leading_kind(data) {
        Some(kind) => kind == b"content_block_delta",
        None => has(data, "\"content_block_delta\"") && !has(data, "\"usage\""),
    };
    if is_delta {
        seen.piece();
        return;
    }
    seen.begun = seen.begun || !is_announcement(data, &ANTHROPIC_ANNOUNCES);
    if !(has(data, "\"usage\"") || has(data, "\"message_stop\"") || has(data, "\"error\"")) {
        return;
    }
    let Ok(event) = serde_json::from_slice::<AnthropicEvent>(data) else { return };
    match event.kind.as_str() {
        "message_start" => {
            if let Some(message) = event.message {
                seen.model = message.model;
                if let Some(usage) = message.usage {
                    usage.apply(&mut seen.usage);
                }
            }
        }
        "message_delta" => {
            if let Some(usage) = event.usage {
                usage.apply(&mut seen.usage);
                seen.counted = true;
            }
            if let Some(reason) = event.delta.and_then(|delta| delta.stop_reason) {
                seen.finish = Some(reason);
            }
        }
        "message_stop" => {
            seen.complete = true;
            seen.last_word = true;
        }
        "error" => {
            seen.error = Some(event.error.map_or_else(|| "error".to_owned(), ErrorObject::name));
        }
        _ => {}
    }
}

fn anthropic_reply(seen: &mut Seen, body: &[u8]) {
    if let Ok(reply) = serde_json::from_slice::<AnthropicReply>(body) {
        seen.model = reply.model;
        seen.finish = reply.stop_reason;
        if let Some(usage) = reply.usage {
            usage.apply(&mut seen.usage);
            seen.counted = true;
        }
    }
}

/// A chat completion, one of its chunks, or a response.
#[derive(Deserialize)]
struct OpenAiReply {
    model: Option<String>,
    usage: Option<OpenAiUsage>,
    error: Option<ErrorObject>,
    service_tier: Option<String>,
    /// Of a chat.
    #[serde(default)]
    choices: Vec<Choice>,
    /// Of a response.
    status: Option<String>,
    #[serde(default)]
    output: Vec<Item>,
}

#[derive(Deserialize)]
struct Choice {
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: String,
}

impl OpenAiReply {
    /// What it says of model, tokens and end.
    fn tell(&mut self, seen: &mut Seen) {
        if self.model.is_some() {
            seen.model = self.model.take();
        }
        let tier = seen.usage.tier;
        if let Some(usage) = self.usage {
            seen.usage = usage.into();
            seen.usage.tier = tier;
            seen.counted = true;
            let searches = self.output.iter().filter(|item| item.kind == "web_search_call").count();
            if searches > 0 {
                seen.usage.web_searches = u64::try_from(searches).ok();
            }
        }
        if let Some(tier) = &self.service_tier {
            seen.usage.served_as(tier);
        }
        let finish = self.choices.iter_mut().find_map(|choice| choice.finish_reason.take());
        let status =
            self.status.take().filter(|status| status != "in_progress" && status != "queued");
        if let Some(reason) = finish.or(status) {
            seen.finish = Some(reason);
        }
    }
}

fn openai_reply(seen: &mut Seen, body: &[u8]) {
    if let Ok(mut reply) = serde_json::from_slice::<OpenAiReply>(body) {
        reply.tell(seen);
    }
}

fn chat_event(seen: &mut Seen, data: &[u8]) {
    if data == b"[DONE]" {
        seen.complete = true;
        seen.last_word = true;
        return;
    }
    if is_chat_content(data) {
        seen.piece();
    }
    seen.begun = seen.begun || is_rare_chat_content(data);
    // Some compatible providers send no [DONE]; a reason for the end is as good.
    let ends = has(data, "\"finish_reason\":\"") || has(data, "\"finish_reason\": \"");
    if ends {
        seen.complete = true;
    }
    if ends
        || seen.model.is_none()
        || has(data, "\"usage\":{")
        || has(data, "\"usage\": {")
        || has(data, "\"error\"")
    {
        let Ok(mut reply) = serde_json::from_slice::<OpenAiReply>(data) else { return };
        reply.tell(seen);
        if let Some(error) = reply.error {
            seen.error = Some(error.name());
        }
    }
}

/// A delta with text, a tool call or reasoning; not the first one, which only names the role.
fn is_chat_content(data: &[u8]) -> bool {
    let text = memmem::find(data, b"\"content\":")
        .and_then(|at| data.get(at + 10..))
        .map(<[u8]>::trim_ascii_start)
        .is_some_and(|value| value.starts_with(b"\"") && !value.starts_with(b"\"\""));
    text || has(data, "\"tool_calls\"") || has(data, "\"reasoning")
}

/// Content that no text, call or reasoning is: what stands in a delta beside them when it is not empty.
fn is_rare_chat_content(data: &[u8]) -> bool {
    let full = |name: &str, empty: [&str; 2]| {
        memmem::find(data, name.as_bytes())
            .and_then(|at| data.get(at + name.len()..))
            .map(<[u8]>::trim_ascii_start)
            .is_some_and(|value| !empty.iter().any(|empty| value.starts_with(empty.as_bytes())))
    };
    ["\"refusal\":", "\"function_call\":", "\"audio\":"]
        .iter()
        .any(|name| full(name, ["null", "\"\""]))
}

#[derive(Deserialize)]
struct ResponsesEvent {
    #[serde(rename = "type")]
    kind: String,
    response: Option<OpenAiReply>,
    code: Option<String>,
}

fn responses_event(seen: &mut Seen, data: &[u8]) {
    let is_delta = match leading_kind(data) {
        Some(kind) => kind.ends_with(b".delta"),
        None => has(data, ".delta\"") && !has(data, "\"response\""),
    };
    if is_delta {
        seen.piece();
        return;
    }
    seen.begun = seen.begun || !is_announcement(data, &RESPONSES_ANNOUNCES);
    if !(has(data, "\"usage\"") || has(data, "\"response.") || has(data, "\"error\"")) {
        return;
    }
    let Ok(event) = serde_json::from_slice::<ResponsesEvent>(data) else { return };
    if event.kind == "error" {
        seen.error = Some(event.code.unwrap_or_else(|| "error".to_owned()));
        return;
    }
    let Some(mut response) = event.response else { return };
    response.tell(seen);
    match event.kind.as_str() {
        "response.completed" | "response.incomplete" => {
            seen.complete = true;
            seen.last_word = true;
        }
        "response.failed" => {
            seen.error =
                Some(response.error.map_or_else(|| "failed".to_owned(), ErrorObject::name));
        }
        _ => {}
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiReply {
    model_version: Option<String>,
    #[serde(default)]
    candidates: Vec<GeminiCandidate>,
    prompt_feedback: Option<GeminiFeedback>,
    usage_metadata: Option<GeminiUsage>,
    error: Option<GeminiError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiCandidate {
    content: Option<IgnoredAny>,
    finish_reason: Option<String>,
    grounding_metadata: Option<Grounding>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Grounding {
    #[serde(default)]
    web_search_queries: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiFeedback {
    block_reason: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct GeminiError {
    status: Option<String>,
}

/// A reply, or a piece of one: each has the usage until then, and the last the reason for the end.
fn gemini_event(seen: &mut Seen, data: &[u8]) {
    let Ok(reply) = serde_json::from_slice::<GeminiReply>(data) else { return };
    if let Some(error) = reply.error {
        seen.error = Some(error.status.unwrap_or_else(|| "error".to_owned()));
        return;
    }
    if reply.model_version.is_some() {
        seen.model = reply.model_version;
    }
    let has_usage = reply.usage_metadata.is_some();
    if let Some(usage) = reply.usage_metadata {
        usage.apply(&mut seen.usage);
    }
    if reply.candidates.iter().any(|candidate| candidate.content.is_some()) {
        seen.piece();
    }
    let grounding = |candidate: &GeminiCandidate| {
        candidate.grounding_metadata.as_ref().map_or(0, |found| found.web_search_queries.len())
    };
    let queries = reply.candidates.iter().map(grounding).max().unwrap_or_default();
    if queries > 0 {
        // Up to Gemini 2.5 an answer that was searched for is charged once, however often it searched.
        let once = |model: &String| ["gemini-1", "gemini-2"].iter().any(|m| model.starts_with(m));
        let queries = if seen.model.as_ref().is_some_and(once) { 1 } else { queries as u64 };
        seen.usage.web_searches = seen.usage.web_searches.max(Some(queries));
    }
    let finish = reply.candidates.into_iter().find_map(|candidate| candidate.finish_reason);
    let ended = finish.is_some();
    // Each piece counts up to itself: only the last one counts all.
    seen.counted |= ended && has_usage;
    seen.finish = finish.or(seen.finish.take());
    let blocked = reply.prompt_feedback.is_some_and(|feedback| feedback.block_reason.is_some());
    seen.complete |= ended || blocked;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(operation: Operation, stream: &str) -> Seen {
        let mut observer = Observer::stream(operation);
        observer.feed(&Bytes::copy_from_slice(stream.as_bytes()));
        observer.finish();
        observer.seen
    }

    #[test]
    fn words_of_a_model_or_client_do_not_pass_for_a_delta() {
        for data in [
            r#"{"type":"response.completed","response":{"model":"m","metadata":{"a":"x.delta"},"usage":{"input_tokens":3,"output_tokens":2}}}"#,
            r#"{"response":{"model":"m","metadata":{"a":"x.delta"},"usage":{"input_tokens":3,"output_tokens":2}},"type":"response.completed"}"#,
        ] {
            let seen = seen(Operation::Responses, &format!("data: {data}\n\n"));
            assert!(seen.complete && seen.first_content.is_none(), "{data}");
            assert_eq!((seen.usage.input, seen.usage.output), (Some(3), Some(2)), "{data}");
        }
        for data in [
            r#"{"type": "message_delta","delta":{"stop_sequence":"content_block_delta"},"usage":{"output_tokens":2}}"#,
            r#"{"delta":{"stop_sequence":"content_block_delta"},"type":"message_delta","usage":{"output_tokens":2}}"#,
        ] {
            let seen = seen(Operation::Messages, &format!("data: {data}\n\n"));
            assert_eq!(seen.usage.output, Some(2), "{data}");
        }
    }

    #[test]
    fn announcements_are_no_content_and_all_else_is() {
        let cases = [
            (
                Operation::Messages,
                r#"{"type":"message_start","message":{"usage":{"input_tokens":1}}}"#,
                false,
            ),
            (
                Operation::Messages,
                r#"{"index":0,"content_block":{"type":"text","text":""},"type":"content_block_start"}"#,
                false,
            ),
            (Operation::Messages, r#"{"type": "ping"}"#, false),
            (Operation::Messages, r#"{"type":"error","error":{"type":"overloaded_error"}}"#, false),
            (
                Operation::Messages,
                r#"{"type":"content_block_delta","delta":{"type":"thinking_delta"}}"#,
                true,
            ),
            (Operation::Messages, r#"{"type":"content_block_stop","index":0}"#, true),
            (
                Operation::Chat,
                r#"{"model":"m","choices":[{"delta":{"role":"assistant","content":"","refusal":null}}]}"#,
                false,
            ),
            (Operation::Chat, r#"{"model":"m","choices":[],"prompt_filter_results":[]}"#, false),
            (Operation::Chat, r#"{"model":"m","choices":[{"delta":{"content":"a"}}]}"#, true),
            (Operation::Chat, r#"{"model":"m","choices":[{"delta":{"refusal":"No"}}]}"#, true),
            (Operation::Chat, r#"{"model":"m","choices":[{"delta":{"tool_calls":[]}}]}"#, true),
            (Operation::Responses, r#"{"type":"response.created","response":{}}"#, false),
            (Operation::Responses, r#"{"type":"response.output_item.added","item":{}}"#, false),
            (Operation::Responses, r#"{"type":"response.web_search_call.searching"}"#, true),
            (Operation::Responses, r#"{"type":"response.output_text.delta","delta":"a"}"#, true),
        ];
        for (operation, data, begun) in cases {
            assert_eq!(seen(operation, &format!("data: {data}\n\n")).begun, begun, "{data}");
        }
    }

    #[test]
    fn what_gemini_searched_for_is_counted_as_it_is_charged() {
        let searched = |model: &str| {
            let piece = |finish: &str| {
                format!(
                    r#"data: {{"modelVersion":"{model}","candidates":[{{"content":{{}},"groundingMetadata":{{"webSearchQueries":["a","b"]}}{finish}}}],"usageMetadata":{{"promptTokenCount":1,"candidatesTokenCount":1}}}}"#
                )
            };
            let text = format!("{}\n\n{}\n\n", piece(""), piece(r#","finishReason":"STOP""#));
            seen(Operation::GenerateContent, &text).usage
        };
        assert_eq!(searched("gemini-2.5-flash").web_searches, Some(1));
        assert_eq!(searched("gemini-3.5-flash").web_searches, Some(2));
        let price = crate::price::of("vertex", "gemini-3.5-flash").unwrap();
        // Two of 14 dollars a thousand, and a token of 1.5 and one of 9 dollars a million.
        assert_eq!(price.cost_nanousd(&searched("gemini-3.5-flash")), Some(28_010_500));
    }

    #[test]
    fn a_delta_is_one_wherever_its_type_stands() {
        for data in [
            r#"{"type":"response.output_text.delta","delta":"a"}"#,
            r#"{"delta":"a","type":"response.output_text.delta"}"#,
        ] {
            let seen = seen(Operation::Responses, &format!("data: {data}\n\n"));
            assert!(seen.first_content.is_some(), "{data}");
        }
        for data in [
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#,
            r#"{"delta":{"text":"a","type":"text_delta"},"index":0,"type":"content_block_delta"}"#,
        ] {
            let seen = seen(Operation::Messages, &format!("data: {data}\n\n"));
            assert!(seen.first_content.is_some(), "{data}");
        }
    }
}
