//! The mock upstream: canned OpenAI and Anthropic replies, as fast as one process can give them.
//!
//! A stream's events are written one by one, as a model makes them, without a pause;
//! `loom-bench-pace-<ms>` anywhere in the request's body puts that pause before each.

use std::convert::Infallible;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use clap::ValueEnum;
use futures::stream::{self, BoxStream, StreamExt as _};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(crate) const EVENTS: usize = 24;
const PACE: &str = "loom-bench-pace-";
const BODY_LIMIT: usize = 32 * 1024 * 1024;
const TEXT: &str = "The quick brown fox jumps over the lazy dog while the five boxing wizards watch quietly from the hill above \
     the river, and not one of them can say afterwards which of the two was the faster or the lazier of them all.";

/// Whose wire format is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Api {
    Openai,
    Anthropic,
}

/// The replies of one API.
pub(crate) struct Replies {
    pub(crate) json: Bytes,
    pub(crate) events: Vec<Bytes>,
}

static OPENAI: LazyLock<Replies> = LazyLock::new(openai);
static ANTHROPIC: LazyLock<Replies> = LazyLock::new(anthropic);

impl Api {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Openai => "/v1/chat/completions",
            Self::Anthropic => "/v1/messages",
        }
    }

    pub(crate) fn replies(self) -> &'static Replies {
        match self {
            Self::Openai => &OPENAI,
            Self::Anthropic => &ANTHROPIC,
        }
    }

    /// A request's body that asks for such a reply; `pace` is for the mock alone.
    pub(crate) fn request_body(self, stream: bool, pace: Option<Duration>) -> String {
        self.request_for("gpt-4o-mini", stream, pace)
    }

    /// The same for a peer that has a name of its own for OpenAI's model.
    pub(crate) fn request_for(self, model: &str, stream: bool, pace: Option<Duration>) -> String {
        let user =
            pace.map_or("loom-bench".to_owned(), |pace| format!("{PACE}{}", pace.as_millis()));
        let messages = json!([{"role": "user", "content": "Which of the two is the faster, the fox or the dog? Answer in a sentence."}]);
        let mut body = match self {
            Self::Openai => {
                json!({"model": model, "messages": messages, "max_tokens": 256, "user": user})
            }
            Self::Anthropic => {
                json!({"model": "claude-sonnet-4-5", "messages": messages, "max_tokens": 256, "metadata": {"user_id": user}})
            }
        };
        if let Some(fields) = body.as_object_mut().filter(|_| stream) {
            fields.insert("stream".to_owned(), json!(true));
            if self == Self::Openai {
                fields.insert("stream_options".to_owned(), json!({"include_usage": true}));
            }
        }
        body.to_string()
    }
}

/// Answers until the process is stopped.
pub(crate) async fn serve(listener: TcpListener) -> Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        // The socket can be gone by now; serving it will tell.
        let _ = socket.set_nodelay(true);
        tokio::spawn(
            http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(answer)),
        );
    }
}

type Body = Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let api = match request.uri().path() {
        "/v1/chat/completions" => Api::Openai,
        "/v1/messages" => Api::Anthropic,
        _ => return Ok(refuse(StatusCode::NOT_FOUND)),
    };
    let Ok(body) = Limited::new(request.into_body(), BODY_LIMIT).collect().await else {
        return Ok(refuse(StatusCode::BAD_REQUEST));
    };
    let body = body.to_bytes();
    if !wants_stream(&body) {
        let mut response = Response::new(Either::Left(Full::new(api.replies().json.clone())));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return Ok(response);
    }
    let mut response = Response::new(Either::Right(StreamBody::new(events(api, pace(&body)))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

fn refuse(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

fn events(
    api: Api,
    pace: Option<Duration>,
) -> BoxStream<'static, Result<Frame<Bytes>, Infallible>> {
    stream::iter(&api.replies().events)
        .then(move |event| async move {
            match pace {
                Some(pace) => tokio::time::sleep(pace).await,
                // hyper writes out what it has when the body has nothing more at once: one write an event.
                None => tokio::task::yield_now().await,
            }
            Ok(Frame::data(event.clone()))
        })
        .boxed()
}

fn wants_stream(body: &[u8]) -> bool {
    after(body, "\"stream\":").is_some_and(|value| value.trim_ascii_start().starts_with(b"true"))
}

fn pace(body: &[u8]) -> Option<Duration> {
    let value = after(body, PACE)?;
    let end = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
    std::str::from_utf8(value.get(..end)?).ok()?.parse().ok().map(Duration::from_millis)
}

fn after<'a>(body: &'a [u8], marker: &str) -> Option<&'a [u8]> {
    let start = memchr::memmem::find(body, marker.as_bytes())?;
    body.get(start + marker.len()..)
}

fn openai() -> Replies {
    let envelope = |object: &str, choices: Value, usage: Value| {
        json!({"id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT", "object": object, "created": 1_741_569_952,
            "model": "gpt-4o-mini-2024-07-18", "choices": choices, "usage": usage,
            "service_tier": "default", "system_fingerprint": "fp_06737a9306"})
    };
    let usage = json!({"prompt_tokens": 24, "completion_tokens": 46, "total_tokens": 70,
        "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}});
    let message = json!([{"index": 0, "message": {"role": "assistant", "content": TEXT, "refusal": null},
        "logprobs": null, "finish_reason": "stop"}]);
    let delta = |delta: Value, finish: Value| {
        let choices =
            json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
        envelope("chat.completion.chunk", choices, Value::Null)
    };
    let mut chunks = vec![delta(json!({"role": "assistant", "content": ""}), Value::Null)];
    chunks.extend(
        TEXT.split_inclusive(' ')
            .take(EVENTS - 4)
            .map(|word| delta(json!({"content": word}), Value::Null)),
    );
    chunks.push(delta(json!({}), json!("stop")));
    chunks.push(envelope("chat.completion.chunk", json!([]), usage.clone()));
    let data = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
    Replies {
        json: envelope("chat.completion", message, usage).to_string().into(),
        events: data.chain(["data: [DONE]\n\n".to_owned()]).map(Bytes::from).collect(),
    }
}

fn anthropic() -> Replies {
    let message = |content: Value, stop: Value, output: u32| {
        json!({"id": "msg_013Zva2CMHLNnXjNJJKqJ2EF", "type": "message", "role": "assistant",
            "model": "claude-sonnet-4-5-20250929", "content": content, "stop_reason": stop, "stop_sequence": null,
            "usage": {"input_tokens": 24, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                "output_tokens": output, "service_tier": "standard"}})
    };
    let mut events = vec![
        json!({"type": "message_start", "message": message(json!([]), Value::Null, 1)}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
    ];
    events.extend(TEXT.split_inclusive(' ').take(EVENTS - 6).map(
        |word| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}),
    ));
    events.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": 46}}),
        json!({"type": "message_stop"}),
    ]);
    let frame = |event: &Value| {
        let name = event.get("type").and_then(Value::as_str).unwrap_or_default();
        Bytes::from(format!("event: {name}\ndata: {event}\n\n"))
    };
    Replies {
        json: message(json!([{"type": "text", "text": TEXT}]), json!("end_turn"), 46)
            .to_string()
            .into(),
        events: events.iter().map(frame).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Api, EVENTS, pace, wants_stream};
    use std::time::Duration;

    #[test]
    fn replies_have_the_documented_size() {
        for api in [Api::Openai, Api::Anthropic] {
            let replies = api.replies();
            assert_eq!(replies.events.len(), EVENTS, "{api:?}");
            assert!(replies.events.iter().all(|event| event.ends_with(b"\n\n")), "{api:?}");
            assert!((500..=800).contains(&replies.json.len()), "{api:?}: {}", replies.json.len());
        }
    }

    #[test]
    fn requests_are_understood() {
        for api in [Api::Openai, Api::Anthropic] {
            let json = api.request_body(false, None);
            assert!(!wants_stream(json.as_bytes()), "{json}");
            assert_eq!(pace(json.as_bytes()), None);
            let stream = api.request_body(true, Some(Duration::from_millis(20)));
            assert!(wants_stream(stream.as_bytes()), "{stream}");
            assert_eq!(pace(stream.as_bytes()), Some(Duration::from_millis(20)));
        }
        assert!(wants_stream(br#"{"stream" : false, "stream": true}"#));
        assert!(!wants_stream(br#"{"stream":false}"#));
    }
}
