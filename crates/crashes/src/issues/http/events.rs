//! Events of issues.

use axum::extract::State;
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::EventId,
    page::{self, PageQuery},
    principal::Scope,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    super::{event::summary, store},
    issue_of,
};
use crate::Crashes;

const EVENTS: &str = "crash_events";

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CrashEventPage)]
pub(crate) struct EventPage {
    /// `id`, `issue_id`, `received_at`, `at`, `level`, `title`, `release`, `environment`, `tags` and others.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Value>,
    /// Null at the end.
    next_cursor: Option<String>,
}

/// The events of an issue, the last received first
#[utoipa::path(get, path = "/api/crash/projects/{project}/issues/{issue}/events", operation_id = "list_crash_issue_events", tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`"), PageQuery),
    responses((status = 200, body = EventPage),
        (status = 400, description = "`invalid_cursor`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_crash_issue_events(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, named)): Path<(String, String)>,
    Query(page): Query<PageQuery>,
) -> Result<Json<EventPage>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let limit = page.limit()?;
    let after = page.after_time(EVENTS)?;
    let project = crashes.project_head(&principal, &project).await?;
    let mut db = crashes.deps.pool.acquire().await?;
    let issue = issue_of(&mut db, &principal, &project, &named).await?;
    let held = store::events::held(&mut db, principal.org, issue.id).await?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found = store::events::list(&mut db, principal.org, &held, after, one_more).await?;
    let (found, next_cursor) =
        page::cut(found, limit, EVENTS, |row| (row.received_at, row.event_id.0));
    let events = found
        .into_iter()
        .map(|mut row| {
            row.issue_id = issue.id;
            Value::Object(summary(&row))
        })
        .collect();
    Ok(Json(EventPage { events, next_cursor }))
}

/// One event of an issue, whole
///
/// What came and what was made of it: exceptions and threads with their frames (with symbols) and raw
/// frames, breadcrumbs, tags, contexts, user, request, release, the session and the thread it belongs to,
/// attachments, the events before and after it. `raw` is the payload as it was stored.
#[utoipa::path(get, path = "/api/crash/projects/{project}/issues/{issue}/events/{event}", operation_id = "get_crash_issue_event", tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`"),
        ("event" = String, Path, description = "`latest`, `oldest`, or an event's id")),
    responses((status = 200, body = Object),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_crash_issue_event(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, named, event)): Path<(String, String, String)>,
) -> Result<Json<Value>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project_head(&principal, &project).await?;
    let mut db = crashes.deps.pool.acquire().await?;
    let issue = issue_of(&mut db, &principal, &project, &named).await?;
    let org = principal.org;
    let id = match event.as_str() {
        "latest" | "oldest" => {
            let held = store::events::held(&mut db, org, issue.id).await?;
            store::events::beside(&mut db, org, &held, None, event == "oldest").await?
        }
        id => id.parse::<EventId>().ok(),
    };
    let id = id.ok_or_else(not_found)?;
    let row = store::events::get(&mut db, org, project.id, id).await?;
    let row = row.filter(|row| row.issue_id == issue.id).ok_or_else(not_found)?;
    drop(db);
    Ok(Json(crashes.whole_event(&principal, &project, &issue, &row).await?))
}

/// One event of a project, whole
///
/// As `GET /api/crash/projects/{project}/issues/{issue}/events/{event}`, when only its id is known.
#[utoipa::path(get, path = "/api/crash/projects/{project}/events/{event}", operation_id = "get_crash_event", tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"),
        ("event" = String, Path, description = "The event's id, with or without dashes")),
    responses((status = 200, body = Object),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_crash_event(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, event)): Path<(String, String)>,
) -> Result<Json<Value>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project_head(&principal, &project).await?;
    let id = event.parse::<EventId>().map_err(|_| not_found())?;
    let mut db = crashes.deps.pool.acquire().await?;
    let row = store::events::get(&mut db, principal.org, project.id, id).await?;
    let row = row.ok_or_else(not_found)?;
    let issue = issue_of(&mut db, &principal, &project, &row.issue_id.to_string()).await;
    let issue = issue.map_err(|_| not_found())?;
    drop(db);
    Ok(Json(crashes.whole_event(&principal, &project, &issue, &row).await?))
}

fn not_found() -> Error {
    Error::not_found("event")
}
