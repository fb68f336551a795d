//! The list of threads.

use axum::extract::State;
use loom_core::{
    Json, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    page::{self, PageQuery},
    principal::Scope,
};

use crate::{
    Threads,
    list::{ListQuery, ThreadPage},
    store,
};

/// The threads that you may see, newest activity first.
#[utoipa::path(
    get,
    path = "/api/threads",
    operation_id = "list_threads",
    tag = "threads",
    params(PageQuery, ListQuery),
    responses(
        (status = 200, body = ThreadPage),
        (status = 400, description = "`invalid_cursor` or `invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`threads:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn list_threads(
    State(threads): State<Threads>,
    principal: Principal,
    Query(page): Query<PageQuery>,
    Query(query): Query<ListQuery>,
) -> Result<Json<ThreadPage>> {
    authorize(&principal, Action::Use(Scope::ThreadsRead))?;
    let filter = query.check(&principal)?;
    let kind = filter.kind();
    let limit = page.limit()?;
    let after = page.after_time(&kind)?;
    let mut db = threads.pool.acquire().await?;
    // One more than asked for tells whether there is a next page.
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found = store::list::list(&mut db, &principal, &filter, after, one_more).await?;
    let (threads, next_cursor) =
        page::cut(found, limit, &kind, |head| (head.last_activity_at, head.id.0));
    Ok(Json(ThreadPage { threads, next_cursor }))
}
