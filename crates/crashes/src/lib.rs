//! Error tracking: projects, events, issues, releases, artifacts.

mod alerts;
mod artifacts;
mod capture;
mod cli;
mod config;
mod directory;
mod event;
mod extras;
mod grouping;
mod health;
mod intake;
mod issues;
mod jobs;
mod minidump;
mod own;
mod pipeline;
mod projects;
mod release;
mod releases;
mod scrub;
mod sinks;
mod symbols;
mod users;

use std::sync::Arc;

use axum::{extract::DefaultBodyLimit, middleware};
use loom_core::{
    Clock,
    group_commit::Writer,
    health::Check,
    port::{
        Audit, IntakeGate, OrgDirectory, Reauthenticate, ReleaseHealth, SessionSink,
        ThreadDirectory,
    },
    principal,
};
use loom_db::{Announcer, Hub};
use loom_notify::Notify;
use loom_symbolication::Symbolicator;
use loom_vault::Vault;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use config::{ArtifactPlace, Config};
pub use directory::Directory;
pub use health::METRICS;
pub use loom_symbolication::METRICS as SYMBOLICATION_METRICS;

/// What replicas tell each other: `projects …` (a project or its keys changed), `artifacts …` (something
/// was uploaded), `stream …` (what watchers are told, as JSON).
pub const CHANNEL: &str = "loom_crashes";

/// What the feature is given.
#[derive(Clone)]
pub struct Deps {
    pub pool: PgPool,
    pub clock: Clock,
    pub hub: Hub,
    pub vault: Arc<Vault>,
    pub notify: Notify,
    pub audit: Arc<dyn Audit>,
    pub orgs: Arc<dyn OrgDirectory>,
    /// Asks again who watches.
    pub who: Arc<dyn Reauthenticate>,
    pub directory: Directory,
    pub sessions: Arc<dyn SessionSink>,
    pub health: Arc<dyn ReleaseHealth>,
    pub threads: Arc<dyn ThreadDirectory>,
    /// What holds for events, whichever way they come in.
    pub gate: Arc<dyn IntakeGate>,
    pub replica: String,
    /// Ends all running streams.
    pub stop: CancellationToken,
}

/// The feature, as the server holds it; cheap to clone.
#[derive(Clone)]
pub struct Crashes(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    deps: Deps,
    config: Config,
    announcer: Announcer,
    artifacts: artifacts::Artifacts,
    /// Gives stacks their symbols; asks `artifacts` for files.
    symbolicator: Symbolicator,
    pub(crate) watchers: issues::Watchers,
    writer: Writer<intake::Intake>,
    pipeline: Arc<pipeline::Pipeline>,
    alerts: alerts::Bell,
}

impl std::ops::Deref for Crashes {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Crashes {
    pub fn new(deps: Deps, config: Config) -> Self {
        let announcer = Announcer::new(deps.pool.clone(), CHANNEL);
        let artifacts = artifacts::Artifacts::new(
            deps.pool.clone(),
            deps.clock.clone(),
            announcer.clone(),
            config.artifacts.clone(),
        );
        let symbolicator =
            Symbolicator::new(Arc::new(artifacts.clone()), config.artifacts.symbolication.clone());
        let watchers = issues::Watchers::new(&deps.stop);
        let pipeline = Arc::new(pipeline::Pipeline::new(config.workers.max(1)));
        let wake = {
            let (pipeline, announcer) = (Arc::clone(&pipeline), announcer.clone());
            move || {
                pipeline.wake();
                announcer.say(pipeline::WORD.to_owned());
            }
        };
        let writer = intake::writer(&deps.pool, Arc::new(wake));
        Self(Arc::new(Inner {
            deps,
            config,
            announcer,
            artifacts,
            symbolicator,
            watchers,
            writer,
            pipeline,
            alerts: alerts::Bell::default(),
        }))
    }

    /// Begins to process what was taken, and to hear other replicas.
    pub fn start(&self) {
        self.announcer.start();
        self.follow_stream();
        self.deps.directory.follow(self.deps.stop.clone());
        artifacts::follow(self);
        self.start_pipeline();
        self.start_alerts();
    }

    /// Projects and their keys.
    pub fn directory(&self) -> Directory {
        self.deps.directory.clone()
    }

    pub fn health(&self) -> Check {
        self.check()
    }

    /// Writes a little where artifacts lie, reads it again and removes it.
    ///
    /// # Errors
    /// What the directory or the bucket said.
    pub async fn try_artifacts(&self) -> Result<(), String> {
        self.artifacts.probe().await
    }

    /// Says good-bye to all who watch.
    pub fn end_streams(&self) {
        self.watchers.leaving.cancel();
    }

    /// Finishes the batch that is being processed.
    pub async fn close(&self) {
        // What is taken is stored; whoever comes next processes it.
        self.writer.close().await;
        self.close_pipeline().await;
        self.announcer.stop().await;
    }

    pub fn jobs(&self) -> Vec<loom_jobs::Job> {
        jobs::all(self)
    }

    /// All native routes. They need an `Authentication` in each request.
    pub fn routes(&self) -> OpenApiRouter {
        // Whoever has the key of a project needs nothing else.
        let capture = OpenApiRouter::new()
            .routes(routes!(capture::capture_crash))
            .routes(routes!(capture::capture_crashes));
        OpenApiRouter::new()
            .routes(routes!(
                projects::http::list_crash_projects,
                projects::http::create_crash_project
            ))
            .routes(routes!(
                projects::http::get_crash_project,
                projects::http::patch_crash_project,
                projects::http::delete_crash_project
            ))
            .routes(routes!(projects::keys::list_crash_keys, projects::keys::create_crash_key))
            .routes(routes!(projects::keys::patch_crash_key, projects::keys::delete_crash_key))
            .routes(routes!(own::get_web_config))
            .routes(routes!(own::get_cli_config))
            .routes(routes!(artifacts::http::list_artifacts))
            .routes(routes!(artifacts::http::reprocess_found))
            .routes(routes!(artifacts::http::get_artifact, artifacts::http::delete_artifact))
            .routes(routes!(
                releases::http::list_crash_releases,
                releases::http::create_crash_release
            ))
            .routes(routes!(
                releases::http::get_crash_release,
                releases::http::patch_crash_release,
                releases::http::delete_crash_release
            ))
            .routes(routes!(
                releases::http::list_release_commits,
                releases::http::put_release_commits
            ))
            .routes(routes!(releases::http::list_deploys, releases::http::create_deploy))
            .routes(routes!(releases::suspects::list_suspects))
            .merge(issues::http::routes())
            .routes(routes!(pipeline::http::list_parked_events))
            .routes(routes!(pipeline::http::retry_parked_events))
            .routes(routes!(pipeline::http::reprocess_issue))
            .routes(routes!(extras::http::list_crash_attachments))
            .routes(routes!(extras::http::get_crash_attachment))
            .routes(routes!(extras::http::list_crash_feedback))
            .routes(routes!(alerts::http::list_crash_alerts, alerts::http::create_crash_alert))
            .routes(routes!(
                alerts::http::get_crash_alert,
                alerts::http::patch_crash_alert,
                alerts::http::delete_crash_alert
            ))
            .routes(routes!(alerts::http::test_crash_alert))
            .routes(routes!(alerts::http::snooze_crash_alert))
            .routes(routes!(alerts::http::list_crash_alert_deliveries))
            .route_layer(middleware::from_fn(principal::required))
            .merge(capture)
            .with_state(self.clone())
    }

    /// The files of projects, as symbolication finds them.
    pub fn files(&self) -> impl loom_symbolication::Files + use<> {
        self.artifacts.clone()
    }

    /// Native routes whose bodies take their time: without the time limit of the others.
    pub fn upload_routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
            .routes(routes!(artifacts::http::upload_artifact))
            .routes(routes!(artifacts::http::download_artifact))
            .layer(DefaultBodyLimit::disable())
            .route_layer(middleware::from_fn(principal::required))
            .with_state(self.clone())
    }
}
