//! The handlers of releases.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    page::{self, PageQuery},
    port::Project,
    principal::{RequestInfo, Scope},
};
use serde_json::json;

use super::{
    check_version,
    model::{
        CommitPage, Deploy, DeployPage, NewCommits, NewDeploy, NewRelease, Release, ReleaseFilter,
        ReleasePage, ReleasePatch, ReleaseView, bounded,
    },
    not_found, store,
};
use crate::Crashes;

/// The releases of a project, newest first
///
/// With their issues, and how their sessions go.
#[utoipa::path(
    get,
    path = "/api/crash/projects/{project}/releases",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), PageQuery, ReleaseFilter),
    responses((status = 200, body = ReleasePage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_crash_releases(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(named): Path<String>,
    Query(page): Query<PageQuery>,
    Query(filter): Query<ReleaseFilter>,
) -> Result<Json<ReleasePage>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project(&principal, &named).await?;
    let prefix = filter.query.unwrap_or_default();
    let kind = format!("crash_releases {prefix}");
    let limit = page.limit()?;
    let after = page.after_time(&kind)?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let pool = &crashes.deps.pool;
    let found = store::list(pool, project.org, project.id, &prefix, after, one_more).await?;
    let (found, next_cursor) = page::cut(found, limit, &kind, |r| (r.created_at, r.id));
    let releases = crashes.view_releases(&project, found).await?;
    Ok(Json(ReleasePage { releases, next_cursor }))
}

/// Create a release
///
/// Events make theirs by themselves; this is for one that is to be known before.
#[utoipa::path(
    post,
    path = "/api/crash/projects/{project}/releases",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug")),
    request_body = NewRelease,
    responses((status = 201, body = ReleaseView, headers(("location" = String))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`release_exists`", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create_crash_release(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path(named): Path<String>,
    Json(new): Json<NewRelease>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    new.check()?;
    let Some(release) = crashes.make_release(&project, &new).await? else {
        return Err(Error::conflict(
            "release_exists",
            "there is a release of this version already",
        ));
    };
    let details = json!({"project": project.slug});
    let target = release.version.clone();
    crashes.deps.audit.done(&principal, &info, "crash_release.create", target, details).await?;
    let version =
        percent_encoding::utf8_percent_encode(&release.version, percent_encoding::NON_ALPHANUMERIC);
    let location = format!("/api/crash/projects/{}/releases/{version}", project.id);
    let view = crashes.view_release(&project, release).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// Read a release
#[utoipa::path(
    get,
    path = "/api/crash/projects/{project}/releases/{version}",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("version" = String, Path)),
    responses((status = 200, body = ReleaseView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_crash_release(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((named, version)): Path<(String, String)>,
) -> Result<Json<ReleaseView>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project(&principal, &named).await?;
    let release = crashes.release(&project, &version).await?;
    Ok(Json(crashes.view_release(&project, release).await?))
}

/// Change a release, or finalise it
///
/// What is absent stays as it is.
#[utoipa::path(
    patch,
    path = "/api/crash/projects/{project}/releases/{version}",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("version" = String, Path)),
    request_body = ReleasePatch,
    responses((status = 200, body = ReleaseView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn patch_crash_release(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((named, version)): Path<(String, String)>,
    Json(patch): Json<ReleasePatch>,
) -> Result<Json<ReleaseView>> {
    authorize(&principal, Action::Use(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    patch.check()?;
    let release = crashes.release(&project, &version).await?;
    let mut db = crashes.deps.pool.acquire().await?;
    store::update(&mut db, project.org, release.id, &patch).await?;
    drop(db);
    let release = crashes.release(&project, &version).await?;
    Ok(Json(crashes.view_release(&project, release).await?))
}

/// Delete a release with its commits and deploys
///
/// Its events and artifacts stay; the next event of it makes it anew.
#[utoipa::path(
    delete,
    path = "/api/crash/projects/{project}/releases/{version}",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("version" = String, Path)),
    responses((status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn delete_crash_release(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path((named, version)): Path<(String, String)>,
) -> Result<StatusCode> {
    authorize(&principal, Action::ManageOrg(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    crashes.delete_release(&principal, &info, &project, &version).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The commits that a release brings, newest first
#[utoipa::path(
    get,
    path = "/api/crash/projects/{project}/releases/{version}/commits",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("version" = String, Path), PageQuery),
    responses((status = 200, body = CommitPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_release_commits(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((named, version)): Path<(String, String)>,
    Query(page): Query<PageQuery>,
) -> Result<Json<CommitPage>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project(&principal, &named).await?;
    let release = crashes.release(&project, &version).await?;
    let limit = page.limit()?;
    let kind = format!("release_commits {}", release.id);
    let from = page.after::<i32>(&kind)?.unwrap_or(0);
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found = store::commits(&crashes.deps.pool, project.org, release.id, from, one_more).await?;
    let next = from.saturating_add(i32::try_from(limit).unwrap_or(i32::MAX));
    let (commits, next_cursor) = page::cut(found, limit, &kind, |_| next);
    Ok(Json(CommitPage { commits, next_cursor }))
}

/// Say which commits a release brings
///
/// In place of those that it has. Those whose files are said are looked at for suspects.
#[utoipa::path(
    put,
    path = "/api/crash/projects/{project}/releases/{version}/commits",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("version" = String, Path)),
    request_body = NewCommits,
    responses((status = 200, body = ReleaseView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn put_release_commits(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((named, version)): Path<(String, String)>,
    Json(new): Json<NewCommits>,
) -> Result<Json<ReleaseView>> {
    authorize(&principal, Action::Use(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    let commits = bounded(new.commits)?;
    let release = crashes.release(&project, &version).await?;
    crashes.set_commits(&release, &commits).await?;
    Ok(Json(crashes.view_release(&project, release).await?))
}

/// Where a release was brought, newest first
#[utoipa::path(
    get,
    path = "/api/crash/projects/{project}/releases/{version}/deploys",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("version" = String, Path), PageQuery),
    responses((status = 200, body = DeployPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_deploys(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((named, version)): Path<(String, String)>,
    Query(page): Query<PageQuery>,
) -> Result<Json<DeployPage>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project(&principal, &named).await?;
    let release = crashes.release(&project, &version).await?;
    let limit = page.limit()?;
    let kind = format!("deploys {}", release.id);
    let after = page.after_time(&kind)?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found =
        store::deploys(&crashes.deps.pool, project.org, release.id, after, one_more).await?;
    let (deploys, next_cursor) = page::cut(found, limit, &kind, |d| (d.finished_at, d.id));
    Ok(Json(DeployPage { deploys, next_cursor }))
}

/// Say that a release was brought somewhere
#[utoipa::path(
    post,
    path = "/api/crash/projects/{project}/releases/{version}/deploys",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("version" = String, Path)),
    request_body = NewDeploy,
    responses((status = 201, body = Deploy),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create_deploy(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((named, version)): Path<(String, String)>,
    Json(new): Json<NewDeploy>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    new.check()?;
    let release = crashes.release(&project, &version).await?;
    let deploy = crashes.deploy(&release, &new).await?;
    Ok((StatusCode::CREATED, Json(deploy)).into_response())
}

/// What the native routes and those of sentry-cli share.
impl Crashes {
    pub(crate) async fn release(&self, project: &Project, version: &str) -> Result<Release> {
        if version.contains('\0') {
            return Err(not_found());
        }
        let mut db = self.deps.pool.acquire().await?;
        store::find(&mut db, project.org, project.id, version).await?.ok_or_else(not_found)
    }

    /// None: there is one already.
    pub(crate) async fn make_release(
        &self,
        project: &Project,
        new: &NewRelease,
    ) -> Result<Option<Release>> {
        check_version("version", &new.version)?;
        let mut tx = loom_db::begin(&self.deps.pool).await?;
        if !store::insert(&mut tx, project, &new.version, self.deps.clock.now()).await? {
            return Ok(None);
        }
        let made = store::find(&mut tx, project.org, project.id, &new.version).await?;
        let release = made.ok_or_else(not_found)?;
        store::update(&mut tx, project.org, release.id, &new.change()).await?;
        let made = store::find(&mut tx, project.org, project.id, &new.version).await?;
        tx.commit().await?;
        Ok(made)
    }

    pub(crate) async fn delete_release(
        &self,
        principal: &Principal,
        info: &RequestInfo,
        project: &Project,
        version: &str,
    ) -> Result<()> {
        if version.contains('\0')
            || !store::delete(&self.deps.pool, project.org, project.id, version).await?
        {
            return Err(not_found());
        }
        let details = json!({"project": project.slug});
        let target = version.to_owned();
        self.deps.audit.done(principal, info, "crash_release.delete", target, details).await
    }

    pub(crate) async fn set_commits(
        &self,
        release: &Release,
        commits: &[super::model::Commit],
    ) -> Result<()> {
        let mut tx = loom_db::begin(&self.deps.pool).await?;
        store::lock(&mut tx, release.org_id, release.id).await?;
        store::replace_commits(&mut tx, release, commits).await?;
        tx.commit().await?;
        Ok(())
    }

    pub(crate) async fn deploy(&self, release: &Release, new: &NewDeploy) -> Result<Deploy> {
        let mut db = self.deps.pool.acquire().await?;
        store::insert_deploy(&mut db, release, new, self.deps.clock.now()).await
    }

    pub(crate) async fn view_release(
        &self,
        project: &Project,
        release: Release,
    ) -> Result<ReleaseView> {
        self.view_releases(project, vec![release]).await?.pop().ok_or_else(not_found)
    }

    pub(crate) async fn view_releases(
        &self,
        project: &Project,
        releases: Vec<Release>,
    ) -> Result<Vec<ReleaseView>> {
        let versions: Vec<_> = releases.iter().map(|release| release.version.clone()).collect();
        let ids: Vec<_> = releases.iter().map(|release| release.id).collect();
        let pool = &self.deps.pool;
        let (issues, counts, rates) = tokio::try_join!(
            store::issues(pool, project.org, project.id, &versions),
            store::counts(pool, project.org, &ids),
            self.deps.health.rates(project, &versions),
        )?;
        let view = |release: Release| {
            let (commit_count, deploy_count) = counts.get(&release.id).copied().unwrap_or_default();
            ReleaseView {
                issues: issues.get(&release.version).copied().unwrap_or_default(),
                health: rates.get(&release.version).map(Into::into),
                commit_count,
                deploy_count,
                release,
            }
        };
        Ok(releases.into_iter().map(view).collect())
    }
}
