//! What people do with one issue.

use axum::extract::State;
use http::StatusCode;
use loom_core::{
    Error, Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    extract::{Body, parse_json},
    principal::{RequestInfo, Scope},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use utoipa::ToSchema;

use super::super::{
    actions::{Assign, Change, Ignore, Resolve},
    activity,
    model::{Issue, Priority, ProjectHead},
    store,
};
use crate::Crashes;

const LONGEST_COMMENT: usize = 10_000;

/// Changes that a patch makes; what is absent stays.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct IssuePatch {
    priority: Option<Priority>,
}

#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = IssueComment)]
pub(crate) struct Comment {
    /// 1 to 10,000 bytes.
    text: String,
}

/// What is to be done, as it was asked for: some of it must be looked up.
enum Wish {
    Resolve(Resolve),
    Assign(Assign),
    Ready(Change),
}

/// No body says nothing more.
fn parse_or_default<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T> {
    if body.is_empty() { Ok(T::default()) } else { parse_json(body) }
}

async fn act(
    crashes: &Crashes,
    principal: &Principal,
    project: &str,
    named: &str,
    wish: Wish,
) -> Result<(ProjectHead, Issue)> {
    authorize(principal, Action::Use(Scope::CrashesWrite))?;
    let project = crashes.project_head(principal, project).await?;
    let mut tx = loom_db::begin(&crashes.deps.pool).await?;
    let issue = crashes.lock_issue(&mut tx, principal.org, &project, named).await?;
    let change = match wish {
        Wish::Resolve(resolve) => {
            crashes.resolution(&mut tx, principal.org, &project, &resolve).await?
        }
        Wish::Assign(assign) => crashes.assignment(&mut tx, principal, &assign).await?,
        Wish::Ready(change) => change,
    };
    let issues = [issue];
    crashes.change(&mut tx, principal, &project, &issues, &change).await?;
    let [issue] = issues;
    let after = store::find(&mut tx, principal.org, &project, &issue.id.to_string(), false).await?;
    tx.commit().await?;
    let issue = after.unwrap_or(issue);
    crashes.tell_change(principal, &project, std::slice::from_ref(&issue), &change);
    Ok((project, issue))
}

/// Resolve an issue
///
/// An event brings it back as `regressed`, unless its release is older than the one it is resolved in.
#[utoipa::path(post, path = "/api/crash/projects/{project}/issues/{issue}/resolve", operation_id = "resolve_crash_issue", tag = "crashes",
    security(("api_key" = [])), request_body = Resolve,
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`")),
    responses((status = 200, body = Issue),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`issue_merged`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn resolve_crash_issue(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, issue)): Path<(String, String)>,
    Body(body): Body,
) -> Result<Json<Issue>> {
    let resolve = parse_or_default(&body)?;
    let (_, issue) = act(&crashes, &principal, &project, &issue, Wish::Resolve(resolve)).await?;
    Ok(Json(issue))
}

/// Open an issue again that was resolved or ignored
#[utoipa::path(post, path = "/api/crash/projects/{project}/issues/{issue}/unresolve", operation_id = "unresolve_crash_issue", tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`")),
    responses((status = 200, body = Issue),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`issue_merged`", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn unresolve_crash_issue(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, issue)): Path<(String, String)>,
) -> Result<Json<Issue>> {
    let wish = Wish::Ready(Change::Unresolve);
    let (_, issue) = act(&crashes, &principal, &project, &issue, wish).await?;
    Ok(Json(issue))
}

/// Ignore an issue, until a time or for ever
///
/// Its events are counted all the same; nobody is told of them.
#[utoipa::path(post, path = "/api/crash/projects/{project}/issues/{issue}/ignore", operation_id = "ignore_crash_issue", tag = "crashes",
    security(("api_key" = [])), request_body = Ignore,
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`")),
    responses((status = 200, body = Issue),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`issue_merged`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn ignore_crash_issue(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, issue)): Path<(String, String)>,
    Body(body): Body,
) -> Result<Json<Issue>> {
    authorize(&principal, Action::Use(Scope::CrashesWrite))?;
    let ignore: Ignore = parse_or_default(&body)?;
    let wish = Wish::Ready(crashes.ignoring(&ignore)?);
    let (_, issue) = act(&crashes, &principal, &project, &issue, wish).await?;
    Ok(Json(issue))
}

/// Say who looks after an issue
#[utoipa::path(post, path = "/api/crash/projects/{project}/issues/{issue}/assign", operation_id = "assign_crash_issue", tag = "crashes",
    security(("api_key" = [])), request_body = Assign,
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`")),
    responses((status = 200, body = Issue),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`issue_merged`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "No member of the organisation", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn assign_crash_issue(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, issue)): Path<(String, String)>,
    Json(assign): Json<Assign>,
) -> Result<Json<Issue>> {
    let (_, issue) = act(&crashes, &principal, &project, &issue, Wish::Assign(assign)).await?;
    Ok(Json(issue))
}

/// Change the priority of an issue
#[utoipa::path(patch, path = "/api/crash/projects/{project}/issues/{issue}", operation_id = "patch_crash_issue", tag = "crashes",
    security(("api_key" = [])), request_body = IssuePatch,
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`")),
    responses((status = 200, body = Issue),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`issue_merged`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn patch_crash_issue(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, issue)): Path<(String, String)>,
    Json(patch): Json<IssuePatch>,
) -> Result<Json<Issue>> {
    authorize(&principal, Action::Use(Scope::CrashesWrite))?;
    let Some(priority) = patch.priority else {
        return Err(Error::invalid("priority", "is `high`, `medium` or `low`"));
    };
    let wish = Wish::Ready(Change::Prioritise(priority));
    let (_, issue) = act(&crashes, &principal, &project, &issue, wish).await?;
    Ok(Json(issue))
}

/// Delete an issue with its events and what was merged into it
///
/// It is gone at once, its events soon after. A new event of its kind makes a new issue.
#[utoipa::path(delete, path = "/api/crash/projects/{project}/issues/{issue}", operation_id = "delete_crash_issue", tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`")),
    responses((status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`issue_merged`", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn delete_crash_issue(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path((project, issue)): Path<(String, String)>,
) -> Result<StatusCode> {
    authorize(&principal, Action::ManageOrg(Scope::CrashesWrite))?;
    let wish = Wish::Ready(Change::Delete);
    let (project, issue) = act(&crashes, &principal, &project, &issue, wish).await?;
    let details = json!({
        "project": project.slug, "short_id": issue.short_id, "events": issue.event_count,
    });
    let target = issue.id.to_string();
    crashes.deps.audit.done(&principal, &info, "crash_issue.delete", target, details).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Say something about an issue; it stands in its activity
#[utoipa::path(post, path = "/api/crash/projects/{project}/issues/{issue}/comments", operation_id = "comment_on_crash_issue", tag = "crashes",
    security(("api_key" = [])), request_body = Comment,
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`")),
    responses((status = 204),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`issue_merged`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn comment_on_crash_issue(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, named)): Path<(String, String)>,
    Json(comment): Json<Comment>,
) -> Result<StatusCode> {
    authorize(&principal, Action::Use(Scope::CrashesWrite))?;
    let text = comment.text.trim();
    if text.is_empty() || text.len() > LONGEST_COMMENT {
        return Err(Error::invalid("text", format!("is 1 to {LONGEST_COMMENT} bytes")));
    }
    let project = crashes.project_head(&principal, &project).await?;
    let mut tx = loom_db::begin(&crashes.deps.pool).await?;
    let issue = crashes.lock_issue(&mut tx, principal.org, &project, &named).await?;
    let (by, now) = (Some(&principal), crashes.deps.clock.now());
    let details = json!({ "text": text });
    activity::record(&mut tx, principal.org, &[issue.id.0], by, "comment", &details, now).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
