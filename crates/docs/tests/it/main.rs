//! The guide, asked as a client asks it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "clippy knows tests, but not what only tests call"
)]

mod pages;
mod safety;
mod search;

use axum::{Router, body::Body};
use http::{HeaderMap, Request, StatusCode};
use loom_docs::Docs;
use serde_json::Value;
use tower::ServiceExt;

pub(crate) const BROWSER: (&str, &str) =
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }
}

pub(crate) struct Guide(Router);

impl Guide {
    pub(crate) fn new() -> Self {
        Self::of(&Docs::new())
    }

    pub(crate) fn of(docs: &Docs) -> Self {
        Self(docs.routes().split_for_parts().0)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let (parts, body) = self.0.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// The paths that a search finds, best first. `query` is percent-encoded.
    pub(crate) async fn find(&self, query: &str) -> Vec<String> {
        let answer = self.get(&format!("/docs/search?{query}")).await.expect(200).json();
        let hits = answer["hits"].as_array().unwrap();
        hits.iter().map(|hit| hit["path"].as_str().unwrap().to_owned()).collect()
    }
}
