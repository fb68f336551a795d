//! Check-ins in our own words.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use http::StatusCode;
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    error::Problem,
    id::{CheckInId, EventId, IssueId, ProjectId},
    page::{self, PageQuery},
    port::ThreadRef,
    text::is_plain_line,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{find, reads, writes};
use crate::{
    Crons,
    draft::is_environment,
    model::{CheckIn, DEFAULT_ENVIRONMENT, Source, Status},
    ping,
    report::{Kind, Report, RunKey, believable},
    store::{self, checkins::Filter},
};

/// More than a year is no run.
const LONGEST_MS: i64 = 366 * 86_400_000;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CheckInQuery {
    environment: Option<String>,
    #[param(inline)]
    status: Option<Status>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CheckInPage {
    checkins: Vec<CheckIn>,
    /// Null at the end.
    next_cursor: Option<String>,
}

/// List the check-ins of a monitor, the newest first
#[utoipa::path(
    get,
    path = "/api/crons/monitors/{slug}/checkins",
    operation_id = "list_checkins",
    tag = "crons",
    params(("slug" = String, Path), PageQuery, CheckInQuery),
    responses(
        (status = 200, body = CheckInPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn list_checkins(
    State(crons): State<Crons>,
    principal: Principal,
    Path(slug): Path<String>,
    Query(page): Query<PageQuery>,
    Query(query): Query<CheckInQuery>,
) -> Result<Json<CheckInPage>> {
    reads(&principal)?;
    let mut db = crons.deps.pool.acquire().await?;
    let monitor = find(&mut db, &principal, &slug).await?;
    let kind = format!("checkins:{}:{:?}:{:?}", monitor.id, query.environment, query.status);
    let limit = page.limit()?;
    let after = page.after_time(&kind)?;
    let filter = Filter { environment: query.environment, status: query.status };
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found =
        store::checkins::list(&mut db, principal.org, monitor.id, &filter, after, one_more).await?;
    let (checkins, next_cursor) = page::cut(found, limit, &kind, |one| (one.at, one.id.0));
    Ok(Json(CheckInPage { checkins, next_cursor }))
}

/// What a job may say of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    InProgress,
    Ok,
    Error,
}

impl Said {
    fn kind(self) -> Kind {
        match self {
            Self::InProgress => Kind::Start,
            Self::Ok => Kind::End { ok: true },
            Self::Error => Kind::End { ok: false },
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewCheckIn {
    /// Of the run, made by the job: what is told of it again, or later, is then known to be of it.
    id: Option<Uuid>,
    status: Said,
    /// `production` when absent.
    environment: Option<String>,
    /// When this happened; now when absent. At most 30 days ago.
    at: Option<DateTime<Utc>>,
    #[serde(flatten)]
    facts: Facts,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CheckInPatch {
    /// `in_progress` again is a sign of life: the run gets its whole time anew.
    status: Said,
    /// When this happened; now when absent. At most 30 days ago.
    at: Option<DateTime<Utc>>,
    #[serde(flatten)]
    facts: Facts,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Facts {
    duration_ms: Option<i64>,
    /// 0 to 255.
    exit_code: Option<u8>,
    /// Cut to the limit; secrets are masked.
    output: Option<String>,
    release: Option<String>,
    /// 32 hexadecimal digits: errors and threads of the same run are found by it.
    trace_id: Option<String>,
}

impl Facts {
    fn check(&self) -> Result<()> {
        if self.duration_ms.is_some_and(|ms| !(0..=LONGEST_MS).contains(&ms)) {
            return Err(Error::invalid("duration_ms", format!("is 0 to {LONGEST_MS}")));
        }
        if self.release.as_ref().is_some_and(|release| !is_plain_line(release, 250)) {
            return Err(Error::invalid("release", "is one line of 1 to 250 bytes"));
        }
        let is_trace =
            |text: &String| text.len() == 32 && text.bytes().all(|c| c.is_ascii_hexdigit());
        if self.trace_id.as_ref().is_some_and(|text| !is_trace(text)) {
            return Err(Error::invalid("trace_id", "is 32 hexadecimal digits"));
        }
        Ok(())
    }

    fn put_into(self, report: &mut Report, limit: usize) {
        report.exit_code = self.exit_code.map(i16::from);
        report.output = self.output.as_deref().and_then(|text| ping::output(text, limit));
        report.release = self.release;
        report.trace_id = self.trace_id.map(|text| text.to_ascii_lowercase());
    }
}

fn placed(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    at.map_or(Ok(now), |at| believable(at, now).map_err(|why| Error::invalid("at", why)))
}

/// Check in
///
/// A run begins (`in_progress`) or has ended (`ok`, `error`). The same `id` told twice changes nothing.
#[utoipa::path(
    post,
    path = "/api/crons/monitors/{slug}/checkins",
    operation_id = "create_checkin",
    tag = "crons",
    params(("slug" = String, Path)),
    request_body = NewCheckIn,
    responses(
        (status = 201, body = CheckIn),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`overloaded`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn create_checkin(
    State(crons): State<Crons>,
    principal: Principal,
    Path(slug): Path<String>,
    Json(new): Json<NewCheckIn>,
) -> Result<Response> {
    writes(&principal)?;
    let now = crons.deps.clock.now();
    new.facts.check()?;
    let at = placed(new.at, now)?;
    let environment = new.environment.unwrap_or_else(|| DEFAULT_ENVIRONMENT.to_owned());
    if !is_environment(&environment) {
        return Err(Error::invalid("environment", "is one line of 1 to 64 bytes without a slash"));
    }
    let monitor = crons.engine.by_slug(principal.org, &slug).await?;
    let monitor = monitor.ok_or_else(super::not_found)?;
    let key = match new.id {
        Some(id) => RunKey::Given(id),
        // One of its own: whoever wants to go on with it has the id of the answer.
        None => RunKey::Given(loom_core::id::new_uuid(now)),
    };
    let mut report = Report::new(
        monitor,
        environment,
        (key, new.status.kind()),
        at,
        new.facts.duration_ms,
        now,
        Source::Api,
    );
    new.facts.put_into(&mut report, crons.config.body_limit);
    let applied = crons.submit(report).await?;
    let checkin = shown(&crons, &principal, applied.id).await?;
    let location = format!("/api/crons/checkins/{}", checkin.id);
    Ok((StatusCode::CREATED, [(http::header::LOCATION, location)], Json(checkin)).into_response())
}

async fn shown(crons: &Crons, principal: &Principal, id: CheckInId) -> Result<CheckIn> {
    let mut db = crons.deps.pool.acquire().await?;
    let found = store::checkins::find(&mut db, principal.org, id).await?;
    found.ok_or_else(|| Error::not_found("check-in"))
}

/// Go on with a check-in, or end it
#[utoipa::path(
    patch,
    path = "/api/crons/checkins/{id}",
    operation_id = "patch_checkin",
    tag = "crons",
    params(("id" = CheckInId, Path)),
    request_body = CheckInPatch,
    responses(
        (status = 200, body = CheckIn),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`not_in_progress`", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`overloaded`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn patch_checkin(
    State(crons): State<Crons>,
    principal: Principal,
    Path(id): Path<CheckInId>,
    Json(patch): Json<CheckInPatch>,
) -> Result<Json<CheckIn>> {
    writes(&principal)?;
    let now = crons.deps.clock.now();
    patch.facts.check()?;
    let at = placed(patch.at, now)?;
    let mut db = crons.deps.pool.acquire().await?;
    let found = store::checkins::find(&mut db, principal.org, id).await?;
    let found = found.ok_or_else(|| Error::not_found("check-in"))?;
    let monitors = store::monitors::by_ids(&mut db, &[found.monitor_id.0]).await?;
    drop(db);
    let monitor = monitors.into_iter().find(|monitor| monitor.org == principal.org);
    let monitor = monitor.ok_or_else(super::not_found)?;
    let Some(key) = found.run_id else {
        return Err(Error::conflict(
            "not_in_progress",
            "this check-in was over when it came; nothing can be added to it",
        ));
    };
    let mut report = Report::new(
        monitor.into(),
        found.environment,
        (RunKey::Given(key), patch.status.kind()),
        at,
        patch.facts.duration_ms,
        now,
        Source::Api,
    );
    patch.facts.put_into(&mut report, crons.config.body_limit);
    crons.submit(report).await?;
    shown(&crons, &principal, id).await.map(Json)
}

/// An event of the same run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RelatedEvent {
    project_id: ProjectId,
    event_id: EventId,
    issue_id: IssueId,
    short_id: String,
    title: String,
    #[serde(serialize_with = "loom_core::clock::millis")]
    at: DateTime<Utc>,
}

/// A thread of the same run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RelatedThread {
    id: loom_core::id::ThreadId,
    title: Option<String>,
}

impl From<ThreadRef> for RelatedThread {
    fn from(thread: ThreadRef) -> Self {
        Self { id: thread.id, title: thread.title }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CheckInDetail {
    #[serde(flatten)]
    checkin: CheckIn,
    /// Errors with the same trace id; only for `crashes:read`.
    events: Vec<RelatedEvent>,
    /// Threads with the same trace id that you may see; only for `threads:read`.
    threads: Vec<RelatedThread>,
}

/// Read a check-in, with what happened in the same run
#[utoipa::path(
    get,
    path = "/api/crons/checkins/{id}",
    operation_id = "get_checkin",
    tag = "crons",
    params(("id" = CheckInId, Path)),
    responses(
        (status = 200, body = CheckInDetail),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn get_checkin(
    State(crons): State<Crons>,
    principal: Principal,
    Path(id): Path<CheckInId>,
) -> Result<Json<CheckInDetail>> {
    use loom_core::principal::Scope;
    reads(&principal)?;
    let checkin = shown(&crons, &principal, id).await?;
    let (mut events, mut threads) = (Vec::new(), Vec::new());
    if let Some(trace) = &checkin.trace_id {
        if principal.scopes.contains(Scope::CrashesRead) {
            events = crons.deps.crashes.of_trace(principal.org, trace).await?;
        }
        if principal.scopes.contains(Scope::ThreadsRead) {
            threads = crons.deps.threads.of_trace(&principal, trace).await?;
        }
    }
    let events = events.into_iter().map(|event| RelatedEvent {
        project_id: event.project,
        event_id: event.event,
        issue_id: event.issue,
        short_id: event.short_id,
        title: event.title,
        at: event.at,
    });
    Ok(Json(CheckInDetail {
        checkin,
        events: events.collect(),
        threads: threads.into_iter().map(RelatedThread::from).collect(),
    }))
}
