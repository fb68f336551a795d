//! The same done with many issues.

use axum::extract::State;
use loom_core::{
    Error, Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    principal::{RequestInfo, Scope},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::{
    actions::{Assign, Change, Ignore, Resolve},
    list::ListQuery,
    model::{Issue, Priority},
    store,
};
use crate::Crashes;

/// Issues of one request.
const MOST: usize = 1000;
/// Issues of one transaction.
const BATCH: usize = 100;

/// What is done with each of the issues.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "action", rename_all = "snake_case")]
#[schema(as = IssueBulkAction)]
pub(crate) enum BulkAction {
    Resolve(#[serde(default)] Resolve),
    Unresolve,
    Ignore(#[serde(default)] Ignore),
    Assign(Assign),
    /// `high`, `medium` or `low`.
    Priority {
        priority: Priority,
    },
    /// For admins of the organisation.
    Delete,
}

#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = IssueBulk)]
pub(crate) struct Bulk {
    #[serde(flatten)]
    action: BulkAction,
    /// Ids or short ids; at most 1,000. Or a query.
    #[serde(default)]
    issues: Vec<String>,
    /// The search language; at most 1,000 of the issues that it finds, those with the last events.
    query: Option<String>,
}

/// What became of one issue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IssueBulkResult)]
pub(crate) struct BulkResult {
    /// As it was asked for.
    issue: String,
    /// `done`, `not_found`, `issue_merged`.
    result: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IssueBulkResults)]
pub(crate) struct BulkResults {
    results: Vec<BulkResult>,
    done: usize,
    /// The query finds more issues than were changed: ask again.
    more: bool,
}

/// Change many issues at once
///
/// By their ids, or by a query. There is a result for each; issues are changed in batches, and what is not
/// found does not stop the others.
#[utoipa::path(post, path = "/api/crash/projects/{project}/issues/bulk", operation_id = "change_crash_issues", tag = "crashes",
    security(("api_key" = [])), request_body = Bulk,
    params(("project" = String, Path, description = "Id, number or slug")),
    responses((status = 200, body = BulkResults),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing; only admins of the organisation delete", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn change_crash_issues(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path(project): Path<String>,
    Json(bulk): Json<Bulk>,
) -> Result<Json<BulkResults>> {
    let is_delete = matches!(bulk.action, BulkAction::Delete);
    let needed = Scope::CrashesWrite;
    authorize(&principal, if is_delete { Action::ManageOrg(needed) } else { Action::Use(needed) })?;
    let by_query = bulk.query.is_some();
    if by_query != bulk.issues.is_empty() {
        return Err(Error::invalid("issues", "give either `issues` or a `query`"));
    }
    if bulk.issues.len() > MOST {
        return Err(Error::invalid("issues", format!("at most {MOST} issues at once")));
    }
    let project = crashes.project_head(&principal, &project).await?;
    let pool = &crashes.deps.pool;
    let org = principal.org;
    let mut names = bulk.issues.clone();
    let mut more = false;
    if let Some(query) = bulk.query.clone() {
        let query = ListQuery { query: Some(query), ..ListQuery::default() };
        let listing = query.check(&principal, crashes.deps.clock.now())?;
        let limit = i64::try_from(MOST + 1).unwrap_or(i64::MAX);
        let found = store::list::ids(pool, org, project.id, &listing, limit).await?;
        more = found.len() > MOST;
        names = found.iter().take(MOST).map(Uuid::to_string).collect();
    }
    let change = {
        let mut db = pool.acquire().await?;
        match &bulk.action {
            BulkAction::Resolve(resolve) => {
                crashes.resolution(&mut db, org, &project, resolve).await?
            }
            BulkAction::Unresolve => Change::Unresolve,
            BulkAction::Ignore(ignore) => crashes.ignoring(ignore)?,
            BulkAction::Assign(assign) => crashes.assignment(&mut db, &principal, assign).await?,
            BulkAction::Priority { priority } => Change::Prioritise(*priority),
            BulkAction::Delete => Change::Delete,
        }
    };
    let mut results: Vec<BulkResult> = Vec::with_capacity(names.len());
    let mut done = Vec::new();
    for batch in names.chunks(BATCH) {
        let mut tx = loom_db::begin(pool).await?;
        let ids = store::ids_of(&mut tx, org, &project, batch).await?;
        let mut sorted: Vec<Uuid> = ids.iter().copied().flatten().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let locked = store::lock_all(&mut tx, org, project.id, &sorted).await?;
        let (fit, merged): (Vec<Issue>, Vec<Issue>) =
            locked.into_iter().partition(|issue| issue.merged_into.is_none());
        if !fit.is_empty() {
            crashes.change(&mut tx, &principal, &project, &fit, &change).await?;
        }
        tx.commit().await?;
        crashes.tell_change(&principal, &project, &fit, &change);
        let has = |issues: &[Issue], id: Uuid| issues.iter().any(|issue| issue.id.0 == id);
        for (name, id) in batch.iter().zip(ids) {
            let result = match id {
                Some(id) if has(&fit, id) => "done",
                Some(id) if has(&merged, id) => "issue_merged",
                _ => "not_found",
            };
            results.push(BulkResult { issue: name.clone(), result });
        }
        done.extend(fit.into_iter().map(|issue| issue.short_id));
    }
    if is_delete && !done.is_empty() {
        let details = json!({ "project": project.slug, "issues": done });
        let target = project.id.to_string();
        crashes.deps.audit.done(&principal, &info, "crash_issue.delete", target, details).await?;
    }
    let done = results.iter().filter(|one| one.result == "done").count();
    Ok(Json(BulkResults { results, done, more }))
}
