//! Agent conversations, stored and synced: whole documents, appended messages, lists, search.

mod check;
mod config;
mod diff;
mod draft;
mod git;
mod http;
mod jobs;
mod list;
mod message;
mod model;
mod patch;
mod precondition;
mod raw;
mod remote;
mod search;
mod store;

use std::sync::Arc;

use axum::{Extension, middleware};
use loom_core::{
    Clock,
    extract::BodyLimit,
    port::{Audit, OrgDirectory},
    principal,
};
use loom_db::Hub;
use loom_vault::Vault;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use config::Config;
pub use draft::{Append, ThreadDraft};
pub use list::ThreadPage;
pub use message::{Message, MessageDraft, Role};
pub use model::{AgentState, AgentStateKind, Client, Git, Thread, ThreadHead, Workspace};
pub use patch::ThreadPatch;
pub use raw::Raw;
pub use search::{
    page::{Hit, SearchPage},
    rank::{FacetValue, Facets},
};

/// The largest thread, as a request and in the sum of its messages.
pub(crate) const MAX_THREAD_BYTES: usize = 32 * 1024 * 1024;

/// What replicas tell each other: that threads have changed.
pub const CHANNEL: &str = "loom_threads";

/// What the feature is given.
#[derive(Clone)]
pub struct Deps {
    pub pool: PgPool,
    pub clock: Clock,
    pub hub: Hub,
    pub vault: Arc<Vault>,
    pub audit: Arc<dyn Audit>,
    pub orgs: Arc<dyn OrgDirectory>,
    /// Ends all running streams.
    pub stop: CancellationToken,
}

/// The feature, as the server holds it; cheap to clone.
#[derive(Clone)]
pub struct Threads(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    pool: PgPool,
    clock: Clock,
    #[expect(dead_code, reason = "for what follows")]
    hub: Hub,
    #[expect(dead_code, reason = "for what follows")]
    vault: Arc<Vault>,
    #[expect(dead_code, reason = "for what follows")]
    audit: Arc<dyn Audit>,
    #[expect(dead_code, reason = "for what follows")]
    orgs: Arc<dyn OrgDirectory>,
    #[expect(dead_code, reason = "for what follows")]
    stop: CancellationToken,
    /// Lets so many searches in at once.
    searches: Semaphore,
}

impl std::ops::Deref for Threads {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Threads {
    pub fn new(deps: Deps, config: Config) -> Self {
        let Deps { pool, clock, hub, vault, audit, orgs, stop } = deps;
        let searches = config.search.gate();
        Self(Arc::new(Inner { pool, clock, hub, vault, audit, orgs, stop, searches }))
    }

    pub fn jobs(&self) -> Vec<loom_jobs::Job> {
        jobs::all(self)
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
            .routes(routes!(http::search::search_threads))
            .route_layer(middleware::from_fn(principal::required))
            .layer(Extension(BodyLimit(MAX_THREAD_BYTES)))
            .with_state(self.clone())
    }
}

/// What the index of the search holds of a message's text: the load bench fills tables with it.
#[doc(hidden)]
pub fn indexed(role: Role, content: &Raw) -> (String, Option<String>) {
    let prepared =
        search::lexemes::of_text(role, &search::content::of_message(content, None, None));
    (prepared.tsv, prepared.names)
}
