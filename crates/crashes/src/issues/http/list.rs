//! Lists of issues.

use axum::extract::State;
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    page::{self, PageQuery},
    principal::Scope,
};

use super::super::{
    list::{ListQuery, Sort},
    model::IssuePage,
    store::{self, list::Scope as Where},
};
use crate::Crashes;

/// The issues of a project, by the search language
///
/// `query` takes terms that must all hold, as `is:unresolved level:error release:1.2 environment:prod
/// assigned:me user.email:*@example.com browser.name:Firefox has:url !has:release first_seen:>2026-01-01
/// last_seen:-24h times_seen:>100 "free text"`: `!` before a term is its contrary, `*` stands for anything,
/// `key:[a, b]` is one of several, quotes hold spaces. What is none of the keys of the language is a tag.
/// What cannot be understood is a 422 with its `position` and what there is instead.
#[utoipa::path(get, path = "/api/crash/projects/{project}/issues", operation_id = "list_crash_issues", tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), PageQuery, ListQuery),
    responses((status = 200, body = IssuePage),
        (status = 400, description = "`invalid_cursor` or `invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The query is not understood: `position` says where", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_crash_issues(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(project): Path<String>,
    Query(page): Query<PageQuery>,
    Query(query): Query<ListQuery>,
) -> Result<Json<IssuePage>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project_head(&principal, &project).await?;
    find(&crashes, &principal, Where::Project(project.id), &page, &query).await
}

/// The issues of all projects of your organisation, the last event first
///
/// The search language is that of `GET /api/crash/projects/{project}/issues`.
#[utoipa::path(get, path = "/api/crash/issues", operation_id = "list_all_crash_issues", tag = "crashes",
    security(("api_key" = [])), params(PageQuery, ListQuery),
    responses((status = 200, body = IssuePage),
        (status = 400, description = "`invalid_cursor` or `invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The query is not understood, or sorted otherwise than by `last_seen`", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_all_crash_issues(
    State(crashes): State<Crashes>,
    principal: Principal,
    Query(page): Query<PageQuery>,
    Query(query): Query<ListQuery>,
) -> Result<Json<IssuePage>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    if query.sort != Sort::LastSeen {
        let message =
            "issues of all projects come in the order of `last_seen`; ask a project for others";
        return Err(Error::invalid("sort", message));
    }
    let projects = store::projects(&crashes.deps.pool, principal.org).await?;
    find(&crashes, &principal, Where::Organisation(&projects), &page, &query).await
}

async fn find(
    crashes: &Crashes,
    principal: &Principal,
    scope: Where<'_>,
    page: &PageQuery,
    query: &ListQuery,
) -> Result<Json<IssuePage>> {
    let listing = query.check(principal, crashes.deps.clock.now())?;
    let limit = page.limit()?;
    let after = listing.after(page)?;
    // One more than asked for tells whether there is a next page.
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let pool = &crashes.deps.pool;
    let found = store::list::list(pool, principal.org, scope, &listing, after, one_more).await?;
    let (issues, next_cursor) =
        page::cut(found, limit, &listing.kind, |issue| listing.position(issue));
    Ok(Json(IssuePage { issues, next_cursor }))
}
