//! What cannot be processed, and processing once more.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use http::StatusCode;
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::EventId,
    page::{PageQuery, cut},
    principal::{RequestInfo, Scope},
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::requeue;
use crate::Crashes;

const LIST: &str = "crash_parked";

/// An event that could not be processed, and is put aside.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ParkedEvent {
    #[serde(skip)]
    #[schema(ignore)]
    pub queue_id: i64,
    pub event_id: EventId,
    /// Why.
    pub reason: String,
    /// How often it was tried.
    pub attempts: i32,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub received_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub parked_at: DateTime<Utc>,
}

/// Those that came last first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ParkedPage {
    pub events: Vec<ParkedEvent>,
    /// Null at the end.
    pub next_cursor: Option<String>,
}

/// How many events are to be processed again.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Requeued {
    pub events: u64,
}

/// Events of a project that cannot be processed
#[utoipa::path(get, path = "/api/crash/projects/{project}/parked", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), PageQuery),
    responses((status = 200, body = ParkedPage),
        (status = 400, description = "`invalid_cursor`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_parked_events(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(named): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ParkedPage>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let limit = page.limit()?;
    let after: Option<i64> = page.after(LIST)?;
    let project = crashes.project(&principal, &named).await?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found =
        requeue::parked(&crashes.deps.pool, principal.org, project.id, after, one_more).await?;
    let (events, next_cursor) = cut(found, limit, LIST, |event| event.queue_id);
    Ok(Json(ParkedPage { events, next_cursor }))
}

/// Try all events of a project again that could not be processed
#[utoipa::path(post, path = "/api/crash/projects/{project}/parked/retry", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug")),
    responses((status = 202, body = Requeued),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn retry_parked_events(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path(named): Path<String>,
) -> Result<Response> {
    authorize(&principal, Action::ManageOrg(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    let events = requeue::retry(&crashes.deps.pool, principal.org, project.id).await?;
    crashes.wake_all();
    let details = json!({"events": events});
    let target = project.id.to_string();
    crashes
        .deps
        .audit
        .done(&principal, &info, "crash_project.retry_parked", target, details)
        .await?;
    Ok((StatusCode::ACCEPTED, Json(Requeued { events })).into_response())
}

/// Process the events of an issue once more
///
/// With the rules and the files of now: symbols that were uploaded since, rules of grouping that have changed. The newest 10,000.
#[utoipa::path(post, path = "/api/crash/projects/{project}/issues/{issue}/reprocess", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("issue" = String, Path, description = "Id or short id")),
    responses((status = 202, body = Requeued),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn reprocess_issue(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((named, issue)): Path<(String, String)>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    let found = requeue::find_issue(&crashes.deps.pool, principal.org, project.id, &issue).await?;
    let issue = found.ok_or_else(|| Error::not_found("issue"))?;
    let events = requeue::issues(&crashes.deps.pool, principal.org, project.id, &[issue]).await?;
    crashes.wake_all();
    Ok((StatusCode::ACCEPTED, Json(Requeued { events })).into_response())
}

impl Crashes {
    /// Something was put into the queue.
    pub(crate) fn wake_all(&self) {
        self.pipeline.wake();
        self.announcer.say(super::WORD.to_owned());
    }
}
