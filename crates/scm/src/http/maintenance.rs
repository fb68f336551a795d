//! Maintenance on demand, and what became of it.

use axum::extract::State;
use http::StatusCode;
use loom_core::{
    Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::{RepositoryId, RunId},
    page::{PageQuery, cut},
    principal::{RequestInfo, Scope},
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    Scm, Sweeper, jobs,
    model::{Maintenance, MaintenancePage},
    store,
};

/// The maintenance of a repository, newest first; the last 50 are kept
#[utoipa::path(get, path = "/api/repos/{id}/maintenance", tag = "repositories", security(("api_key" = [])),
    params(("id" = RepositoryId, Path), PageQuery),
    responses((status = 200, body = MaintenancePage),
        (status = 400, description = "`invalid_cursor`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`repos:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_maintenance(
    State(scm): State<Scm>,
    principal: Principal,
    Path(id): Path<RepositoryId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<MaintenancePage>> {
    authorize(&principal, Action::Use(Scope::ReposRead))?;
    let kind = format!("repository_maintenance:{id}");
    let limit = page.limit()?;
    let after = page.after_time(&kind)?;
    let repository = scm.visible(&principal, id).await?;
    let mut db = scm.pool.acquire().await?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let runs = store::maintenance::history(&mut db, repository.org_id, id, after, one_more).await?;
    let (runs, next_cursor) = cut(runs, limit, &kind, |run| (run.started_at, run.id));
    Ok(Json(MaintenancePage { runs, next_cursor }))
}

/// Pack a repository anew and remove what nothing refers to, now
///
/// The answer does not wait for it: `GET` on the same path tells what becomes of it. Clones and pushes go
/// on meanwhile.
#[utoipa::path(post, path = "/api/repos/{id}/maintenance", tag = "repositories", security(("api_key" = [])),
    params(("id" = RepositoryId, Path)),
    responses((status = 202, body = Maintenance),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`maintenance_running`", body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn maintain_repository(
    State(scm): State<Scm>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<RepositoryId>,
) -> Result<(StatusCode, Json<Maintenance>)> {
    authorize(&principal, Action::Use(Scope::ReposWrite))?;
    let repository = scm.visible(&principal, id).await?;
    repository.ownership().require_change(&principal, "repository")?;
    let run = scm.maintain_by_hand(&repository).await?;
    scm.audit
        .done(&principal, &info, "repository.maintain", id.to_string(), json!({"run_id": run.id}))
        .await?;
    Ok((StatusCode::ACCEPTED, Json(run)))
}

/// A sweep that has begun.
#[derive(Serialize, ToSchema)]
pub(crate) struct Sweep {
    /// The job whose history tells what becomes of it.
    job: &'static str,
    run_id: RunId,
}

/// Look after all repositories now
///
/// The same as the job does by its schedule: one repository after the other, each that was pushed to since.
#[utoipa::path(post, path = "/api/admin/maintenance/sweep", tag = "repositories", security(("api_key" = [])),
    responses((status = 202, body = Sweep),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`job_running`, `job_disabled`", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn sweep(
    State(sweeper): State<Sweeper>,
    principal: Principal,
    info: RequestInfo,
) -> Result<(StatusCode, Json<Sweep>)> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let run_id = sweeper.jobs.request_enabled(jobs::ID).await?.id;
    let details = json!({"run_id": run_id});
    let audit = &sweeper.scm.audit;
    audit.done(&principal, &info, "repository.sweep", jobs::ID.to_owned(), details).await?;
    Ok((StatusCode::ACCEPTED, Json(Sweep { job: jobs::ID, run_id })))
}
