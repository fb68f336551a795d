//! Releases, commits and deploys, in the words of sentry-cli. A path names one project, or none: then it is all
//! of the organisation that have the release.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    extract::{RawPathParams, State},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use http::StatusCode;
use loom_core::{
    Error, Principal, Result,
    authorize::Action,
    page::PageQuery,
    port::Project,
    principal::{RequestInfo, Scope},
};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::{
    Crashes,
    releases::{
        check_version,
        model::{
            Commit, Deploy, MAX_COMMITS, NewDeploy, NewRelease, ReleasePatch, ReleaseView, bounded,
        },
        not_found, store,
    },
};

/// What a path names.
struct Named {
    acting: Principal,
    /// None: all of the organisation.
    project: Option<Arc<Project>>,
    version: String,
}

async fn named(
    crashes: &Crashes,
    principal: &Principal,
    params: &RawPathParams,
    action: Action,
) -> Result<Named> {
    let of =
        |name: &str| params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    let acting = crashes.acting(principal, &of("org").unwrap_or_default(), action).await?;
    let project = match of("project") {
        Some(name) => Some(crashes.project(&acting, &name).await?),
        None => None,
    };
    Ok(Named { acting, project, version: of("version").unwrap_or_default() })
}

const READ: Action = Action::Use(Scope::CrashesRead);
const WRITE: Action = Action::Use(Scope::CrashesWrite);

impl Named {
    /// The projects that have the release.
    async fn holders(&self, crashes: &Crashes) -> Result<Vec<Arc<Project>>> {
        if let Some(project) = &self.project {
            return Ok(vec![Arc::clone(project)]);
        }
        if self.version.contains('\0') {
            return Err(not_found());
        }
        let ids = store::projects_with(&crashes.deps.pool, self.acting.org, &self.version).await?;
        let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
        if ids.is_empty() {
            return Err(not_found());
        }
        crashes.projects_named(&self.acting, &ids).await
    }
}

#[derive(Deserialize)]
pub(super) struct NewRequest {
    version: String,
    #[serde(default)]
    projects: Vec<Value>,
    url: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    #[serde(default, rename = "dateStarted", deserialize_with = "time")]
    started: Option<DateTime<Utc>>,
    #[serde(default, rename = "dateReleased", deserialize_with = "time")]
    released: Option<DateTime<Utc>>,
}

/// sentry-cli says times with and without a zone.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let parsed = DateTime::parse_from_rfc3339(&text)
        .map(|at| at.to_utc())
        .or_else(|_| text.parse::<chrono::NaiveDateTime>().map(|at| at.and_utc()));
    parsed.map(Some).map_err(serde::de::Error::custom)
}

/// By slug, or by number, which may be written as one.
fn project_names(projects: &[Value]) -> Vec<String> {
    projects
        .iter()
        .map(|name| name.as_str().map_or_else(|| name.to_string(), str::to_owned))
        .collect()
}

/// Made, or changed when it is there: a build that runs again is no fault.
pub(super) async fn create(
    State(crashes): State<Crashes>,
    principal: Principal,
    params: RawPathParams,
    loom_core::Json(request): loom_core::Json<NewRequest>,
) -> Result<Response> {
    let named = named(&crashes, &principal, &params, WRITE).await?;
    check_version("version", &request.version)?;
    let names = project_names(&request.projects);
    let projects = match &named.project {
        Some(project) => vec![Arc::clone(project)],
        None => crashes.projects_named(&named.acting, &names).await?,
    };
    if projects.is_empty() {
        return Err(Error::invalid("projects", "name the project: `--project` or SENTRY_PROJECT"));
    }
    let new = NewRelease {
        version: request.version,
        url: request.url,
        reference: request.reference,
        started_at: request.started,
        released_at: request.released,
    };
    new.check()?;
    let mut is_new = false;
    for project in &projects {
        is_new |= crashes.ensure(project, &new).await?;
    }
    let told = crashes.told(&projects, &new.version).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::ALREADY_REPORTED };
    Ok((status, Json(told)).into_response())
}

#[derive(Deserialize)]
pub(super) struct ChangeRequest {
    #[serde(default)]
    projects: Vec<Value>,
    url: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    #[serde(default, rename = "dateStarted", deserialize_with = "time")]
    started: Option<DateTime<Utc>>,
    #[serde(default, rename = "dateReleased", deserialize_with = "time")]
    released: Option<DateTime<Utc>>,
    commits: Option<Vec<CommitRequest>>,
    refs: Option<Vec<RefRequest>>,
}

#[derive(Deserialize)]
struct CommitRequest {
    id: String,
    message: Option<String>,
    author_name: Option<String>,
    author_email: Option<String>,
    #[serde(default, deserialize_with = "time")]
    timestamp: Option<DateTime<Utc>>,
    repository: Option<String>,
    #[serde(default)]
    patch_set: Option<Vec<PatchRequest>>,
}

#[derive(Deserialize)]
struct PatchRequest {
    path: String,
}

#[derive(Deserialize)]
struct RefRequest {
    repository: Option<String>,
    commit: String,
}

impl ChangeRequest {
    /// None: they stay as they are.
    fn commits(&mut self) -> Result<Option<Vec<Commit>>> {
        let commits: Vec<Commit> = match (self.commits.take(), self.refs.take()) {
            (Some(commits), _) => commits
                .into_iter()
                .take(MAX_COMMITS)
                .map(|commit| Commit {
                    sha: commit.id,
                    message: commit.message,
                    author_name: commit.author_name,
                    author_email: commit.author_email,
                    at: commit.timestamp,
                    repository: commit.repository,
                    files: commit
                        .patch_set
                        .unwrap_or_default()
                        .into_iter()
                        .map(|p| p.path)
                        .collect(),
                })
                .collect(),
            // What lies behind a reference only its repository knows.
            (None, Some(refs)) => refs
                .into_iter()
                .map(|named| Commit {
                    sha: named.commit,
                    repository: named.repository,
                    ..Commit::default()
                })
                .collect(),
            (None, None) => return Ok(None),
        };
        bounded(commits).map(Some)
    }
}

pub(super) async fn change(
    State(crashes): State<Crashes>,
    principal: Principal,
    params: RawPathParams,
    loom_core::Json(mut request): loom_core::Json<ChangeRequest>,
) -> Result<Json<Value>> {
    let named = named(&crashes, &principal, &params, WRITE).await?;
    let commits = request.commits()?;
    let patch = ReleasePatch {
        url: request.url,
        reference: request.reference,
        started_at: request.started,
        released_at: request.released,
    };
    patch.check()?;
    let names = project_names(&request.projects);
    // `releases finalize` makes what nobody has made.
    let projects = match &named.project {
        None if !names.is_empty() => crashes.projects_named(&named.acting, &names).await?,
        _ => named.holders(&crashes).await?,
    };
    for project in &projects {
        check_version("version", &named.version)?;
        let new = NewRelease {
            version: named.version.clone(),
            url: None,
            reference: None,
            started_at: None,
            released_at: None,
        };
        crashes.ensure(project, &new).await?;
        let release = crashes.release(project, &named.version).await?;
        let mut db = crashes.deps.pool.acquire().await?;
        store::update(&mut db, project.org, release.id, &patch).await?;
        drop(db);
        if let Some(commits) = &commits {
            crashes.set_commits(&release, commits).await?;
        }
    }
    Ok(Json(crashes.told(&projects, &named.version).await?))
}

pub(super) async fn read(
    State(crashes): State<Crashes>,
    principal: Principal,
    params: RawPathParams,
) -> Result<Json<Value>> {
    let named = named(&crashes, &principal, &params, READ).await?;
    let projects = named.holders(&crashes).await?;
    Ok(Json(crashes.told(&projects, &named.version).await?))
}

/// As on the native route: for admins of the organisation.
pub(super) async fn delete(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    params: RawPathParams,
) -> Result<StatusCode> {
    let action = Action::ManageOrg(Scope::CrashesWrite);
    let named = named(&crashes, &principal, &params, action).await?;
    for project in named.holders(&crashes).await? {
        crashes.delete_release(&named.acting, &info, &project, &named.version).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
pub(super) struct ListRequest {
    cursor: Option<String>,
    per_page: Option<u16>,
}

pub(super) async fn list(
    State(crashes): State<Crashes>,
    principal: Principal,
    params: RawPathParams,
    loom_core::Query(request): loom_core::Query<ListRequest>,
) -> Result<Response> {
    const KIND: &str = "cli_releases";
    let named = named(&crashes, &principal, &params, READ).await?;
    let page = PageQuery {
        limit: request.per_page.map(|n| n.clamp(1, 100)).or(Some(100)),
        cursor: request.cursor.filter(|cursor| !cursor.is_empty()),
    };
    let limit = page.limit()?;
    let after = page.after_time(KIND)?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let project = named.project.as_ref().map(|project| project.id);
    let pool = &crashes.deps.pool;
    let found = store::list_of_org(pool, named.acting.org, project, after, one_more).await?;
    let (found, next) = loom_core::page::cut(found, limit, KIND, |r| (r.created_at, r.id));
    let mut told = Vec::new();
    let mut by_project: HashMap<_, Arc<Project>> = HashMap::new();
    for release in found {
        let id = release.project_id;
        if let std::collections::hash_map::Entry::Vacant(place) = by_project.entry(id) {
            place.insert(crashes.project(&named.acting, &id.to_string()).await?);
        }
        if let Some(project) = by_project.get(&id) {
            let view = crashes.view_release(project, release).await?;
            told.push(describe(&[(Arc::clone(project), view)]));
        }
    }
    Ok(paged(Value::Array(told), next.as_deref()))
}

/// A page in the way of sentry-cli: its cursors are in `Link`.
pub(super) fn paged(list: Value, next: Option<&str>) -> Response {
    let link = format!(
        "<?cursor=>; rel=\"previous\"; results=\"false\"; cursor=\"\", <?cursor={next}>; rel=\"next\"; \
         results=\"{more}\"; cursor=\"{next}\"",
        next = next.unwrap_or_default(),
        more = next.is_some(),
    );
    ([(http::header::LINK, link)], Json(list)).into_response()
}

pub(super) async fn previous(
    State(crashes): State<Crashes>,
    principal: Principal,
    params: RawPathParams,
) -> Result<Json<Value>> {
    let named = named(&crashes, &principal, &params, READ).await?;
    let projects = named.holders(&crashes).await?;
    for project in &projects {
        let release = crashes.release(project, &named.version).await?;
        let mut db = crashes.deps.pool.acquire().await?;
        let before = store::previous(&mut db, &release, true).await?;
        drop(db);
        let Some(before) = before else { continue };
        let newest = store::commits(&crashes.deps.pool, project.org, before.id, 0, 1).await?;
        let mut told = crashes.told(&[Arc::clone(project)], &before.version).await?;
        if let (Some(told), Some(commit)) = (told.as_object_mut(), newest.first()) {
            told.insert("lastCommit".to_owned(), json!({"id": commit.sha}));
        }
        return Ok(Json(told));
    }
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
pub(super) struct DeployRequest {
    environment: String,
    name: Option<String>,
    url: Option<String>,
    #[serde(default, rename = "dateStarted", deserialize_with = "time")]
    started: Option<DateTime<Utc>>,
    #[serde(default, rename = "dateFinished", deserialize_with = "time")]
    finished: Option<DateTime<Utc>>,
}

pub(super) async fn deploy(
    State(crashes): State<Crashes>,
    principal: Principal,
    params: RawPathParams,
    loom_core::Json(request): loom_core::Json<DeployRequest>,
) -> Result<Response> {
    let named = named(&crashes, &principal, &params, WRITE).await?;
    let new = NewDeploy {
        environment: request.environment,
        name: request.name,
        url: request.url,
        started_at: request.started,
        finished_at: request.finished,
    };
    new.check()?;
    let mut last = None;
    for project in named.holders(&crashes).await? {
        let release = crashes.release(&project, &named.version).await?;
        last = Some(crashes.deploy(&release, &new).await?);
    }
    let told = last.as_ref().map(describe_deploy).ok_or_else(not_found)?;
    Ok((StatusCode::CREATED, Json(told)).into_response())
}

pub(super) async fn deploys(
    State(crashes): State<Crashes>,
    principal: Principal,
    params: RawPathParams,
) -> Result<Json<Value>> {
    let named = named(&crashes, &principal, &params, READ).await?;
    let mut all = Vec::new();
    for project in named.holders(&crashes).await? {
        let release = crashes.release(&project, &named.version).await?;
        all.extend(store::deploys(&crashes.deps.pool, project.org, release.id, None, 100).await?);
    }
    Ok(Json(all.iter().map(describe_deploy).collect()))
}

fn describe_deploy(deploy: &Deploy) -> Value {
    json!({
        "id": deploy.id, "environment": deploy.environment, "name": deploy.name, "url": deploy.url,
        "dateStarted": deploy.started_at.map(|at| at.to_rfc3339()),
        "dateFinished": deploy.finished_at.to_rfc3339(),
    })
}

impl Crashes {
    /// True: it was not there.
    async fn ensure(&self, project: &Project, new: &NewRelease) -> Result<bool> {
        if self.make_release(project, new).await?.is_some() {
            return Ok(true);
        }
        let release = self.release(project, &new.version).await?;
        let mut db = self.deps.pool.acquire().await?;
        store::update(&mut db, project.org, release.id, &new.change()).await?;
        Ok(false)
    }

    /// The release of all these projects as one.
    async fn told(&self, projects: &[Arc<Project>], version: &str) -> Result<Value> {
        let mut views = Vec::new();
        for project in projects {
            let release = self.release(project, version).await?;
            views.push((Arc::clone(project), self.view_release(project, release).await?));
        }
        Ok(describe(&views))
    }
}

fn describe(views: &[(Arc<Project>, ReleaseView)]) -> Value {
    let Some((_, first)) = views.first() else { return Value::Null };
    let release = &first.release;
    let text = |at: Option<DateTime<Utc>>| at.map(|at| at.to_rfc3339());
    let releases = || views.iter().map(|(_, view)| &view.release);
    let projects: Vec<_> = views
        .iter()
        .map(|(project, view)| {
            json!({
                "id": project.number, "slug": project.slug, "name": project.name,
                "newGroups": view.issues.new
            })
        })
        .collect();
    json!({
        "version": release.version,
        "shortVersion": release.version,
        "status": "open",
        "ref": release.reference,
        "url": release.url,
        "dateCreated": release.created_at.to_rfc3339(),
        "dateStarted": text(release.started_at),
        "dateReleased": text(release.released_at),
        "firstEvent": text(releases().filter_map(|release| release.first_event).min()),
        "lastEvent": text(releases().filter_map(|release| release.last_event).max()),
        "newGroups": views.iter().map(|(_, view)| view.issues.new).sum::<i64>(),
        "commitCount": first.commit_count,
        "deployCount": first.deploy_count,
        "lastCommit": null, "lastDeploy": null, "authors": [], "owner": null, "data": {},
        "projects": projects,
    })
}
