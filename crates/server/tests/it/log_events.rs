//! A reader of streams of events.

use std::time::Duration;

use loom_testkit::Caller;
use reqwest::{Method, Response};
use serde_json::Value;

/// One event, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

impl Event {
    pub(crate) fn message(&self) -> &str {
        self.data["message"].as_str().unwrap_or_default()
    }
}

pub(crate) struct Events {
    response: Response,
    text: String,
}

impl Events {
    /// Watches from now on, or behind the line that `after` names.
    pub(crate) async fn open(caller: &Caller, query: &str, after: Option<&str>) -> Self {
        Self::at(caller, &format!("/api/admin/logs/stream{query}"), after).await
    }

    /// Any stream.
    pub(crate) async fn at(caller: &Caller, path: &str, after: Option<&str>) -> Self {
        let mut request = caller.request(Method::GET, path);
        if let Some(id) = after {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{:?}", response.text().await);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event; none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let prefix = format!("{name}: ");
                    frame.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default()
                };
                // A comment, or only how long to wait before coming again.
                if field("data").is_empty() {
                    continue;
                }
                return Some(Event {
                    id: field("id").to_owned(),
                    kind: field("event").to_owned(),
                    data: serde_json::from_str(field("data")).unwrap(),
                });
            }
            let piece = tokio::time::timeout(Duration::from_secs(30), self.response.chunk());
            let piece = piece.await.expect("an event within half a minute").ok()??;
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// All events up to the one with this message.
    pub(crate) async fn upto(&mut self, message: &str) -> Vec<Event> {
        let mut all = Vec::new();
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("ended before it: {all:?}"));
            let found = event.message() == message;
            all.push(event);
            if found {
                return all;
            }
        }
    }
}
