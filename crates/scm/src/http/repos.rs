//! Repositories: create, list, read, change, delete.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use loom_core::{
    Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::RepositoryId,
    page::{PageQuery, cut},
    principal::{RequestInfo, Scope},
};
use serde_json::json;

use super::not_found;
use crate::{
    Scm,
    model::{NewRepository, Repository, RepositoryPage, RepositoryPatch, RepositoryView},
    store,
};

const LIST: &str = "repositories";

/// The repositories of your organisation that you may see, newest first
#[utoipa::path(get, path = "/api/repos", tag = "repositories", security(("api_key" = [])), params(PageQuery),
    responses((status = 200, body = RepositoryPage),
        (status = 400, description = "`invalid_cursor`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`repos:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_repositories(
    State(scm): State<Scm>,
    principal: Principal,
    Query(page): Query<PageQuery>,
) -> Result<Json<RepositoryPage>> {
    authorize(&principal, Action::Use(Scope::ReposRead))?;
    let limit = page.limit()?;
    let after = page.after_time(LIST)?;
    let mut db = scm.pool.acquire().await?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found = store::list(&mut db, &principal, after, one_more).await?;
    drop(db);
    let (found, next_cursor) = cut(found, limit, LIST, |found| (found.created_at, found.id));
    let slug = scm.orgs.org_slug(principal.org).await?;
    let repositories = found.into_iter().map(|found| scm.named(found, &slug)).collect();
    Ok(Json(RepositoryPage { repositories, next_cursor }))
}

/// Create an empty repository
///
/// It is yours; one that a service key creates is the organisation's.
#[utoipa::path(post, path = "/api/repos", tag = "repositories", security(("api_key" = [])), request_body = NewRepository,
    responses((status = 201, body = RepositoryView, headers(("location" = String))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`repos:write` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`name_taken`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`quota_exceeded`", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create_repository(
    State(scm): State<Scm>,
    principal: Principal,
    info: RequestInfo,
    Json(new): Json<NewRepository>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::ReposWrite))?;
    let draft = new.into_patch();
    draft.check()?;
    let now = scm.clock.now();
    let mut repository = Repository {
        id: RepositoryId::new(now),
        org_id: principal.org,
        owner_user_id: principal.user_id(),
        name: String::new(),
        description: String::new(),
        default_branch: String::new(),
        visibility: loom_core::authorize::Visibility::Private,
        size_bytes: 0,
        created_at: now,
        updated_at: now,
        pushed_at: None,
        maintained_at: None,
    };
    draft.apply(&mut repository);
    let mut db = scm.pool.acquire().await?;
    store::require_room(&mut db, principal.org, &repository.name, scm.config.max_repositories)
        .await?;
    // The directory first: one without a row is in nobody's way, a row without one would be.
    scm.disk.create(principal.org, repository.id, &repository.default_branch).await?;
    if let Err(error) = store::insert(&mut db, &repository).await {
        if let Err(error) = scm.disk.remove(principal.org, repository.id).await {
            tracing::warn!(%error, "the directory of a repository that was not created stays");
        }
        return Err(error);
    }
    drop(db);
    let details = json!({"name": repository.name, "visibility": repository.visibility});
    scm.audit
        .done(&principal, &info, "repository.create", repository.id.to_string(), details)
        .await?;
    let location = format!("/api/repos/{}", repository.id);
    let view = scm.view(repository).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// Read a repository
#[utoipa::path(get, path = "/api/repos/{id}", tag = "repositories", security(("api_key" = [])), params(("id" = RepositoryId, Path)),
    responses((status = 200, body = RepositoryView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`repos:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_repository(
    State(scm): State<Scm>,
    principal: Principal,
    Path(id): Path<RepositoryId>,
) -> Result<Json<RepositoryView>> {
    authorize(&principal, Action::Use(Scope::ReposRead))?;
    Ok(Json(scm.view(scm.visible(&principal, id).await?).await?))
}

/// Change a repository's name, description, default branch or visibility
///
/// Under its former name it is found no more; its id stays.
#[utoipa::path(patch, path = "/api/repos/{id}", tag = "repositories", security(("api_key" = [])), params(("id" = RepositoryId, Path)),
    request_body = RepositoryPatch,
    responses((status = 200, body = RepositoryView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`name_taken`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn patch_repository(
    State(scm): State<Scm>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<RepositoryId>,
    Json(patch): Json<RepositoryPatch>,
) -> Result<Json<RepositoryView>> {
    authorize(&principal, Action::Use(Scope::ReposWrite))?;
    patch.check()?;
    let mut tx = loom_db::begin(&scm.pool).await?;
    let before = store::lock(&mut tx, principal.org, id).await?.ok_or_else(not_found)?;
    before.ownership().require_change(&principal, "repository")?;
    let mut repository = before.clone();
    patch.apply(&mut repository);
    if repository != before {
        repository.updated_at = scm.clock.now();
        store::update(&mut tx, &repository).await?;
        if repository.default_branch != before.default_branch {
            let path = scm.directory(&repository)?;
            scm.disk.set_head(&path, &repository.default_branch).await?;
        }
        tx.commit().await?;
        let details = json!({"name": repository.name, "visibility": repository.visibility,
            "default_branch": repository.default_branch});
        scm.audit.done(&principal, &info, "repository.update", id.to_string(), details).await?;
    }
    Ok(Json(scm.view(repository).await?))
}

/// Delete a repository
///
/// Its name is free at once; what was in it is kept for 30 days.
#[utoipa::path(delete, path = "/api/repos/{id}", tag = "repositories", security(("api_key" = [])), params(("id" = RepositoryId, Path)),
    responses((status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn delete_repository(
    State(scm): State<Scm>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<RepositoryId>,
) -> Result<StatusCode> {
    authorize(&principal, Action::Use(Scope::ReposWrite))?;
    let mut tx = loom_db::begin(&scm.pool).await?;
    let repository = store::lock(&mut tx, principal.org, id).await?.ok_or_else(not_found)?;
    repository.ownership().require_change(&principal, "repository")?;
    store::delete(&mut tx, &repository, scm.clock.now()).await?;
    tx.commit().await?;
    let details = json!({"name": repository.name});
    scm.audit.done(&principal, &info, "repository.delete", id.to_string(), details).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Scm {
    /// One that the principal may see.
    pub(crate) async fn visible(
        &self,
        principal: &Principal,
        id: RepositoryId,
    ) -> Result<Repository> {
        let mut db = self.pool.acquire().await?;
        let found = store::find(&mut db, principal.org, id).await?;
        found.filter(|found| found.ownership().visible_to(principal)).ok_or_else(not_found)
    }

    async fn view(&self, repository: Repository) -> Result<RepositoryView> {
        let slug = self.orgs.org_slug(repository.org_id).await?;
        Ok(self.named(repository, &slug))
    }

    fn named(&self, repository: Repository, slug: &str) -> RepositoryView {
        let clone_url = format!("{}/git/{slug}/{}.git", self.config.base_url, repository.name);
        RepositoryView { repository, clone_url }
    }
}
