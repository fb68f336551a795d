//! A client that follows threads.

use std::time::Duration;

use loom_testkit::app::Caller;
use reqwest::{Method, Response};
use serde_json::Value;

/// An event as it came.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) id: Option<String>,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

pub(crate) struct Follower {
    response: Response,
    buffer: String,
}

impl Follower {
    /// From `after` on, or from now: the first event, `ready` or `reset`, has been taken.
    pub(crate) async fn start(caller: &Caller, path: &str, after: Option<&str>) -> (Self, Told) {
        let response = Self::ask(caller, path, after).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let mut follower = Self { response, buffer: String::new() };
        let first = follower.next().await.unwrap();
        assert!(first.id.is_some(), "{first:?}");
        (follower, first)
    }

    /// As [`Follower::start`], while servers may be out of reach.
    pub(crate) async fn try_start(
        caller: &Caller,
        path: &str,
        after: Option<&str>,
    ) -> Option<Self> {
        let response = Self::ask(caller, path, after).await.ok()?;
        (response.status() == 200).then(|| Self { response, buffer: String::new() })
    }

    async fn ask(caller: &Caller, path: &str, after: Option<&str>) -> reqwest::Result<Response> {
        let mut request = caller.request(Method::GET, path);
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        request.send().await
    }

    /// The next event; None at the end.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            while let Some((event, rest)) = self.buffer.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.buffer = rest;
                let field = |name: &str| {
                    event.lines().find_map(|line| {
                        Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned())
                    })
                };
                if let Some(data) = field("data") {
                    let data = serde_json::from_str(&data).unwrap();
                    return Some(Told { id: field("id"), kind: field("event").unwrap(), data });
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(60), self.response.chunk()).await;
            let chunk = chunk.expect("nothing came for a minute").ok().flatten()?;
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Of these kinds the next, whatever comes before it.
    pub(crate) async fn next_of(&mut self, kinds: &[&str]) -> Told {
        loop {
            let told = self.next().await.expect("the stream goes on");
            if kinds.contains(&told.kind.as_str()) {
                return told;
            }
        }
    }

    /// Everything to the end.
    pub(crate) async fn rest(mut self) -> Vec<Told> {
        let mut all = Vec::new();
        while let Some(told) = self.next().await {
            all.push(told);
        }
        all
    }
}
