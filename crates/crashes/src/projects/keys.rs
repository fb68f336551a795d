//! Keys of a project: create, list, change, delete.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::ProjectKeyId,
    page::{PageQuery, cut},
    port::Project,
    principal::{RequestInfo, Scope},
};
use serde_json::json;

use super::{
    model::{KeyPage, KeyPatch, KeyRow, KeyView, NewKey},
    store,
};
use crate::Crashes;

const LIST: &str = "crash_project_keys";
const MAX_KEYS: i64 = 100;

fn no_such_key() -> Error {
    Error::not_found("key")
}

/// The keys of a project, oldest first
#[utoipa::path(get, path = "/api/crash/projects/{project}/keys", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), PageQuery),
    responses((status = 200, body = KeyPage),
        (status = 400, description = "`invalid_cursor`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_crash_keys(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(named): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<KeyPage>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let limit = page.limit()?;
    let after = page.after_time(LIST)?;
    let project = crashes.project(&principal, &named).await?;
    let mut db = crashes.deps.pool.acquire().await?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found = store::list_keys(&mut db, principal.org, project.id, after, one_more).await?;
    let (found, next_cursor) = cut(found, limit, LIST, |key| (key.created_at, key.id));
    let keys = found.into_iter().map(|key| crashes.key_view(&project, key)).collect();
    Ok(Json(KeyPage { keys, next_cursor }))
}

/// Create a key
#[utoipa::path(post, path = "/api/crash/projects/{project}/keys", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug")), request_body = NewKey,
    responses((status = 201, body = KeyView, headers(("location" = String))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`quota_exceeded`", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create_crash_key(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path(named): Path<String>,
    Json(new): Json<NewKey>,
) -> Result<Response> {
    authorize(&principal, Action::ManageOrg(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    let key = new.into_row(project.id, crashes.deps.clock.now())?;
    let mut tx = loom_db::begin(&crashes.deps.pool).await?;
    if store::count_keys(&mut tx, principal.org, project.id).await? >= MAX_KEYS {
        let detail = format!("the project has {MAX_KEYS} keys, which is as many as it may");
        return Err(Error::new(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", detail));
    }
    store::insert_key(&mut tx, principal.org, &key).await?;
    tx.commit().await?;
    crashes.key_changed(&principal, &info, "crash_key.create", &project, key.id).await?;
    let location = format!("/api/crash/projects/{}/keys/{}", project.id, key.id);
    let view = crashes.key_view(&project, key);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// Rename, enable, disable or limit a key
#[utoipa::path(patch, path = "/api/crash/projects/{project}/keys/{key}", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("key" = ProjectKeyId, Path)), request_body = KeyPatch,
    responses((status = 200, body = KeyView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn patch_crash_key(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path((named, id)): Path<(String, ProjectKeyId)>,
    Json(patch): Json<KeyPatch>,
) -> Result<Json<KeyView>> {
    authorize(&principal, Action::ManageOrg(Scope::CrashesWrite))?;
    patch.check()?;
    let project = crashes.project(&principal, &named).await?;
    let mut tx = loom_db::begin(&crashes.deps.pool).await?;
    let mut key =
        store::get_key(&mut tx, principal.org, project.id, id).await?.ok_or_else(no_such_key)?;
    patch.apply(&mut key);
    store::update_key(&mut tx, principal.org, &key).await?;
    tx.commit().await?;
    crashes.key_changed(&principal, &info, "crash_key.update", &project, id).await?;
    Ok(Json(crashes.key_view(&project, key)))
}

/// Delete a key
///
/// What still sends with it is refused from now on.
#[utoipa::path(delete, path = "/api/crash/projects/{project}/keys/{key}", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("key" = ProjectKeyId, Path)),
    responses((status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn delete_crash_key(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path((named, id)): Path<(String, ProjectKeyId)>,
) -> Result<StatusCode> {
    authorize(&principal, Action::ManageOrg(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    let mut db = crashes.deps.pool.acquire().await?;
    if !store::delete_key(&mut db, principal.org, project.id, id).await? {
        return Err(no_such_key());
    }
    drop(db);
    crashes.key_changed(&principal, &info, "crash_key.delete", &project, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Crashes {
    fn key_view(&self, project: &Project, key: KeyRow) -> KeyView {
        let dsn = self.dsn(project.number, &key.public_key);
        KeyView { key, dsn }
    }

    async fn key_changed(
        &self,
        principal: &Principal,
        info: &RequestInfo,
        action: &'static str,
        project: &Project,
        key: ProjectKeyId,
    ) -> Result<()> {
        self.project_changed(project.id);
        let details = json!({"project": project.slug});
        self.deps.audit.done(principal, info, action, key.to_string(), details).await
    }
}
