//! Cron monitoring: monitors, pings and check-ins, missed and overlong runs, incidents.

mod alerts;
mod badge;
mod config;
mod draft;
mod engine;
mod health;
mod http;
mod jobs;
mod judge;
mod model;
mod monitors;
mod mute;
mod own;
mod ping;
mod presence;
mod report;
mod schedule;
mod sink;
mod store;
mod stream;
mod sweep;
mod work;

use std::sync::{Arc, OnceLock};

use axum::{Router, middleware};
use loom_core::{
    Clock, Error, Result,
    group_commit::{Limits, Writer},
    health::Check,
    port::{
        Audit, CrashDirectory, EventSink, OrgDirectory, ProjectDirectory, Reauthenticate,
        ThreadDirectory,
    },
    principal,
    sse::Seats,
};
use loom_db::{Announcer, Hub, Signal};
use loom_notify::Notify;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use config::Config;
pub use health::METRICS;
pub use schedule::{Schedule, Unit};

/// What replicas tell each other: `stream …` (what watchers are told, as JSON), and `monitor <id>` or
/// `monitor all`, of which everybody forgets what they have.
pub const CHANNEL: &str = "loom_crons";

/// What the feature is given.
#[derive(Clone)]
pub struct Deps {
    pub pool: PgPool,
    pub clock: Clock,
    pub hub: Hub,
    pub notify: Notify,
    pub audit: Arc<dyn Audit>,
    pub orgs: Arc<dyn OrgDirectory>,
    /// Asks again who watches.
    pub who: Arc<dyn Reauthenticate>,
    pub projects: Arc<dyn ProjectDirectory>,
    pub crashes: Arc<dyn CrashDirectory>,
    pub events: Arc<dyn EventSink>,
    pub threads: Arc<dyn ThreadDirectory>,
    /// Ends all running streams.
    pub stop: CancellationToken,
}

/// The feature, as the server holds it; cheap to clone.
#[derive(Clone)]
pub struct Crons(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    deps: Deps,
    config: Config,
    engine: Arc<engine::Engine>,
    writer: OnceLock<Writer<report::Report>>,
    own: own::OwnRuns,
    seats: Seats,
    badges: badge::Badges,
    leaving: CancellationToken,
    /// Nothing more is taken.
    gone: CancellationToken,
}

impl std::ops::Deref for Crons {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Crons {
    pub fn new(deps: Deps, config: Config) -> Self {
        let announcer = Announcer::new(deps.pool.clone(), CHANNEL);
        let engine = engine::Engine::new(&deps, announcer, config.base_url.clone());
        let leaving = deps.stop.child_token();
        Self(Arc::new(Inner {
            deps,
            config,
            engine: Arc::new(engine),
            writer: OnceLock::new(),
            own: own::OwnRuns::default(),
            seats: Seats::new(stream::PLACES),
            badges: badge::Badges::new(),
            leaving,
            gone: CancellationToken::new(),
        }))
    }

    /// Begins to take reports, and to hear what other replicas say of monitors.
    pub fn start(&self) {
        self.engine.announcer.start();
        let (engine, gone) = (Arc::clone(&self.engine), self.gone.clone());
        tokio::spawn(async move { engine.keep_beating(gone).await });
        let engine = Arc::clone(&self.engine);
        let writer = Writer::start("crons", Limits::default(), move |batch| {
            let engine = Arc::clone(&engine);
            async move { engine.write(&batch).await }
        });
        let _ = self.writer.set(writer);
        self.follow();
        self.take_own_runs();
    }

    /// Forgets what another replica says has changed, until the server stops.
    fn follow(&self) {
        let crons = self.clone();
        let mut said = self.deps.hub.subscribe(CHANNEL);
        tokio::spawn(async move {
            loop {
                let signal = tokio::select! {
                    () = crons.leaving.cancelled() => return,
                    signal = said.next() => signal,
                };
                match signal {
                    Some(Signal::Said(word)) => {
                        if let Some(whose) = word.strip_prefix(engine::CHANGED) {
                            crons.engine.forget(whose.parse().ok()).await;
                        }
                    }
                    Some(Signal::ReadAgain) => crons.engine.forget(None).await,
                    None => return,
                }
            }
        });
    }

    fn writer(&self) -> Result<&Writer<report::Report>> {
        self.writer.get().ok_or_else(|| Error::unavailable("the server is not ready yet"))
    }

    pub fn health(&self) -> Check {
        health::check(self)
    }

    /// Says good-bye to all who watch.
    pub fn end_streams(&self) {
        self.leaving.cancel();
    }

    pub async fn close(&self) {
        self.leaving.cancel();
        self.gone.cancel();
        self.own.close().await;
        if let Some(writer) = self.writer.get() {
            writer.close().await;
        }
        self.engine.announcer.stop().await;
    }

    pub fn jobs(&self) -> Vec<loom_jobs::Job> {
        jobs::all(self)
    }

    /// What the jobs `cron-missed` and `cron-timeout` do, outside their schedule: for the load bench.
    #[doc(hidden)]
    pub async fn sweep(&self) -> Result<u64> {
        let cancel = CancellationToken::new();
        let missed = self.engine.find_missed(&cancel).await?;
        Ok(missed + self.engine.find_timeouts(&cancel).await?)
    }

    /// All native routes. They need an `Authentication` in each request.
    pub fn routes(&self) -> OpenApiRouter {
        // What anybody may see: figures of a schedule, and a badge by its key.
        let public = OpenApiRouter::new()
            .routes(routes!(http::preview::preview_schedule))
            .routes(routes!(http::figures::get_badge));
        OpenApiRouter::new()
            .routes(routes!(http::monitors::list_monitors, http::monitors::create_monitor))
            .routes(routes!(
                http::monitors::get_monitor,
                http::monitors::patch_monitor,
                http::monitors::delete_monitor
            ))
            .routes(routes!(http::monitors::pause_monitor))
            .routes(routes!(http::monitors::resume_monitor))
            .routes(routes!(http::monitors::rotate_ping_key))
            .routes(routes!(http::alerts::get_alerts, http::alerts::put_alerts))
            .routes(routes!(http::checkins::list_checkins, http::checkins::create_checkin))
            .routes(routes!(http::checkins::get_checkin, http::checkins::patch_checkin))
            .routes(routes!(http::figures::get_stats))
            .routes(routes!(http::figures::get_calendar))
            .routes(routes!(http::figures::list_incidents))
            .routes(routes!(http::figures::get_overview))
            .routes(routes!(http::watch::watch_monitors))
            .routes(routes!(http::keys::list_ping_keys, http::keys::create_ping_key))
            .routes(routes!(http::keys::delete_ping_key))
            .routes(routes!(http::sentry::list_sentry_monitors))
            .route_layer(middleware::from_fn(principal::required))
            .merge(public)
            .with_state(self.clone())
    }

    /// `/ping/…`: the key is the secret; any origin, any method, answers in the surface's own shape.
    pub fn ping_routes(&self) -> Router {
        ping::routes(self)
    }
}
