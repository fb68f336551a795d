//! What clients say that they did not send, for who looks after a project.

use axum::extract::State;
use chrono::Days;
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    principal::Scope,
};

use crate::{
    Ingest,
    model::{DiscardedPage, DiscardedQuery},
    store,
};

/// How many items the SDKs of a project did not send, and why: rate limits, full queues, sampling, hooks.
#[utoipa::path(
    get,
    path = "/api/crash/projects/{project}/discarded",
    operation_id = "list_discarded_items",
    tag = "crashes",
    params(("project" = String, Path, description = "Id, number or slug"), DiscardedQuery),
    responses(
        (status = 200, body = DiscardedPage),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn list_discarded_items(
    State(ingest): State<Ingest>,
    principal: Principal,
    Path(project): Path<String>,
    Query(query): Query<DiscardedQuery>,
) -> Result<Json<DiscardedPage>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    if !(1..=90).contains(&query.days) {
        return Err(Error::invalid("days", "must be between 1 and 90"));
    }
    let project = ingest.deps.projects.find(principal.org, &project).await?;
    let project = project.ok_or_else(|| Error::not_found("project"))?;
    let today = ingest.deps.clock.now().date_naive();
    let since = today.checked_sub_days(Days::new(u64::from(query.days - 1))).unwrap_or(today);
    let discarded = store::discarded(&ingest.deps.pool, project.org, project.id, since).await?;
    Ok(Json(DiscardedPage { discarded }))
}
