//! What a test can tell the mock to answer.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

/// The answer to one request.
#[derive(Clone, Debug)]
pub enum Script {
    /// What the request would get had it named this model, a trigger or not.
    Model(String),
    /// Exactly this.
    Reply(Reply),
}

/// An answer in every detail.
#[derive(Clone, Debug)]
pub struct Reply {
    pub head: Head,
    pub status: u16,
    /// On top of the vendor's own headers; one of the same name replaces the vendor's.
    pub headers: Vec<(String, String)>,
    /// Played in order; at the end of the list the body ends properly.
    pub steps: Vec<Step>,
}

/// When the status line and the headers are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    Now,
    After(Duration),
    Never,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// A chunk of the body, flushed by itself.
    Bytes(Bytes),
    Pause(Duration),
    /// Nothing any more, with the connection open.
    Stall,
    /// The connection is reset (RST).
    Reset,
    /// The connection is closed (FIN) without the end of the body.
    Close,
    /// The body ends as HTTP wants it, whatever was said in it.
    End,
}

impl Script {
    pub fn model(name: impl Into<String>) -> Self {
        Self::Model(name.into())
    }

    /// This status with the error body of the vendor that is asked.
    pub fn error(status: u16) -> Self {
        Self::Model(format!("mock-error-{status}"))
    }
}

impl From<Reply> for Script {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

impl Reply {
    pub fn new(status: u16, content_type: &str) -> Self {
        Self {
            head: Head::Now,
            status,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            steps: Vec::new(),
        }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json").bytes(body.to_string())
    }

    /// A stream; see [`Self::event`] and [`Self::bytes`].
    pub fn sse() -> Self {
        Self::new(200, "text/event-stream; charset=utf-8")
    }

    #[must_use]
    pub fn head(mut self, head: Head) -> Self {
        self.head = head;
        self
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    #[must_use]
    pub fn bytes(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Bytes(bytes.into()))
    }

    #[must_use]
    pub fn pause(self, pause: Duration) -> Self {
        self.step(Step::Pause(pause))
    }

    /// An event with this data; its name, as Anthropic and Responses have it, is the data's `type`.
    #[must_use]
    pub fn event(self, data: &Value) -> Self {
        self.bytes(event(data))
    }

    /// `data: [DONE]`, as chat completions end.
    #[must_use]
    pub fn done(self) -> Self {
        self.bytes("data: [DONE]\n\n")
    }
}

/// One server-sent event, named by its `type` when it has one.
pub(super) fn event(data: &Value) -> Bytes {
    data["type"]
        .as_str()
        .map_or_else(
            || format!("data: {data}\n\n"),
            |name| format!("event: {name}\ndata: {data}\n\n"),
        )
        .into()
}
