//! A whole thread, read and written.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
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

use super::{GetQuery, append::lacks_content, not_found, require_version, touch, versioned};
use crate::{
    MAX_THREAD_BYTES, Threads,
    diff::Diff,
    draft::{CheckedThread, ThreadDraft},
    model::{AgentState, Git, Thread, ThreadHead},
    precondition::{self, IfMatch, etag},
    raw::Raw,
    redaction::Masker,
    store::{self, messages::Outputs},
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
    let is_whole = query.messages_after.is_none() && query.outputs == Outputs::Full;
    if threads.config.cache_bytes > 0 && is_whole {
        let mut db = threads.pool.acquire().await?;
        let head = visible(&mut db, &principal, id).await?;
        if precondition::is_known(&headers, head.version) {
            return Ok(not_modified(head.version));
        }
        if let Some(body) = threads.cache.get(&head).await {
            return Ok(whole(head.version, body));
        }
    }
    // One snapshot, or the head could be of one version and the messages of the next.
    let mut tx = loom_db::begin(&threads.pool).await?;
    store::take_snapshot(&mut tx).await?;
    let mut head = visible(&mut tx, &principal, id).await?;
    if precondition::is_known(&headers, head.version) {
        return Ok(not_modified(head.version));
    }
    let after = query.messages_after.unwrap_or(0);
    let messages =
        store::messages::after(&mut tx, head.org_id, id, after, None, query.outputs).await?;
    head.git.commits = Some(store::commits(&mut tx, head.org_id, id).await?);
    tx.commit().await?;
    let version = head.version;
    let thread = Thread { head, messages };
    let body = Bytes::from(serde_json::to_vec(&thread).map_err(Error::internal)?);
    if is_whole {
        threads.cache.put(&thread.head, body.clone()).await;
    }
    Ok(whole(version, body))
}

async fn visible(db: &mut PgConnection, principal: &Principal, id: ThreadId) -> Result<ThreadHead> {
    let head = store::find(db, principal.org, id).await?;
    head.filter(|head| head.ownership().visible_to(principal)).ok_or_else(not_found)
}

fn not_modified(version: i64) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, etag(version))]).into_response()
}

fn whole(version: i64, body: Bytes) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json), (header::ETAG, etag(version))], body).into_response()
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
        (status = 409, description = "`version_conflict` with `server_version`, `client_version`, `last_seq` and `missing_range`, or `thread_deleted`", body = Problem, content_type = "application/problem+json"),
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
    let draft = threads.checked(&principal, id, draft).await?;
    let now = threads.now();
    let mut tx = loom_db::begin(&threads.pool).await?;

    let mut stored = store::lock(&mut tx, principal.org, id).await?;
    let is_new = match &stored {
        Some(_) => false,
        None if matches!(if_match, IfMatch::Version(_)) => return Err(not_found()),
        None => {
            let is_new =
                store::insert(&mut tx, &empty(&principal, id, draft.created_at, now)).await?;
            if !is_new {
                // Somebody was faster, or the id is another organisation's. A transaction that began
                // to write before theirs ended must not write to their thread: its events would come
                // before theirs.
                tx.rollback().await?;
                tx = loom_db::begin(&threads.pool).await?;
            }
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
        require_version(&mut tx, if_match, &before).await?;
    }
    let thread = replace(&threads, &mut tx, &before, is_new, draft, now).await?;
    tx.commit().await?;
    threads.feed.wrote();

    let location = HeaderValue::try_from(format!("/api/threads/{id}")).map_err(Error::internal)?;
    let answer = versioned(thread.head.version, thread);
    Ok(if is_new {
        (StatusCode::CREATED, [(header::LOCATION, location)], answer).into_response()
    } else {
        answer
    })
}

/// A thread that is not there yet; none when its id is taken.
pub(super) async fn create(
    threads: &Threads,
    db: &mut PgConnection,
    principal: &Principal,
    id: ThreadId,
    draft: CheckedThread,
    now: DateTime<Utc>,
) -> Result<Option<Thread>> {
    let before = empty(principal, id, draft.created_at, now);
    if !store::insert(&mut *db, &before).await? {
        return Ok(None);
    }
    replace(threads, db, &before, true, draft, now).await.map(Some)
}

impl Threads {
    async fn checked(
        &self,
        principal: &Principal,
        id: ThreadId,
        mut draft: ThreadDraft,
    ) -> Result<CheckedThread> {
        if self.redacts(principal.org).await? {
            Masker::new().draft(&mut draft);
        }
        draft.check(id)
    }
}

/// Brings the stored thread to what the draft says.
async fn replace(
    threads: &Threads,
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
    if let Some(id) = diff.lacking_content() {
        tracing::debug!(id, "a message came without its content");
        return Err(lacks_content());
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
        store::messages::update(&mut *db, org, id, head.version, &diff.changed).await?;
        store::messages::insert(&mut *db, org, id, head.version, &diff.added).await?;
        store::update(&mut *db, &head).await?;
        let (known, removed) = ((!is_new).then_some(before), diff.remove_after.is_some());
        threads.tell_messages(&mut *db, known, &head, diff.written(), removed).await?;
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
