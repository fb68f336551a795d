//! Changes to a thread that leave its messages alone, and its deletion.

use axum::{extract::State, response::Response};
use http::{HeaderMap, StatusCode};
use loom_core::{
    Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::ThreadId,
    principal::Scope,
};

use super::{lock_for_change, touch, versioned};
use crate::{
    Threads, check::Check, model::ThreadHead, patch::ThreadPatch, precondition::IfMatch, store,
};

/// Change a thread's title, tags, pin, agent state, git facts, visibility and the like.
#[utoipa::path(
    patch,
    path = "/api/threads/{id}",
    operation_id = "patch_thread",
    tag = "threads",
    params(
        ("id" = ThreadId, Path),
        ("if-match" = Option<String>, Header, description = "Change this version only"),
    ),
    request_body = ThreadPatch,
    responses(
        (status = 200, description = "The thread without its messages", body = ThreadHead, headers(("etag" = String, description = "The version, quoted"))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`version_conflict` with `server_version` and `client_version`", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn patch_thread(
    State(threads): State<Threads>,
    principal: Principal,
    Path(id): Path<ThreadId>,
    headers: HeaderMap,
    Json(patch): Json<ThreadPatch>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::ThreadsWrite))?;
    let if_match = IfMatch::from_headers(&headers)?;
    let mut check = Check::default();
    let patch = patch.check(&mut check);
    let patch = check.finish(patch)?;
    let now = threads.now();
    let mut tx = loom_db::begin(&threads.pool).await?;
    let before = lock_for_change(&mut tx, &principal, id).await?;
    if_match.require(before.version)?;

    let mut head = before.clone();
    let got_commits = store::add_commits(&mut tx, head.org_id, id, &patch.1, now).await?;
    patch.apply(&mut head);
    if got_commits || head != before {
        touch(&mut head, &before, now);
        store::update(&mut tx, &head).await?;
        store::index::follow(&mut tx, Some(&before), &head).await?;
    }
    head.git.commits = Some(store::commits(&mut tx, head.org_id, id).await?);
    tx.commit().await?;
    Ok(versioned(head.version, head))
}

/// Delete a thread: it is gone from all answers, and its id stays taken.
#[utoipa::path(
    delete,
    path = "/api/threads/{id}",
    operation_id = "delete_thread",
    tag = "threads",
    params(
        ("id" = ThreadId, Path),
        ("if-match" = Option<String>, Header, description = "Delete this version only"),
    ),
    responses(
        (status = 204, description = "Deleted"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`version_conflict` with `server_version` and `client_version`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn delete_thread(
    State(threads): State<Threads>,
    principal: Principal,
    Path(id): Path<ThreadId>,
    headers: HeaderMap,
) -> Result<StatusCode> {
    authorize(&principal, Action::Use(Scope::ThreadsWrite))?;
    let if_match = IfMatch::from_headers(&headers)?;
    let now = threads.now();
    let mut tx = loom_db::begin(&threads.pool).await?;
    let before = lock_for_change(&mut tx, &principal, id).await?;
    if_match.require(before.version)?;
    let mut head = before.clone();
    head.deleted_at = Some(now);
    touch(&mut head, &before, now);
    store::update(&mut tx, &head).await?;
    store::index::follow(&mut tx, Some(&before), &head).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
