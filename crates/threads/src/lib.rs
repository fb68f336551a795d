//! Agent conversations, stored and synced: whole documents, appended messages, lists, search.

mod cache;
mod check;
mod config;
mod diff;
mod directory;
mod draft;
mod feed;
mod git;
mod http;
mod jobs;
mod list;
mod live;
mod message;
mod model;
mod patch;
mod precondition;
mod raw;
mod redaction;
mod remote;
mod search;
mod settings;
mod share;
mod share_page;
mod store;
mod text;
mod transfer;

use std::sync::Arc;

use axum::{Extension, middleware};
use loom_core::{
    Clock,
    extract::BodyLimit,
    health::Check,
    port::{Audit, OrgDirectory, Reauthenticate},
    principal,
};
use loom_db::Hub;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use config::Config;
pub use draft::{Append, ThreadDraft};
pub use feed::METRICS;
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
    pub audit: Arc<dyn Audit>,
    pub orgs: Arc<dyn OrgDirectory>,
    /// Asks again who follows a thread.
    pub who: Arc<dyn Reauthenticate>,
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
    hub: Hub,
    audit: Arc<dyn Audit>,
    orgs: Arc<dyn OrgDirectory>,
    who: Arc<dyn Reauthenticate>,
    feed: feed::Feed,
    live: live::Live,
    cache: cache::ThreadCache,
    config: Config,
    settings: settings::Settings,
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
        let Deps { pool, clock, hub, audit, orgs, who, stop } = deps;
        let feed = feed::Feed::new(pool.clone(), hub.clone(), stop);
        let cache = cache::ThreadCache::new(config.cache_bytes);
        let live = live::Live::default();
        let settings = settings::Settings::default();
        let searches = config.search.clone().gate();
        Self(Arc::new(Inner {
            pool,
            clock,
            hub,
            audit,
            orgs,
            who,
            feed,
            live,
            cache,
            config,
            settings,
            searches,
        }))
    }

    /// Begins to tell what happens to threads, to store texts while they are written, and to hear what
    /// other replicas say of settings.
    pub fn start(&self) {
        self.feed.start();
        self.follow_settings();
        let threads = self.clone();
        tokio::spawn(async move { threads.keep_storing().await });
    }

    /// Are those who follow threads told in time?
    pub fn health(&self) -> Check {
        self.feed.health()
    }

    /// Says good-bye to all who follow threads. They would hold up the end of the server.
    pub fn end_streams(&self) {
        self.feed.leaving.cancel();
    }

    /// Stores what is still being written.
    pub async fn close(&self) {
        self.store_texts().await;
    }

    pub fn jobs(&self) -> Vec<loom_jobs::Job> {
        jobs::all(self)
    }

    /// All routes under `/api/threads`. They need an `Authentication` in each request.
    pub fn routes(&self) -> OpenApiRouter {
        // Who has the link needs nothing else.
        let public = OpenApiRouter::new().routes(routes!(http::share::get_shared_thread));
        OpenApiRouter::new()
            .routes(routes!(http::list::list_threads))
            .routes(routes!(
                http::document::get_thread,
                http::document::put_thread,
                http::change::patch_thread,
                http::change::delete_thread
            ))
            .routes(routes!(http::append::append_messages))
            .routes(routes!(http::message::get_message))
            .routes(routes!(http::live::write_delta))
            .routes(routes!(http::lease::lease_thread, http::lease::release_thread))
            .routes(routes!(http::events::watch_threads))
            .routes(routes!(http::events::watch_thread))
            .routes(routes!(http::change::restore_thread))
            .routes(routes!(
                http::share::preview_share,
                http::share::share_thread,
                http::share::unshare_thread
            ))
            .routes(routes!(
                http::settings::get_thread_settings,
                http::settings::put_thread_settings
            ))
            .routes(routes!(http::transfer::export_thread))
            .routes(routes!(http::transfer::import_threads))
            .routes(routes!(http::search::search_threads))
            .route_layer(middleware::from_fn(principal::required))
            .merge(public)
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
