//! Recorded streams of each provider, told on each other wire.

use proptest::prelude::*;

use serde_json::{Value, json};

use super::{ALL, PROVIDERS, told};
use crate::{
    dialect::Operation,
    observe::Observer,
    translate::{reply::Event, stream},
    usage::Usage,
};

macro_rules! transcripts {
    ($($name:literal of $from:ident),* $(,)?) => {
        const TRANSCRIPTS: &[(&str, Operation, &str)] = &[
            $(($name, Operation::$from, include_str!(concat!("transcripts/", $name, ".sse")))),*
        ];
    };
}

transcripts! {
    "anthropic_thinking_tools" of Messages,
    "anthropic_cache_in_both_places" of Messages,
    "anthropic_refusal" of Messages,
    "anthropic_pause_turn" of Messages,
    "anthropic_overloaded" of Messages,
    "chat_interleaved_tools" of Chat,
    "chat_sequential_tools" of Chat,
    "chat_reasoning" of Chat,
    "chat_refusal" of Chat,
    "chat_length_without_done" of Chat,
    "responses_reasoning_tools" of Responses,
    "responses_incomplete" of Responses,
    "responses_refusal" of Responses,
    "responses_failed" of Responses,
    "anthropic_web_search" of Messages,
    "anthropic_redacted_thinking" of Messages,
    "responses_web_search" of Responses,
    "gemini_thinking_tools" of GenerateContent,
    "gemini_text_signature" of GenerateContent,
    "gemini_safety" of GenerateContent,
    "gemini_blocked_prompt" of GenerateContent,
    "gemini_malformed_call" of GenerateContent,
    "gemini_max_tokens" of GenerateContent,
    "gemini_unavailable" of GenerateContent,
    "gemini_grounded" of GenerateContent,
    "chat_citations" of Chat,
}

#[test]
fn recorded_streams_are_told_on_every_other_wire() {
    for (name, from, stream) in TRANSCRIPTS {
        for to in ALL.into_iter().filter(|to| to != from) {
            let (told, _) = told(*from, to, [stream.as_bytes()]);
            insta::assert_snapshot!(format!("{name}_as_{}", to.name()), told);
        }
    }
}

#[test]
fn what_they_cost_is_by_the_providers_own_count() {
    let counts: Vec<_> = TRANSCRIPTS
        .iter()
        .map(|(name, from, stream)| {
            let (_, usage) = told(*from, Operation::Chat, [stream.as_bytes()]);
            let read = usage.cache_read;
            let written = (usage.cache_write_5m, usage.cache_write_1h);
            (*name, usage.input, read, written, usage.output, usage.reasoning)
        })
        .collect();
    let expected = [
        (
            "anthropic_thinking_tools",
            Some(12),
            Some(4000),
            (Some(100), Some(200)),
            Some(89),
            Some(20),
        ),
        ("anthropic_cache_in_both_places", Some(10), Some(700), (Some(30), None), Some(4), None),
        ("anthropic_refusal", Some(9), None, (None, None), Some(3), None),
        ("anthropic_pause_turn", Some(9), None, (None, None), Some(30), None),
        ("anthropic_overloaded", Some(9), None, (None, None), Some(1), None),
        ("chat_interleaved_tools", Some(36), Some(64), (None, None), Some(40), None),
        ("chat_sequential_tools", Some(100), None, (None, None), Some(40), None),
        ("chat_reasoning", Some(7), None, (None, None), Some(12), Some(8)),
        ("chat_refusal", Some(7), None, (None, None), Some(5), None),
        ("chat_length_without_done", None, None, (None, None), None, None),
        ("responses_reasoning_tools", Some(20), Some(100), (None, None), Some(60), Some(32)),
        ("responses_incomplete", Some(20), Some(100), (None, None), Some(60), Some(32)),
        ("responses_refusal", Some(20), Some(100), (None, None), Some(60), Some(32)),
        ("responses_failed", None, None, (None, None), None, None),
        ("anthropic_web_search", Some(6039), Some(0), (Some(0), None), Some(61), None),
        ("anthropic_redacted_thinking", Some(50), Some(0), (Some(0), None), Some(21), None),
        ("responses_web_search", Some(9000), Some(0), (None, None), Some(44), Some(0)),
        ("gemini_thinking_tools", Some(20), Some(100), (None, None), Some(65), Some(32)),
        ("gemini_text_signature", Some(20), Some(100), (None, None), Some(14), Some(8)),
        ("gemini_safety", Some(20), Some(100), (None, None), Some(2), None),
        ("gemini_blocked_prompt", Some(9), None, (None, None), None, None),
        ("gemini_malformed_call", Some(20), Some(100), (None, None), None, None),
        ("gemini_max_tokens", Some(5), None, (None, None), Some(2), None),
        ("gemini_unavailable", Some(20), Some(100), (None, None), Some(1), None),
        ("gemini_grounded", Some(20), None, (None, None), Some(12), None),
        ("chat_citations", Some(12), None, (None, None), Some(9), None),
    ];
    assert_eq!(counts, expected);
}

/// Cuts `bytes` at the given places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn transcript() -> impl Strategy<Value = (Operation, &'static str)> {
    prop::sample::select(TRANSCRIPTS).prop_map(|(_, from, stream)| (from, stream))
}

fn surface() -> impl Strategy<Value = Operation> {
    prop::sample::select(ALL.to_vec())
}

/// How often a stream says that it is at its end, well or not.
fn ends(surface: Operation, told: &str) -> usize {
    let words: &[&str] = match surface {
        Operation::Messages => &["event: message_stop", "event: error"],
        Operation::Chat => &["data: [DONE]", "data: {\"error\""],
        _ => &["event: response.completed", "event: response.incomplete", "event: error"],
    };
    told.lines().filter(|line| words.iter().any(|word| line.starts_with(word))).count()
}

/// A stream with some value in it replaced by something else, wherever it is.
fn altered(
    stream: &str,
    event: &prop::sample::Index,
    place: &prop::sample::Index,
    by: &Value,
) -> String {
    let is_json = |line: &&str| line.starts_with("data: {");
    let events: Vec<_> = stream.lines().filter(is_json).collect();
    let chosen = *event.get(&events);
    let mut data: Value = serde_json::from_str(chosen.trim_start_matches("data: ")).unwrap();
    let mut places = Vec::new();
    super::requests::places(&data, "", &mut places);
    let place: &String = place.get(&places);
    *data.pointer_mut(place).unwrap() = by.clone();
    stream.replacen(chosen, &format!("data: {data}"), 1)
}

fn anything() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!([]),
        json!({}),
        json!([[]]),
        json!([null]),
        json!([{}]),
        json!({"type": "text"}),
        json!("response.completed"),
        json!("message_stop"),
        json!("error"),
        json!("STOP"),
        json!("tool_calls"),
    ])
}

/// What a decoder makes of a stream, and what it cost.
fn heard(from: Operation, pieces: Vec<&[u8]>) -> (Vec<Event>, Usage) {
    let (mut observer, mut decoder) = (Observer::stream(from), stream::Decoder::new(from));
    let mut events = Vec::new();
    for piece in pieces {
        observer.feed(&bytes::Bytes::copy_from_slice(piece));
        events.extend(decoder.feed(piece));
    }
    events.extend(decoder.finish());
    (events, observer.seen.usage)
}

proptest! {
    #[test]
    fn a_stream_with_anything_anywhere_ends_exactly_once_whatever_the_chunking(
        (from, stream) in transcript(), to in surface(), by in anything(),
        event in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<usize>(), 0..10),
    ) {
        let stream = altered(stream, &event, &place, &by);
        let whole = told(from, to, [stream.as_bytes()]);
        prop_assert_eq!(ends(to, &whole.0), 1, "{}", whole.0);
        prop_assert_eq!(heard(from, pieces(stream.as_bytes(), &cuts)), heard(from, vec![stream.as_bytes()]));
    }

    #[test]
    fn no_bytes_make_a_decoder_or_the_account_panic(
        from in prop::sample::select(PROVIDERS.to_vec()), to in surface(),
        lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8),
        cuts in prop::collection::vec(any::<usize>(), 0..10),
    ) {
        let stream = lines.iter().flat_map(|line| [b"data: ", line.as_slice(), b"\n\n"].concat()).collect::<Vec<_>>();
        let (told, _) = told(from, to, pieces(&stream, &cuts));
        prop_assert_eq!(ends(to, &told), 1, "{}", told);
        drop(stream::whole(from, &stream));
        let mut observer = Observer::json(from);
        observer.feed(&stream.into());
        observer.finish();
    }

    #[test]
    fn what_is_learned_on_the_side_is_the_same_whatever_the_chunking(
        (from, stream) in transcript(), cuts in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        let seen = |pieces: Vec<&[u8]>| {
            let mut observer = Observer::stream(from);
            for piece in pieces {
                observer.feed(&bytes::Bytes::copy_from_slice(piece));
            }
            observer.finish();
            let seen = observer.seen;
            let known = (seen.usage, seen.model, seen.first_content.is_some());
            (known, seen.begun, seen.complete, seen.last_word, seen.error)
        };
        prop_assert_eq!(seen(pieces(stream.as_bytes(), &cuts)), seen(vec![stream.as_bytes()]));
    }

    #[test]
    fn any_chunking_gives_the_same_events_and_usage(
        (from, stream) in transcript(), to in surface(), cuts in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        prop_assert_eq!(told(from, to, pieces(stream.as_bytes(), &cuts)), told(from, to, [stream.as_bytes()]));
    }

    #[test]
    fn a_stream_that_is_cut_or_garbled_anywhere_ends_exactly_once(
        (from, stream) in transcript(), to in surface(), at in any::<usize>(), cut in any::<bool>(),
        noise in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        let mut bytes = stream.as_bytes().to_vec();
        let at = at % bytes.len();
        if cut {
            bytes.truncate(at);
        } else {
            let until = (at + noise.len()).min(bytes.len());
            bytes.splice(at..until, noise);
        }
        let (told, _) = told(from, to, [bytes.as_slice()]);
        prop_assert_eq!(ends(to, &told), 1, "{}", told);
    }
}
