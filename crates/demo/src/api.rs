//! Requests to the server's own routes, in this process.

use anyhow::{Context as _, ensure};
use axum::{Router, body::Body};
use http::{Method, Request, header};
use serde_json::Value;
use tower::ServiceExt as _;

/// Larger answers are not read.
const MOST: usize = 16 << 20;

pub(crate) struct Api(Router);

/// Who asks, and in which organisation.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) key: String,
    pub(crate) org: String,
}

impl Api {
    pub(crate) fn new(router: Router) -> Self {
        Self(router)
    }

    pub(crate) async fn post(&self, who: &Who, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(who, Method::POST, path, body).await
    }

    pub(crate) async fn put(&self, who: &Who, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(who, Method::PUT, path, body).await
    }

    async fn ask(
        &self,
        who: &Who,
        method: Method,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, format!("Bearer {}", who.key))
            .header("x-loom-org", &who.org)
            .header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string()))?)
            .await
            .with_context(|| format!("{method} {path}"))
    }

    /// An envelope, as an SDK sends it.
    pub(crate) async fn envelope(
        &self,
        project: i64,
        key: &str,
        items: String,
    ) -> anyhow::Result<()> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/api/{project}/envelope/"))
            .header(header::HOST, "localhost")
            .header("x-sentry-auth", format!("Sentry sentry_version=7, sentry_key={key}"))
            .header(header::CONTENT_TYPE, "application/x-sentry-envelope");
        self.send(request.body(Body::from(items))?).await.context("an envelope")?;
        Ok(())
    }

    async fn send(&self, request: Request<Body>) -> anyhow::Result<Value> {
        let answer = self.0.clone().oneshot(request).await?;
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), MOST).await?;
        ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }
}
