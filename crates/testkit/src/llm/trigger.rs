//! Models that misbehave, so that a client in any language can ask for it by name. Before the name
//! there may be a provider and a `/`.
//!
//! | model | what happens |
//! |---|---|
//! | `mock-error-<status>` | that status with the vendor's error body; 429 has `retry-after: 17` |
//! | `mock-insufficient-quota` | OpenAI's 429 that waiting does not help; Anthropic's 402 |
//! | `mock-refuse-stream-options` | 400 naming `stream_options` when it is there |
//! | `mock-hang` | not even headers |
//! | `mock-slow-first-<ms>` | headers and all the rest so much later |
//! | `mock-slow-body-<ms>` | headers at once, all the rest so much later |
//! | `mock-paced-<ms>` | 50 deltas, each so long after the one before |
//! | `mock-midstream-error` | the vendor's error event after 3 deltas, then the end |
//! | `mock-stall` | 3 deltas, then silence |
//! | `mock-reset` | 3 deltas, then a connection reset |
//! | `mock-cut` | 3 deltas, then the body ends properly, but without the wire's own end |
//! | `mock-close` | 3 deltas, then the connection closes without the end of the body |
//! | `mock-split-utf8` | chunk boundaries inside of characters, 2 ms apart |
//! | `mock-huge-line` | a delta of 10 MB |
//!
//! Asked without `stream`, the same is done to the JSON body (with half of it for "3 deltas"), and
//! `mock-midstream-error` is a plain 500 (529 of Anthropic).

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::{
    anthropic, errors, gemini, openai_chat, openai_misc, openai_responses,
    plan::{Answer, Plan},
    route::{Ask, Route, Wire},
    script::{Head, Reply, Step},
};

/// Deltas that arrive before something goes wrong.
pub const DELTAS_BEFORE: usize = 3;
/// Deltas of `mock-paced-<ms>`.
pub const PACED_DELTAS: usize = 50;
/// The text in the one delta of `mock-huge-line`.
pub const HUGE: usize = 10 * 1024 * 1024;
/// What `mock-split-utf8` says.
pub const SPLIT_PIECES: [&str; 4] = ["żółć ", "日本語 ", "👩‍🚀👋 ", "ende"];

/// What the model named this answers.
pub(super) fn reply(ask: &Ask, model: &str) -> Reply {
    let name = model.rsplit('/').next().unwrap_or(model);
    let Some(name) = name.strip_prefix("mock-") else {
        return steps(ask, usual(ask), Vec::new());
    };
    if let Some(status) = name.strip_prefix("error-").and_then(|status| status.parse().ok()) {
        return errors::reply(ask.wire, status, ask.number);
    }
    if let Some(pause) = millis(name, "slow-first-") {
        return steps(ask, usual(ask), Vec::new()).head(Head::After(pause));
    }
    if let Some(pause) = millis(name, "slow-body-") {
        let mut reply = steps(ask, usual(ask), Vec::new());
        reply.steps.insert(0, Step::Pause(pause));
        return reply;
    }
    if let Some(pause) = millis(name, "paced-") {
        return paced(ask, pause);
    }
    match name {
        "insufficient-quota" => errors::insufficient_quota(ask.wire, ask.number),
        "refuse-stream-options" if ask.body.get("stream_options").is_some() => {
            errors::unknown_field(ask.wire, "stream_options", ask.number)
        }
        "hang" => steps(ask, usual(ask), Vec::new()).head(Head::Never),
        "midstream-error" if !ask.streams() => {
            let status = if ask.wire == Wire::Anthropic { 529 } else { 500 };
            errors::reply(ask.wire, status, ask.number)
        }
        "midstream-error" => {
            let error = Step::Bytes(errors::in_stream(&ask.route));
            steps(ask, cut(usual(ask)), vec![error])
        }
        "stall" => steps(ask, cut(usual(ask)), vec![Step::Stall]),
        "reset" => steps(ask, cut(usual(ask)), vec![Step::Reset]),
        "close" => steps(ask, cut(usual(ask)), vec![Step::Close]),
        "cut" => steps(ask, cut(usual(ask)), vec![Step::End]),
        "split-utf8" => {
            let plan = Plan::text(ask, SPLIT_PIECES.map(str::to_owned).to_vec());
            split(ask, answer(ask, &plan))
        }
        "huge-line" => {
            let pieces = vec!["before ".to_owned(), "x".repeat(HUGE), " after".to_owned()];
            steps(ask, answer(ask, &Plan::text(ask, pieces)), Vec::new())
        }
        _ => steps(ask, usual(ask), Vec::new()),
    }
}

fn millis(name: &str, prefix: &str) -> Option<Duration> {
    name.strip_prefix(prefix)?.parse().ok().map(Duration::from_millis)
}

fn usual(ask: &Ask) -> Option<Answer> {
    answer(ask, &Plan::usual(ask))
}

/// `None` when there is no such model.
fn answer(ask: &Ask, plan: &Plan) -> Option<Answer> {
    let streams = ask.streams();
    let whole = match &ask.route {
        Route::Messages if streams => return Some(anthropic::stream(ask, plan)),
        Route::Chat if streams => return Some(openai_chat::stream(ask, plan)),
        Route::Responses if streams => return Some(openai_responses::stream(ask, plan)),
        Route::Generate if streams => return Some(gemini::stream(ask, plan)),
        Route::Generate => gemini::whole(ask, plan),
        Route::CountContents => gemini::count(),
        Route::CountInput => openai_responses::count(),
        Route::Messages => anthropic::whole(ask, plan),
        Route::Chat => openai_chat::whole(ask, plan),
        Route::Responses => openai_responses::whole(ask, plan),
        Route::CountTokens => anthropic::count_tokens(),
        Route::Embeddings => openai_misc::embeddings(ask),
        Route::Models => openai_misc::models(ask.wire),
        Route::Model(id) => openai_misc::model(ask.wire, id)?,
    };
    Some(json(&whole))
}

/// A JSON body as eight "deltas", so that it can be cut and paced as a stream can.
fn json(whole: &Value) -> Answer {
    let bytes = Bytes::from(whole.to_string());
    let size = bytes.len().div_ceil(8);
    let deltas = (0..bytes.len())
        .step_by(size)
        .map(|from| bytes.slice(from..bytes.len().min(from + size)))
        .collect();
    Answer { deltas, ..Answer::default() }
}

fn cut(answer: Option<Answer>) -> Option<Answer> {
    answer.map(|mut answer| {
        answer.deltas.truncate(DELTAS_BEFORE);
        answer.tail.clear();
        answer
    })
}

/// The answer, and then these steps.
fn steps(ask: &Ask, answer: Option<Answer>, then: Vec<Step>) -> Reply {
    let Some(answer) = answer else { return errors::reply(ask.wire, 404, ask.number) };
    if !ask.streams() && then.is_empty() {
        let whole = [answer.lead, answer.deltas, answer.tail].concat().concat();
        return Reply::new(200, "application/json").bytes(whole);
    }
    let mut reply = blank(ask);
    let chunks = answer.lead.into_iter().chain(answer.deltas).chain(answer.tail);
    reply.steps = chunks.map(Step::Bytes).chain(then).collect();
    reply
}

fn blank(ask: &Ask) -> Reply {
    if ask.streams() { Reply::sse() } else { Reply::new(200, "application/json") }
}

fn paced(ask: &Ask, pause: Duration) -> Reply {
    let pieces = (1..=PACED_DELTAS).map(|n| format!("tick{n} ")).collect();
    let Some(answer) = answer(ask, &Plan::text(ask, pieces)) else {
        return errors::reply(ask.wire, 404, ask.number);
    };
    let mut reply = blank(ask);
    reply.steps.extend(answer.lead.into_iter().map(Step::Bytes));
    for delta in answer.deltas {
        reply.steps.extend([Step::Pause(pause), Step::Bytes(delta)]);
    }
    reply.steps.extend(answer.tail.into_iter().map(Step::Bytes));
    reply
}

/// A boundary after each byte of a character but its last, wherever it is longer than one.
fn split(ask: &Ask, answer: Option<Answer>) -> Reply {
    let Some(answer) = answer else { return errors::reply(ask.wire, 404, ask.number) };
    let whole = Bytes::from([answer.lead, answer.deltas, answer.tail].concat().concat());
    let mut reply = blank(ask);
    let mut from = 0;
    for at in 1..=whole.len() {
        // A byte that continues a character: 10xxxxxx.
        if at == whole.len() || whole[at] & 0xC0 == 0x80 {
            reply = reply.bytes(whole.slice(from..at)).pause(Duration::from_millis(2));
            from = at;
        }
    }
    reply
}
