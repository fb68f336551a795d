//! Projects: create, list, read, change, delete.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    page::{PageQuery, cut},
    principal::{RequestInfo, Scope},
};
use serde_json::json;

use super::{
    model::{NewKey, NewProject, ProjectPage, ProjectPatch, ProjectRow, ProjectView},
    not_found, store,
};
use crate::Crashes;

const LIST: &str = "crash_projects";
const MAX_PROJECTS: i64 = 1000;

/// The projects of your organisation, newest first
#[utoipa::path(get, path = "/api/crash/projects", tag = "crashes", security(("api_key" = [])), params(PageQuery),
    responses((status = 200, body = ProjectPage),
        (status = 400, description = "`invalid_cursor`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_crash_projects(
    State(crashes): State<Crashes>,
    principal: Principal,
    Query(page): Query<PageQuery>,
) -> Result<Json<ProjectPage>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let limit = page.limit()?;
    let after = page.after_time(LIST)?;
    let mut db = crashes.deps.pool.acquire().await?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found = store::list(&mut db, principal.org, after, one_more).await?;
    let (found, next_cursor) =
        cut(found, limit, LIST, |(project, _)| (project.created_at, project.id));
    let projects = found.into_iter().map(|(project, key)| crashes.view(project, key)).collect();
    Ok(Json(ProjectPage { projects, next_cursor }))
}

/// Create a project with its first key
#[utoipa::path(post, path = "/api/crash/projects", tag = "crashes", security(("api_key" = [])), request_body = NewProject,
    responses((status = 201, body = ProjectView, headers(("location" = String))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:write`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`slug_taken`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`quota_exceeded`", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create_crash_project(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Json(new): Json<NewProject>,
) -> Result<Response> {
    authorize(&principal, Action::ManageOrg(Scope::CrashesWrite))?;
    let now = crashes.deps.clock.now();
    let mut project = new.into_row(principal.org, now)?;
    let key = NewKey::default().into_row(project.id, now)?;
    let mut tx = loom_db::begin(&crashes.deps.pool).await?;
    if store::count(&mut tx, principal.org).await? >= MAX_PROJECTS {
        let detail =
            format!("the organisation has {MAX_PROJECTS} projects, which is as many as it may");
        return Err(Error::new(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", detail));
    }
    project.number = store::insert(&mut tx, &project).await?;
    store::insert_key(&mut tx, principal.org, &key).await?;
    tx.commit().await?;
    crashes.project_changed(project.id);
    let details = json!({"slug": project.slug, "number": project.number});
    let target = project.id.to_string();
    crashes.deps.audit.done(&principal, &info, "crash_project.create", target, details).await?;
    let location = format!("/api/crash/projects/{}", project.id);
    let view = crashes.view(project, Some(key.public_key));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// Read a project
#[utoipa::path(get, path = "/api/crash/projects/{project}", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug")),
    responses((status = 200, body = ProjectView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_crash_project(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(named): Path<String>,
) -> Result<Json<ProjectView>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project(&principal, &named).await?;
    let mut db = crashes.deps.pool.acquire().await?;
    let (project, key) =
        store::get(&mut db, principal.org, project.id).await?.ok_or_else(not_found)?;
    Ok(Json(crashes.view(project, key)))
}

/// Change a project
///
/// Its settings hold for what comes in from now on.
#[utoipa::path(patch, path = "/api/crash/projects/{project}", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug")), request_body = ProjectPatch,
    responses((status = 200, body = ProjectView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`slug_taken`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn patch_crash_project(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path(named): Path<String>,
    Json(patch): Json<ProjectPatch>,
) -> Result<Json<ProjectView>> {
    authorize(&principal, Action::ManageOrg(Scope::CrashesWrite))?;
    patch.check()?;
    let found = crashes.project(&principal, &named).await?;
    let mut tx = loom_db::begin(&crashes.deps.pool).await?;
    store::lock(&mut tx, principal.org, found.id).await?;
    let (before, key) =
        store::get(&mut tx, principal.org, found.id).await?.ok_or_else(not_found)?;
    let mut project = before.clone();
    patch.apply(&mut project);
    if project != before {
        project.updated_at = crashes.deps.clock.now();
        store::update(&mut tx, &project).await?;
        tx.commit().await?;
        crashes.project_changed(project.id);
        let details = json!({"slug": project.slug});
        let target = project.id.to_string();
        crashes.deps.audit.done(&principal, &info, "crash_project.update", target, details).await?;
    }
    Ok(Json(crashes.view(project, key)))
}

/// Delete a project and all that belongs to it
///
/// It is gone at once, and its slug is free; its events are removed soon after.
#[utoipa::path(delete, path = "/api/crash/projects/{project}", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug")),
    responses((status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn delete_crash_project(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path(named): Path<String>,
) -> Result<StatusCode> {
    authorize(&principal, Action::ManageOrg(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    let mut db = loom_db::begin(&crashes.deps.pool).await?;
    let now = crashes.deps.clock.now();
    if !store::delete(&mut db, principal.org, project.id, now).await? {
        return Err(not_found());
    }
    crashes.drop_hooks(&mut db, principal.org, project.id).await?;
    db.commit().await?;
    crashes.project_changed(project.id);
    let details = json!({"slug": project.slug});
    let target = project.id.to_string();
    crashes.deps.audit.done(&principal, &info, "crash_project.delete", target, details).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Crashes {
    fn view(&self, project: ProjectRow, public_key: Option<String>) -> ProjectView {
        let dsn = public_key.map(|key| self.dsn(project.number, &key));
        ProjectView { project, dsn }
    }

    /// `scheme://<key>@host/<number>`
    pub(crate) fn dsn(&self, number: i64, public_key: &str) -> String {
        let base = &self.config.base_url;
        let (scheme, rest) = base.split_once("://").unwrap_or(("http", base));
        format!("{scheme}://{public_key}@{rest}/{number}")
    }
}
