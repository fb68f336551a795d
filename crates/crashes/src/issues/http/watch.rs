//! Issues, followed live.

use axum::{extract::State, response::Response};
use http::request::Parts;
use loom_core::{
    Error, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::ProjectId,
    principal::Scope,
    sse::{self, Leash},
};
use serde_json::json;

use super::super::{
    list::StreamQuery,
    store,
    stream::{self, EVENTS},
};
use crate::Crashes;

/// Follow a project
///
/// Server-sent events: first `init` with the number of open issues, then `crash.new`, `issue.new`,
/// `issue.regressed`, `issue.resolved`, `issue.unresolved`, `issue.ignored`, `issue.assigned`,
/// `issue.priority`, `issue.merged`, `issue.unmerged`, `issue.deleted`, each with the issue it is about.
/// `lagged`: this many were missed; `reset`: some may have been missed - read the list again. `bye` is the
/// last event: after an hour (`max_duration`), when the credential is not good any more (`revoked`), or when
/// the server goes down (`shutdown`).
#[utoipa::path(get, path = "/api/crash/projects/{project}/stream", operation_id = "watch_crash_project", tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), StreamQuery),
    responses((status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`event` names none of these", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_watchers`", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn watch_crash_project(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(project): Path<String>,
    Query(query): Query<StreamQuery>,
    parts: Parts,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project_head(&principal, &project).await?;
    watch(&crashes, &principal, Some(project.id), &query, parts).await
}

/// Follow all projects of your organisation
///
/// As `GET /api/crash/projects/{project}/stream`; each event says its `project_id`.
#[utoipa::path(get, path = "/api/crash/stream", operation_id = "watch_crash_projects", tag = "crashes",
    security(("api_key" = [])), params(StreamQuery),
    responses((status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`event` names none of these", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_watchers`", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn watch_crash_projects(
    State(crashes): State<Crashes>,
    principal: Principal,
    Query(query): Query<StreamQuery>,
    parts: Parts,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    watch(&crashes, &principal, None, &query, parts).await
}

async fn watch(
    crashes: &Crashes,
    principal: &Principal,
    project: Option<ProjectId>,
    query: &StreamQuery,
    parts: Parts,
) -> Result<Response> {
    let events = wanted(query)?;
    let seat = crashes.watchers.seats.sit(principal.holder())?;
    // What happens while the issues are counted is told, too.
    let listening = stream::listen(crashes);
    let open = store::detail::open(&crashes.deps.pool, principal.org, project).await?;
    let init = json!({ "project_id": project, "issue_count": open });
    let org = principal.org;
    let may = move |now: Principal| {
        now.org == org && authorize(&now, Action::Use(Scope::CrashesRead)).is_ok()
    };
    let recheck = sse::recheck(&crashes.deps.who, parts, may);
    let leash = Leash::new(crashes.watchers.leaving.clone(), recheck);
    let scope = stream::Scope { org: principal.org, project, events };
    Ok(sse::raw_response(stream::events(scope, listening, &init, seat, leash)))
}

/// The kinds of events that are asked for.
fn wanted(query: &StreamQuery) -> Result<Option<Vec<&'static str>>> {
    let Some(text) = &query.event else { return Ok(None) };
    let known = |name: &str| EVENTS.into_iter().find(|known| *known == name.trim());
    let events: Option<Vec<_>> = text.split(',').map(known).collect();
    match events {
        Some(events) => Ok(Some(events)),
        None => {
            let message =
                format!("names kinds with commas between; there are {}", EVENTS.join(", "));
            Err(Error::invalid("event", message))
        }
    }
}
