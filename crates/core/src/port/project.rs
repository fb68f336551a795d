//! Projects, releases and threads, as features that do not own them see them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use super::BoxFuture;
use crate::{
    Principal, Result,
    id::{EventId, IssueId, OrgId, ProjectId, ProjectKeyId, ThreadId},
};

/// What events, sessions and check-ins belong to.
#[derive(Clone, Debug)]
pub struct Project {
    pub id: ProjectId,
    /// The number in its DSN.
    pub number: i64,
    pub org: OrgId,
    pub slug: String,
    pub name: String,
    /// Origins whose pages may send; `*` is all.
    pub allowed_origins: Vec<String>,
}

/// So many in each window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub count: u32,
    pub window: Duration,
}

/// A key that applications send with.
#[derive(Clone, Debug)]
pub struct DsnKey {
    pub id: ProjectKeyId,
    pub project: Arc<Project>,
    pub enabled: bool,
    pub limit: Option<RateLimit>,
}

/// Projects and their keys. Implemented by `crashes`, used by `ingest`, `crons`, `sessions`.
pub trait ProjectDirectory: Send + Sync {
    /// Whose key this is (32 hexadecimal digits). Kept in memory, changes are heard of through NOTIFY:
    /// meant for each request of an application.
    fn by_key<'a>(&'a self, public_key: &'a str) -> BoxFuture<'a, Result<Option<Arc<DsnKey>>>>;

    /// The project of an organisation by id, number or slug. None also for one of another organisation.
    fn find<'a>(
        &'a self,
        org: OrgId,
        project: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<Project>>>>;
}

/// What is known of a release beside its sessions.
#[derive(Clone, Debug, Default)]
pub struct ReleaseFacts {
    pub first_event: Option<DateTime<Utc>>,
    pub last_event: Option<DateTime<Utc>>,
    pub released_at: Option<DateTime<Utc>>,
    pub events: i64,
    /// Issues first seen in it, back in it, and resolved in it.
    pub new_issues: i64,
    pub regressed_issues: i64,
    pub resolved_issues: i64,
    /// Environment and time, newest first; at most 100.
    pub deploys: Vec<(String, DateTime<Utc>)>,
    /// SHAs, newest first; at most 1,000.
    pub commits: Vec<String>,
}

/// An event that carries a trace id.
#[derive(Clone, Debug)]
pub struct TracedEvent {
    pub project: ProjectId,
    pub event: EventId,
    pub issue: IssueId,
    /// As `PROJ-123`.
    pub short_id: String,
    pub title: String,
    pub at: DateTime<Utc>,
}

/// Issues, releases and events. Implemented by `crashes`, used by `sessions` and `crons`.
pub trait CrashDirectory: Send + Sync {
    /// Facts of releases of a project, by version, in one query for all; those that nobody knows are
    /// absent. Commits and deploys are there when one version is asked for.
    fn releases<'a>(
        &'a self,
        project: &'a Project,
        versions: &'a [String],
    ) -> BoxFuture<'a, Result<HashMap<String, ReleaseFacts>>>;

    /// Events of a trace (32 hexadecimal digits) in an organisation, newest first; at most 100.
    fn of_trace<'a>(
        &'a self,
        org: OrgId,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Vec<TracedEvent>>>;
}

/// How a release does.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReleaseRates {
    pub sessions: i64,
    pub users: i64,
    /// Per cent; none without data.
    pub crash_free_sessions: Option<f64>,
    pub crash_free_users: Option<f64>,
    /// Share of the project's sessions in the last 24 hours, per cent.
    pub adoption: Option<f64>,
}

/// Rates of releases. Implemented by `sessions`, used by `crashes`.
pub trait ReleaseHealth: Send + Sync {
    /// Of releases by version, in one query for all; over the time that aggregates are kept.
    fn rates<'a>(
        &'a self,
        project: &'a Project,
        versions: &'a [String],
    ) -> BoxFuture<'a, Result<HashMap<String, ReleaseRates>>>;

    /// Sessions of a project that began in a time, in one environment or all.
    fn sessions<'a>(
        &'a self,
        project: &'a Project,
        environment: Option<&'a str>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<i64>>;
}

/// A thread that somebody may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadRef {
    pub id: ThreadId,
    pub title: Option<String>,
}

/// Threads by what happened in them; only those that the viewer may see. Implemented by `threads`, used
/// by `crashes`, `sessions`, `crons`.
pub trait ThreadDirectory: Send + Sync {
    /// By full SHA of commits; at most 10 threads for each, those with the newest activity.
    fn with_commits<'a>(
        &'a self,
        viewer: &'a Principal,
        commits: &'a [String],
    ) -> BoxFuture<'a, Result<HashMap<String, Vec<ThreadRef>>>>;

    /// Those whose `extra.trace_id` it is; at most 10.
    fn of_trace<'a>(
        &'a self,
        viewer: &'a Principal,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ThreadRef>>>;

    /// Those of these ids that are there, in no order.
    fn by_ids<'a>(
        &'a self,
        viewer: &'a Principal,
        ids: &'a [ThreadId],
    ) -> BoxFuture<'a, Result<Vec<ThreadRef>>>;
}
