//! What is known of an issue.

use axum::extract::State;
use chrono::{DurationRound, TimeDelta};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    page::{self, PageQuery},
    principal::Scope,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        activity,
        list::{Interval, SeriesQuery, checked_time},
        model::{ActivityPage, IssueDetail, Point, Tag},
        store::{self, detail::Of},
    },
    issue_of,
};
use crate::Crashes;

/// Values of each tag in the detail, and of one that is asked for by itself.
const FEW: i64 = 5;
const MANY: i64 = 200;
/// Points of a series.
const POINTS: i64 = 2200;
const ACTIVITY: &str = "crash_issue_activity";

/// An issue with what explains it
///
/// Why its events are one issue, how often it comes, what they have in common, and what was merged into it.
#[utoipa::path(get, path = "/api/crash/projects/{project}/issues/{issue}", operation_id = "get_crash_issue", tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`")),
    responses((status = 200, body = IssueDetail),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_crash_issue(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, named)): Path<(String, String)>,
) -> Result<Json<IssueDetail>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project_head(&principal, &project).await?;
    let mut db = crashes.deps.pool.acquire().await?;
    let issue = issue_of(&mut db, &principal, &project, &named).await?;
    let (org, of, now) = (principal.org, Of::Issue(issue.id), crashes.deps.clock.now());
    let (hour, day) = (TimeDelta::hours(1), TimeDelta::days(1));
    let grouping = store::detail::hashes(&mut db, org, issue.id).await?;
    let [from_hour, from_day] = [now - hour * 23, now - day * 29];
    // Also on the hour is the hour that begins the running one.
    let now = now + TimeDelta::microseconds(1);
    let last_24_hours = store::detail::series(&mut db, org, of, None, hour, from_hour, now).await?;
    let last_30_days = store::detail::series(&mut db, org, of, None, day, from_day, now).await?;
    let tags = store::detail::tags(&mut db, org, issue.id, None, FEW).await?;
    let merged = store::detail::merged(&mut db, org, issue.id).await?;
    Ok(Json(IssueDetail { issue, grouping, last_24_hours, last_30_days, tags, merged }))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IssueTags)]
pub(crate) struct Tags {
    tags: Vec<Tag>,
}

/// The tags of an issue's events, with their most frequent values
#[utoipa::path(get, path = "/api/crash/projects/{project}/issues/{issue}/tags", operation_id = "list_crash_issue_tags", tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`")),
    responses((status = 200, body = Tags),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_crash_issue_tags(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, named)): Path<(String, String)>,
) -> Result<Json<Tags>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project_head(&principal, &project).await?;
    let mut db = crashes.deps.pool.acquire().await?;
    let issue = issue_of(&mut db, &principal, &project, &named).await?;
    let tags = store::detail::tags(&mut db, principal.org, issue.id, None, FEW).await?;
    Ok(Json(Tags { tags }))
}

/// One tag of an issue's events: up to 200 values, the most frequent first
#[utoipa::path(get, path = "/api/crash/projects/{project}/issues/{issue}/tags/{key}", operation_id = "get_crash_issue_tag", tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`"),
        ("key" = String, Path, description = "The tag, as `browser.name`")),
    responses((status = 200, body = Tag),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_crash_issue_tag(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, named, key)): Path<(String, String, String)>,
) -> Result<Json<Tag>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project_head(&principal, &project).await?;
    let mut db = crashes.deps.pool.acquire().await?;
    let issue = issue_of(&mut db, &principal, &project, &named).await?;
    let tags = store::detail::tags(&mut db, principal.org, issue.id, Some(&key), MANY).await?;
    let tag = tags.into_iter().next().ok_or_else(|| Error::not_found("tag"))?;
    Ok(Json(tag))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IssueSeries)]
pub(crate) struct Series {
    /// One for every hour or day, also where there were no events.
    points: Vec<Point>,
}

impl SeriesQuery {
    async fn answer(
        &self,
        crashes: &Crashes,
        principal: &Principal,
        of: Of,
    ) -> Result<Json<Series>> {
        let step = match self.interval {
            Interval::Hour => TimeDelta::hours(1),
            Interval::Day => TimeDelta::days(1),
        };
        let to = checked_time("to", self.to)?
            .unwrap_or_else(|| crashes.deps.clock.now() + TimeDelta::microseconds(1));
        let back = if self.interval == Interval::Hour { step * 23 } else { step * 29 };
        let from = checked_time("from", self.from)?.unwrap_or(to - back);
        if from >= to {
            return Err(Error::invalid("from", "is before `to`"));
        }
        let begin = from.duration_trunc(step).unwrap_or(from);
        if (to - begin).num_seconds() / step.num_seconds().max(1) >= POINTS {
            let message =
                format!("a series has at most {POINTS} points; ask for days, or a shorter time");
            return Err(Error::invalid("from", message));
        }
        let mut db = crashes.deps.pool.acquire().await?;
        let environment = self.environment.as_deref();
        let points =
            store::detail::series(&mut db, principal.org, of, environment, step, from, to).await?;
        Ok(Json(Series { points }))
    }
}

/// Events of an issue by the hour or the day
#[utoipa::path(get, path = "/api/crash/projects/{project}/issues/{issue}/series", operation_id = "get_crash_issue_series", tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`"), SeriesQuery),
    responses((status = 200, body = Series),
        (status = 400, description = "`invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_crash_issue_series(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, named)): Path<(String, String)>,
    Query(query): Query<SeriesQuery>,
) -> Result<Json<Series>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project_head(&principal, &project).await?;
    let mut db = crashes.deps.pool.acquire().await?;
    let issue = issue_of(&mut db, &principal, &project, &named).await?;
    drop(db);
    query.answer(&crashes, &principal, Of::Issue(issue.id)).await
}

/// Events of all projects by the hour or the day
#[utoipa::path(get, path = "/api/crash/series", operation_id = "get_crash_series", tag = "crashes",
    security(("api_key" = [])), params(SeriesQuery),
    responses((status = 200, body = Series),
        (status = 400, description = "`invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_crash_series(
    State(crashes): State<Crashes>,
    principal: Principal,
    Query(query): Query<SeriesQuery>,
) -> Result<Json<Series>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    query.answer(&crashes, &principal, Of::All).await
}

/// Events of a project by the hour or the day
#[utoipa::path(get, path = "/api/crash/projects/{project}/series", operation_id = "get_crash_project_series", tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), SeriesQuery),
    responses((status = 200, body = Series),
        (status = 400, description = "`invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_crash_project_series(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(project): Path<String>,
    Query(query): Query<SeriesQuery>,
) -> Result<Json<Series>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project_head(&principal, &project).await?;
    query.answer(&crashes, &principal, Of::Project(project.id)).await
}

/// Who did what to an issue, the newest first
#[utoipa::path(get, path = "/api/crash/projects/{project}/issues/{issue}/activity", operation_id = "list_crash_issue_activity", tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`"), PageQuery),
    responses((status = 200, body = ActivityPage),
        (status = 400, description = "`invalid_cursor`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_crash_issue_activity(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, named)): Path<(String, String)>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ActivityPage>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let limit = page.limit()?;
    let after = page.after(ACTIVITY)?;
    let project = crashes.project_head(&principal, &project).await?;
    let mut db = crashes.deps.pool.acquire().await?;
    let issue = issue_of(&mut db, &principal, &project, &named).await?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found = activity::list(&mut db, principal.org, issue.id, after, one_more).await?;
    let (activity, next_cursor) = page::cut(found, limit, ACTIVITY, |one| one.id);
    Ok(Json(ActivityPage { activity, next_cursor }))
}
