//! Releases: how each does, and one with all that belongs to it.

use std::collections::HashMap;

use axum::extract::State;
use chrono::{DateTime, Utc};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    page::{self, PageQuery},
    port::ReleaseFacts,
    principal::Scope,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::OfProject;
use crate::{
    Sessions,
    overview::Release,
    statistics::confidence_worse,
    store::read::{Counts, Filter, Which},
};

const TOP: usize = 5;
/// Surer than this, a difference is told as one.
const SURE: f64 = 95.0;

#[derive(Serialize, ToSchema)]
#[schema(as = AppSessionListedRelease)]
pub(crate) struct ListedRelease {
    #[serde(flatten)]
    release: Release,
    /// Issues first seen in it.
    new_issues: i64,
    /// The one that was first seen before it, where that is on the same page.
    previous: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AppSessionTopRelease)]
pub(crate) struct TopRelease {
    version: String,
    sessions_24h: i64,
    /// Per cent.
    adoption: f64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AppSessionReleasePage)]
pub(crate) struct ReleasePage {
    releases: Vec<ListedRelease>,
    /// Those with the most sessions in the last 24 hours.
    top: Vec<TopRelease>,
    next_cursor: Option<String>,
}

/// The releases of a project and how they do, those first seen last first.
#[utoipa::path(
    get,
    path = "/api/app-sessions/releases",
    operation_id = "list_app_session_releases",
    tag = "app-sessions",
    params(PageQuery, OfProject),
    responses(
        (status = 200, body = ReleasePage),
        (status = 400, description = "`invalid_cursor` or `invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`sessions:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such project", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn list_app_session_releases(
    State(sessions): State<Sessions>,
    principal: Principal,
    Query(page): Query<PageQuery>,
    Query(of): Query<OfProject>,
) -> Result<Json<ReleasePage>> {
    authorize(&principal, Action::Use(Scope::SessionsRead))?;
    let project = sessions.project(&principal, &of.project).await?;
    let filter = of.filter(&project);
    let limit = page.limit()?;
    let kind = format!("app-session-releases/{}/{:?}/{:?}", project.id, of.release, of.environment);
    let after: Option<(DateTime<Utc>, String)> = page.after_time(&kind)?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let version = filter.release.map(|version| [version.to_owned()]);
    let which = match &version {
        Some(version) => Which::Versions(version),
        None => Which::Page { after: after.as_ref(), limit: one_more },
    };
    let (found, days) = tokio::try_join!(sessions.totals(filter, which), sessions.days(filter))?;
    let names: Vec<String> = found.iter().map(|total| total.release.clone()).collect();
    let (found, next_cursor) =
        page::cut(found, limit, &kind, |total| (total.first_started, total.release.clone()));
    let versions: Vec<String> = found.iter().map(|total| total.release.clone()).collect();
    let facts = sessions.deps.crashes.releases(&project, &versions).await?;
    let releases = found.iter().enumerate().map(|(index, total)| ListedRelease {
        release: sessions.release(total, &days),
        new_issues: facts.get(&total.release).map_or(0, |facts| facts.new_issues),
        previous: names.get(index + 1).cloned(),
    });
    let top = days.now.top(TOP).into_iter().map(|(version, sessions_24h)| TopRelease {
        adoption: days.now.share(&version).unwrap_or_default(),
        version,
        sessions_24h,
    });
    Ok(Json(ReleasePage { releases: releases.collect(), top: top.collect(), next_cursor }))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReleaseQuery {
    /// Id, number or slug.
    #[serde(alias = "project_id")]
    project: String,
    environment: Option<String>,
}

/// What a difference between two releases is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AppSessionVerdict)]
pub(crate) enum Verdict {
    /// It crashes more often, with at least 95 % confidence.
    Worse,
    Better,
    /// The numbers do not tell.
    Unclear,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AppSessionComparison)]
pub(crate) struct Comparison {
    /// The release that was first seen before it.
    version: String,
    sessions: i64,
    crash_free_sessions: Option<f64>,
    crash_free_users: Option<f64>,
    /// In points of per cent; below zero: this one does worse.
    crash_free_sessions_change: Option<f64>,
    /// How sure it is that this one crashes more often, in per cent: one-sided test of two proportions.
    /// Null where there are too few sessions for the test to mean anything.
    confidence_worse: Option<f64>,
    verdict: Verdict,
}

/// The last 24 hours beside the 24 before.
#[derive(Serialize, ToSchema)]
#[schema(as = AppSessionTrend)]
pub(crate) struct Trend {
    sessions_24h: i64,
    sessions_before: i64,
    crash_free_sessions_24h: Option<f64>,
    crash_free_sessions_before: Option<f64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AppSessionDeploy)]
pub(crate) struct Deploy {
    environment: String,
    #[serde(serialize_with = "loom_core::clock::millis")]
    at: DateTime<Utc>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AppSessionThread)]
pub(crate) struct CommitThread {
    id: loom_core::id::ThreadId,
    title: Option<String>,
    /// Those of the release's commits that it has.
    commits: Vec<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AppSessionReleaseDetail)]
pub(crate) struct ReleaseDetail {
    #[serde(flatten)]
    release: Release,
    comparison: Option<Comparison>,
    trend: Trend,
    new_issues: i64,
    regressed_issues: i64,
    resolved_issues: i64,
    events: i64,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    released_at: Option<DateTime<Utc>>,
    /// The newest first.
    deploys: Vec<Deploy>,
    commits: Vec<String>,
    /// Threads that you may see in which commits of the release were made.
    threads: Vec<CommitThread>,
}

/// A release: its sessions, the one before it, issues, deploys and threads.
#[utoipa::path(
    get,
    path = "/api/app-sessions/releases/{version}",
    operation_id = "get_app_session_release",
    tag = "app-sessions",
    params(("version" = String, Path), ReleaseQuery),
    responses(
        (status = 200, body = ReleaseDetail),
        (status = 400, description = "`invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`sessions:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such project, or no session of such a release", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn get_app_session_release(
    State(sessions): State<Sessions>,
    principal: Principal,
    Path(version): Path<String>,
    Query(query): Query<ReleaseQuery>,
) -> Result<Json<ReleaseDetail>> {
    authorize(&principal, Action::Use(Scope::SessionsRead))?;
    let project = sessions.project(&principal, &query.project).await?;
    let filter = Filter {
        org: project.org,
        project: project.id,
        release: None,
        environment: query.environment.as_deref().filter(|text| !text.is_empty()),
    };
    let versions = [version];
    let (totals, days, facts) = tokio::try_join!(
        sessions.totals(filter, Which::Versions(&versions)),
        sessions.days(filter),
        sessions.deps.crashes.releases(&project, &versions),
    )?;
    let total = totals.first().ok_or_else(|| Error::not_found("release"))?;
    let facts = facts.into_values().next().unwrap_or_default();
    let release = sessions.release(total, &days);
    let which = Which::Before(total.first_started, &total.release);
    let before = sessions.totals(filter, which).await?;
    let comparison = before.first().map(|before| {
        let there = sessions.release(before, &days);
        compare(&release, &total.counts, there, &before.counts)
    });
    let (now, earlier) = (days.now.of(&total.release), days.before.of(&total.release));
    let threads = sessions.threads_of(&principal, &facts).await?;
    let ReleaseFacts { new_issues, regressed_issues, resolved_issues, events, released_at, .. } =
        facts;
    Ok(Json(ReleaseDetail {
        release,
        comparison,
        trend: Trend {
            sessions_24h: now.total(),
            sessions_before: earlier.total(),
            crash_free_sessions_24h: crate::statistics::crash_free(now.total(), now.crashed),
            crash_free_sessions_before: crate::statistics::crash_free(
                earlier.total(),
                earlier.crashed,
            ),
        },
        new_issues,
        regressed_issues,
        resolved_issues,
        events,
        released_at,
        deploys: facts
            .deploys
            .into_iter()
            .map(|(environment, at)| Deploy { environment, at })
            .collect(),
        commits: facts.commits,
        threads,
    }))
}

fn compare(here: &Release, counts: &Counts, there: Release, before: &Counts) -> Comparison {
    let confidence_worse = confidence_worse(counts, before);
    let verdict = match confidence_worse {
        Some(sure) if sure >= SURE => Verdict::Worse,
        Some(sure) if sure <= 100.0 - SURE => Verdict::Better,
        _ => Verdict::Unclear,
    };
    Comparison {
        crash_free_sessions_change: here
            .crash_free_sessions
            .zip(there.crash_free_sessions)
            .map(|(here, there)| here - there),
        version: there.version,
        sessions: there.sessions,
        crash_free_sessions: there.crash_free_sessions,
        crash_free_users: there.crash_free_users,
        confidence_worse,
        verdict,
    }
}

impl Sessions {
    async fn threads_of(
        &self,
        principal: &Principal,
        facts: &ReleaseFacts,
    ) -> Result<Vec<CommitThread>> {
        let may = authorize(principal, Action::Use(Scope::ThreadsRead)).is_ok();
        if facts.commits.is_empty() || !may {
            return Ok(Vec::new());
        }
        let by_commit = self.deps.threads.with_commits(principal, &facts.commits).await?;
        let mut at: HashMap<_, usize> = HashMap::new();
        let mut threads: Vec<CommitThread> = Vec::new();
        // In the order of the commits.
        for commit in &facts.commits {
            for thread in by_commit.get(commit).into_iter().flatten() {
                let place = *at.entry(thread.id).or_insert_with(|| {
                    threads.push(CommitThread {
                        id: thread.id,
                        title: thread.title.clone(),
                        commits: Vec::new(),
                    });
                    threads.len() - 1
                });
                if let Some(found) = threads.get_mut(place) {
                    found.commits.push(commit.clone());
                }
            }
        }
        Ok(threads)
    }
}
