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

use super::{lock_for_change, not_found, require_version, touch, versioned};
use crate::{
    Threads, check::Check, jobs, model::ThreadHead, patch::ThreadPatch, precondition::IfMatch,
    redaction::Masker, store,
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
        (status = 409, description = "`version_conflict` with `server_version`, `client_version`, `last_seq` and `missing_range`", body = Problem, content_type = "application/problem+json"),
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
    Json(mut patch): Json<ThreadPatch>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::ThreadsWrite))?;
    let if_match = IfMatch::from_headers(&headers)?;
    if threads.redacts(principal.org).await? {
        Masker::new().patch(&mut patch);
    }
    let mut check = Check::default();
    let patch = patch.check(&mut check);
    let patch = check.finish(patch)?;
    let now = threads.now();
    let mut tx = loom_db::begin(&threads.pool).await?;
    let before = lock_for_change(&mut tx, &principal, id).await?;
    require_version(&mut tx, if_match, &before).await?;

    let mut head = before.clone();
    let got_commits = store::add_commits(&mut tx, head.org_id, id, &patch.1, now).await?;
    patch.apply(&mut head);
    if got_commits || head != before {
        touch(&mut head, &before, now);
        store::update(&mut tx, &head).await?;
        threads.tell(&mut tx, Some(&before), &head).await?;
        store::index::follow(&mut tx, Some(&before), &head).await?;
    }
    head.git.commits = Some(store::commits(&mut tx, head.org_id, id).await?);
    tx.commit().await?;
    threads.feed.wrote();
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
        (status = 409, description = "`version_conflict` with `server_version`, `client_version`, `last_seq` and `missing_range`", body = Problem, content_type = "application/problem+json"),
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
    require_version(&mut tx, if_match, &before).await?;
    let mut head = before.clone();
    head.deleted_at = Some(now);
    touch(&mut head, &before, now);
    store::update(&mut tx, &head).await?;
    // Who restores the thread does not publish it again.
    store::sharing::remove(&mut *tx, head.org_id, id).await?;
    threads.tell(&mut tx, Some(&before), &head).await?;
    store::index::follow(&mut tx, Some(&before), &head).await?;
    tx.commit().await?;
    threads.feed.wrote();
    threads.cache.forget(id).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Bring a deleted thread back
///
/// Within 30 days: then it is gone for good. Deleted threads are listed by `?deleted=true`.
#[utoipa::path(
    post,
    path = "/api/threads/{id}/restore",
    operation_id = "restore_thread",
    tag = "threads",
    params(("id" = ThreadId, Path)),
    responses(
        (status = 200, description = "The thread without its messages; also when it was not deleted", body = ThreadHead, headers(("etag" = String, description = "The version, quoted"))),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn restore_thread(
    State(threads): State<Threads>,
    principal: Principal,
    Path(id): Path<ThreadId>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::ThreadsWrite))?;
    let now = threads.now();
    let mut tx = loom_db::begin(&threads.pool).await?;
    let before = store::lock(&mut tx, principal.org, id).await?.ok_or_else(not_found)?;
    before.ownership().require_change(&principal, "thread")?;
    let mut head = before.clone();
    if let Some(at) = head.deleted_at.take() {
        // The job that removes it may be late.
        if at + jobs::RESTORABLE <= now {
            return Err(not_found());
        }
        touch(&mut head, &before, now);
        store::update(&mut tx, &head).await?;
        // The index of the search has nothing of a deleted thread.
        store::drift::mend(&mut tx, head.org_id, id, true).await?;
        threads.tell(&mut tx, Some(&before), &head).await?;
    }
    head.git.commits = Some(store::commits(&mut tx, head.org_id, id).await?);
    tx.commit().await?;
    threads.feed.wrote();
    Ok(versioned(head.version, head))
}
