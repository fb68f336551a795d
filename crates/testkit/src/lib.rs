//! Test support: databases, a running server, a scriptable LLM upstream, a mail server, a receiver of
//! webhooks, a cluster, chaos.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test support"
)]

pub mod app;
mod background;
pub mod browser;
pub mod chaos;
pub mod chromium;
pub mod database;
pub mod google;
pub mod idp;
pub mod kubernetes;
pub mod llm;
pub mod sdk;
pub mod smtp;
pub mod sync;
pub mod webhook;

pub use app::{Answer, Caller, Setup, TestApp, User};
pub use database::TestDatabase;
pub use loom_server::app::Running;

/// Asks again until there is an answer; gives up, loudly, after half a minute. For what becomes true by
/// itself behind the API, where there is nothing to wait on.
pub async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "this did not become true within 30 s");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
