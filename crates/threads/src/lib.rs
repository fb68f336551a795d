//! Agent conversations, stored and synced: whole documents, appended messages, lists.

mod check;
mod diff;
mod draft;
mod git;
mod http;
mod list;
mod message;
mod model;
mod patch;
mod precondition;
mod raw;
mod remote;
mod store;

use axum::{Extension, middleware};
use loom_core::{Clock, extract::BodyLimit, principal};
use sqlx::PgPool;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use draft::{Append, ThreadDraft};
pub use list::ThreadPage;
pub use message::{Message, MessageDraft, Role};
pub use model::{AgentState, AgentStateKind, Client, Git, Thread, ThreadHead, Workspace};
pub use patch::ThreadPatch;
pub use raw::Raw;

/// The largest thread, as a request and in the sum of its messages.
pub(crate) const MAX_THREAD_BYTES: usize = 32 * 1024 * 1024;

/// The feature, as the server holds it.
#[derive(Clone)]
pub struct Threads {
    pool: PgPool,
    clock: Clock,
}

impl Threads {
    pub fn new(pool: PgPool, clock: Clock) -> Self {
        Self { pool, clock }
    }

    /// All routes under `/api/threads`. They need an `Authentication` in each request.
    pub fn routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
            .routes(routes!(http::list::list_threads))
            .routes(routes!(
                http::document::get_thread,
                http::document::put_thread,
                http::change::patch_thread,
                http::change::delete_thread
            ))
            .routes(routes!(http::append::append_messages))
            .route_layer(middleware::from_fn(principal::required))
            .layer(Extension(BodyLimit(MAX_THREAD_BYTES)))
            .with_state(self.clone())
    }
}
