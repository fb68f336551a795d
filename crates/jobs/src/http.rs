//! The routes of background jobs, for those who run this installation.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, middleware};
use loom_core::{
    Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::RunId,
    page::{PageQuery, cut},
    port::{Audit, Reauthenticate},
    principal::{RequestInfo, Scope, required},
};
use serde::Serialize;
use serde_json::json;
use utoipa::{IntoResponses, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    JobScheduler,
    model::{JobView, RunDay, RunRecord},
    stream,
};

#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) scheduler: JobScheduler,
    audit: Arc<dyn Audit>,
    pub(crate) who: Arc<dyn Reauthenticate>,
}

impl JobScheduler {
    /// The admin routes.
    pub fn routes(&self, audit: Arc<dyn Audit>, who: Arc<dyn Reauthenticate>) -> OpenApiRouter {
        OpenApiRouter::new()
            .routes(routes!(list_jobs))
            .routes(routes!(job_history))
            .routes(routes!(job_history_days))
            .routes(routes!(run_job))
            .routes(routes!(cancel_job))
            .routes(routes!(enable_job))
            .routes(routes!(disable_job))
            .routes(routes!(stream::watch_jobs))
            .route_layer(middleware::from_fn(required))
            .with_state(Admin { scheduler: self.clone(), audit, who })
    }
}

#[derive(Serialize, ToSchema)]
struct Jobs {
    jobs: Vec<JobView>,
}

/// Who may not.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes what is answered elsewhere")]
enum Refused {
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// Auditors may look, system admins also change things
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
}

#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes what is answered elsewhere")]
enum Unknown {
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
}

#[derive(Serialize, ToSchema)]
struct JobRuns {
    runs: Vec<RunRecord>,
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct JobDays {
    days: Vec<RunDay>,
    next_cursor: Option<String>,
}

/// Which run it is about.
#[derive(Serialize, ToSchema)]
struct JobRun {
    run_id: RunId,
}

/// The background jobs, by id
#[utoipa::path(get, path = "/api/admin/jobs", tag = "jobs", security(("api_key" = [])),
    responses((status = 200, body = Jobs),
        Refused))]
async fn list_jobs(State(admin): State<Admin>, principal: Principal) -> Result<Json<Jobs>> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    Ok(Json(Jobs { jobs: admin.scheduler.views().await? }))
}

/// The runs of a job, newest first
#[utoipa::path(get, path = "/api/admin/jobs/{id}/history", tag = "jobs", security(("api_key" = [])),
    params(("id" = String, Path), PageQuery),
    responses((status = 200, body = JobRuns),
        (status = 400, description = "`invalid_cursor`", body = Problem, content_type = "application/problem+json"),
        Refused, Unknown))]
async fn job_history(
    State(admin): State<Admin>,
    principal: Principal,
    Path(id): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<JobRuns>> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    let kind = format!("job_runs:{id}");
    let limit = page.limit()?;
    let runs = admin.scheduler.history(&id, page.after_time(&kind)?, limit + 1).await?;
    let (runs, next_cursor) = cut(runs, limit, &kind, |run| (run.started_at, run.id));
    Ok(Json(JobRuns { runs, next_cursor }))
}

/// What became of the runs that are too old for the history, by day, newest first
#[utoipa::path(get, path = "/api/admin/jobs/{id}/history/days", tag = "jobs", security(("api_key" = [])),
    params(("id" = String, Path), PageQuery),
    responses((status = 200, body = JobDays),
        (status = 400, description = "`invalid_cursor`", body = Problem, content_type = "application/problem+json"),
        Refused, Unknown))]
async fn job_history_days(
    State(admin): State<Admin>,
    principal: Principal,
    Path(id): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<JobDays>> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    let kind = format!("job_days:{id}");
    let limit = page.limit()?;
    let days = admin.scheduler.days(&id, page.after(&kind)?, limit + 1).await?;
    let (days, next_cursor) = cut(days, limit, &kind, |day| day.day);
    Ok(Json(JobDays { days, next_cursor }))
}

/// Run a job now
///
/// The answer does not wait for the run; the history tells what becomes of it.
#[utoipa::path(post, path = "/api/admin/jobs/{id}/run", tag = "jobs", security(("api_key" = [])),
    params(("id" = String, Path)),
    responses((status = 202, body = JobRun),
        Refused, Unknown,
        (status = 409, description = "`job_running`, `job_disabled`", body = Problem, content_type = "application/problem+json")))]
async fn run_job(
    State(admin): State<Admin>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<JobRun>)> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let run_id = admin.scheduler.request_enabled(&id).await?.id;
    admin.audit.done(&principal, &info, "job.run", id, json!({"run_id": run_id})).await?;
    Ok((StatusCode::ACCEPTED, Json(JobRun { run_id })))
}

/// Stop the run of a job
///
/// It is told to stop, on whichever server it is, and dropped when it does not within five seconds.
#[utoipa::path(post, path = "/api/admin/jobs/{id}/cancel", tag = "jobs", security(("api_key" = [])),
    params(("id" = String, Path)),
    responses((status = 202, body = JobRun),
        Refused, Unknown,
        (status = 409, description = "`job_not_running`", body = Problem, content_type = "application/problem+json")))]
async fn cancel_job(
    State(admin): State<Admin>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<JobRun>)> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let run_id = admin.scheduler.cancel(&id).await?;
    admin.audit.done(&principal, &info, "job.cancel", id, json!({"run_id": run_id})).await?;
    Ok((StatusCode::ACCEPTED, Json(JobRun { run_id })))
}

/// Switch a job on
///
/// What was due while it was off is not made up for.
#[utoipa::path(post, path = "/api/admin/jobs/{id}/enable", tag = "jobs", security(("api_key" = [])),
    params(("id" = String, Path)),
    responses((status = 200, body = JobView),
        Refused, Unknown))]
async fn enable_job(
    State(admin): State<Admin>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<String>,
) -> Result<Json<JobView>> {
    admin.switch(&principal, &info, id, true).await
}

/// Switch a job off
///
/// A run under way goes on.
#[utoipa::path(post, path = "/api/admin/jobs/{id}/disable", tag = "jobs", security(("api_key" = [])),
    params(("id" = String, Path)),
    responses((status = 200, body = JobView),
        Refused, Unknown))]
async fn disable_job(
    State(admin): State<Admin>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<String>,
) -> Result<Json<JobView>> {
    admin.switch(&principal, &info, id, false).await
}

impl Admin {
    async fn switch(
        &self,
        principal: &Principal,
        info: &RequestInfo,
        id: String,
        on: bool,
    ) -> Result<Json<JobView>> {
        authorize(principal, Action::ManageSystem(Scope::AdminWrite))?;
        if self.scheduler.switch(&id, on).await? {
            let action = if on { "job.enable" } else { "job.disable" };
            self.audit.done(principal, info, action, id.clone(), json!({})).await?;
        }
        Ok(Json(self.scheduler.view(&id).await?))
    }
}
