//! A whole thread, read and written.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, Visibility, authorize},
    error::Problem,
    id::ThreadId,
    principal::Scope,
};
use sqlx::PgConnection;

use super::{GetQuery, not_found, touch, versioned};
use crate::{
    MAX_THREAD_BYTES, Threads,
    diff::Diff,
    draft::{CheckedThread, ThreadDraft},
    model::{AgentState, Git, Thread, ThreadHead},
    precondition::{self, IfMatch, etag},
    raw::Raw,
    store,
};

/// Read a thread.
#[utoipa::path(
    get,
    path = "/api/threads/{id}",
    operation_id = "get_thread",
    tag = "threads",
    params(
        ("id" = ThreadId, Path),
        GetQuery,
        ("if-none-match" = Option<String>, Header, description = "The `ETag` of the version at hand"),
    ),
    responses(
        (status = 200, body = Thread, headers(("etag" = String, description = "The version, quoted"))),
        (status = 304, description = "Still the version at hand"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`threads:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn get_thread(
    State(threads): State<Threads>,
    principal: Principal,
    Path(id): Path<ThreadId>,
    Query(query): Query<GetQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::ThreadsRead))?;
    // One snapshot, or the head could be of one version and the messages of the next.
    let mut tx = loom_db::begin(&threads.pool).await?;
    store::take_snapshot(&mut tx).await?;
    let head = store::find(&mut tx, principal.org, id).await?;
    let mut head =
        head.filter(|head| head.ownership().visible_to(&principal)).ok_or_else(not_found)?;
    if precondition::is_known(&headers, head.version) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag(head.version))]).into_response());
    }
    let after = query.messages_after.unwrap_or(0);
    let messages = store::messages::after(&mut tx, head.org_id, id, after, None).await?;
    head.git.commits = Some(store::commits(&mut tx, head.org_id, id).await?);
    tx.commit().await?;
    Ok(versioned(head.version, Thread { head, messages }))
}

/// Write a whole thread: create it, or replace the version that `If-Match` names.
///
/// Messages are compared with those that are stored: up to the first with another id they keep their
/// `seq`; from there on they are placed anew. Nothing changes the version but a change.
#[utoipa::path(
    put,
    path = "/api/threads/{id}",
    operation_id = "put_thread",
    tag = "threads",
    params(
        ("id" = ThreadId, Path),
        ("if-match" = Option<String>, Header, description = "The `ETag` of the version to replace, or `*` for any; absent to create"),
        ("if-none-match" = Option<String>, Header, description = "`*`: create only"),
    ),
    request_body = ThreadDraft,
    responses(
        (status = 200, description = "Replaced", body = Thread, headers(("etag" = String, description = "The version, quoted"))),
        (status = 201, description = "Created", body = Thread, headers(("etag" = String, description = "The version, quoted"), ("location" = String))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The id is not yours, or `If-Match` names a version of a thread that is not there", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`version_conflict` with `server_version` and `client_version`, or `thread_deleted`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`precondition_failed`: it exists, and `If-None-Match: *` was sent", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 428, description = "`precondition_required`: it exists, and `If-Match` is missing", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn put_thread(
    State(threads): State<Threads>,
    principal: Principal,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(draft): Json<ThreadDraft>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::ThreadsWrite))?;
    // The client makes the id, so it is told what is wrong with it.
    let id: ThreadId = id.parse().map_err(|message: String| Error::invalid("id", message))?;
    let if_match = IfMatch::from_headers(&headers)?;
    let draft = draft.check(id)?;
    let now = threads.now();
    let mut tx = loom_db::begin(&threads.pool).await?;

    let mut stored = store::lock(&mut tx, principal.org, id).await?;
    let is_new = match &stored {
        Some(_) => false,
        None if matches!(if_match, IfMatch::Version(_)) => return Err(not_found()),
        None => {
            let is_new =
                store::insert(&mut tx, &empty(&principal, id, draft.created_at, now)).await?;
            // Somebody was faster, or the id is another organisation's.
            stored = store::lock(&mut tx, principal.org, id).await?;
            is_new
        }
    };
    let before = stored.ok_or_else(not_found)?;
    if !is_new {
        before.ownership().require_change(&principal, "thread")?;
        if before.deleted_at.is_some() {
            return Err(deleted());
        }
        if precondition::creates_only(&headers) {
            return Err(precondition::exists(before.version));
        }
        if if_match == IfMatch::Absent {
            return Err(precondition::required(before.version));
        }
        if_match.require(before.version)?;
    }
    let thread = replace(&mut tx, &before, is_new, draft, now).await?;
    tx.commit().await?;

    let location = HeaderValue::try_from(format!("/api/threads/{id}")).map_err(Error::internal)?;
    let answer = versioned(thread.head.version, thread);
    Ok(if is_new {
        (StatusCode::CREATED, [(header::LOCATION, location)], answer).into_response()
    } else {
        answer
    })
}

/// Brings the stored thread to what the draft says.
async fn replace(
    db: &mut PgConnection,
    before: &ThreadHead,
    is_new: bool,
    draft: CheckedThread,
    now: DateTime<Utc>,
) -> Result<Thread> {
    let (org, id) = (before.org_id, before.id);
    let stored =
        if is_new { Vec::new() } else { store::messages::digests(&mut *db, org, id).await? };
    let diff = Diff::between(stored, draft.messages, before.last_seq, now);
    if diff.bytes() > MAX_THREAD_BYTES as i64 {
        return Err(Error::too_large("the messages of a thread have at most 32 MiB together"));
    }
    let mut head = before.clone();
    let got_commits = store::add_commits(&mut *db, org, id, &draft.patch.1, now).await?;
    draft.patch.apply(&mut head);
    head.last_seq = diff.last_seq;
    head.message_count = i32::try_from(diff.count()).map_err(Error::internal)?;
    head.message_bytes = diff.bytes();
    if is_new || got_commits || head != *before || !diff.is_empty() {
        touch(&mut head, before, now);
        if !diff.changed.is_empty() {
            head.last_activity_at = head.updated_at;
        }
        if is_new {
            head.version = before.version;
        }
        if let Some(seq) = diff.remove_after {
            store::messages::remove_after(&mut *db, org, id, seq).await?;
        }
        store::messages::update(&mut *db, org, id, &diff.changed).await?;
        store::messages::insert(&mut *db, org, id, &diff.added).await?;
        store::update(&mut *db, &head).await?;
        store::index::follow(&mut *db, (!is_new).then_some(before), &head).await?;
    }
    head.git.commits = Some(store::commits(db, org, id).await?);
    Ok(Thread { head, messages: diff.into_messages() })
}

/// A thread at its creation, before the draft is laid over it.
fn empty(
    principal: &Principal,
    id: ThreadId,
    created_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> ThreadHead {
    ThreadHead {
        id,
        version: 1,
        last_seq: 0,
        message_count: 0,
        created_at: created_at.map_or(now, |at| at.min(now)),
        updated_at: now,
        last_activity_at: now,
        title: None,
        tags: Vec::new(),
        is_pinned: false,
        visibility: Visibility::default(),
        org_id: principal.org,
        owner_user_id: principal.user_id(),
        workspace: None,
        client: None,
        provider: None,
        model: None,
        git: sqlx::types::Json(Git::default()),
        agent_state: sqlx::types::Json(AgentState::default()),
        extra: Some(sqlx::types::Json(Raw::empty_object())),
        message_bytes: 0,
        deleted_at: None,
    }
}

fn deleted() -> Error {
    Error::conflict("thread_deleted", "this thread was deleted; write it under another id")
}
