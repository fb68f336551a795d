//! Read-only links, and what they would show.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use loom_core::{
    Error, Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::ThreadId,
    principal::{RequestInfo, Scope},
};
use serde_json::json;

use super::{lock_for_change, not_found};
use crate::{
    Threads,
    model::ThreadHead,
    redaction::Masker,
    share::{self, Finding, MAX_FINDINGS, NewShare, Share, SharePreview, SharedThread},
    share_page,
    store::{self, messages::Outputs, sharing::ShareRow},
};

/// Make a link
///
/// Whoever has it reads the thread, signed in or not. The link before it ends. It shows the messages
/// up to the last one of now, with what looks like a secret masked, unless other is asked for.
#[utoipa::path(
    post,
    path = "/api/threads/{id}/share",
    operation_id = "share_thread",
    tag = "threads",
    params(("id" = ThreadId, Path)),
    request_body = NewShare,
    responses(
        (status = 201, description = "The token is told this once", body = Share),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn share_thread(
    State(threads): State<Threads>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<ThreadId>,
    Json(new): Json<NewShare>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::ThreadsWrite))?;
    let now = threads.now();
    if new.expires_at.is_some_and(|at| at <= now || !loom_core::clock::is_storable(at)) {
        return Err(Error::invalid("expires_at", "is a time to come"));
    }
    let (token, hash) = share::new_token();
    let mut tx = loom_db::begin(&threads.pool).await?;
    let head = lock_for_change(&mut tx, &principal, id).await?;
    let row = ShareRow {
        created_at: now,
        expires_at: new.expires_at,
        through_seq: (!new.live).then_some(head.last_seq),
        redact: new.redact.unwrap_or(true),
    };
    store::sharing::put(&mut *tx, head.org_id, id, &hash, principal.user_id(), &row).await?;
    tx.commit().await?;
    let details = json!({"live": new.live, "expires_at": new.expires_at, "redact": row.redact});
    threads.audit.done(&principal, &info, "thread.share", id.to_string(), details).await?;
    let url = format!("{}/api/threads/shared/{token}", threads.config.base_url);
    let share = Share { token: Some(token), url: Some(url), ..shown(&row) };
    Ok((StatusCode::CREATED, Json(share)).into_response())
}

/// Withdraw the link
#[utoipa::path(
    delete,
    path = "/api/threads/{id}/share",
    operation_id = "unshare_thread",
    tag = "threads",
    params(("id" = ThreadId, Path)),
    responses(
        (status = 204, description = "There is no link any more"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn unshare_thread(
    State(threads): State<Threads>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<ThreadId>,
) -> Result<StatusCode> {
    authorize(&principal, Action::Use(Scope::ThreadsWrite))?;
    let mut tx = loom_db::begin(&threads.pool).await?;
    let head = lock_for_change(&mut tx, &principal, id).await?;
    let removed = store::sharing::remove(&mut *tx, head.org_id, id).await?;
    tx.commit().await?;
    if removed {
        let details = json!({});
        threads.audit.done(&principal, &info, "thread.unshare", id.to_string(), details).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// What a link would show
///
/// Before a thread is shared, or made visible to more people: how much it is, and what in it looks
/// like a secret.
#[utoipa::path(
    get,
    path = "/api/threads/{id}/share",
    operation_id = "preview_share",
    tag = "threads",
    params(("id" = ThreadId, Path)),
    responses(
        (status = 200, body = SharePreview),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn preview_share(
    State(threads): State<Threads>,
    principal: Principal,
    Path(id): Path<ThreadId>,
) -> Result<Json<SharePreview>> {
    authorize(&principal, Action::Use(Scope::ThreadsWrite))?;
    let mut tx = loom_db::begin(&threads.pool).await?;
    store::take_snapshot(&mut tx).await?;
    let head = store::find(&mut tx, principal.org, id).await?.ok_or_else(not_found)?;
    head.ownership().require_change(&principal, "thread")?;
    let messages = store::messages::after(&mut tx, head.org_id, id, 0, None, Outputs::Full).await?;
    let share = store::sharing::get(&mut *tx, head.org_id, id).await?;
    tx.commit().await?;
    // Up to 32 MiB are searched: not where requests are served.
    let preview = move || preview(head, messages, share.as_ref());
    let preview = tokio::task::spawn_blocking(preview).await.map_err(Error::internal)?;
    Ok(Json(preview))
}

fn preview(
    head: ThreadHead,
    messages: Vec<crate::Message>,
    share: Option<&ShareRow>,
) -> SharePreview {
    let mut all = Masker::new();
    let mut title = head.title.clone().unwrap_or_default();
    all.text(&mut title);
    // Not in a link, but seen with a wider visibility.
    for mut tag in head.tags.iter().cloned() {
        all.text(&mut tag);
    }
    if let Some(mut extra) = head.extra.clone() {
        all.raw(&mut extra);
    }
    let count = messages.len();
    let tools = messages.iter().filter(|message| message.role == crate::Role::Tool).count();
    let mut findings = Vec::new();
    for mut message in messages {
        let mut own = Masker::new();
        own.message(&mut message);
        if own.is_clean() {
            continue;
        }
        all.merge(&own);
        if findings.len() < MAX_FINDINGS {
            findings.push(Finding { seq: message.seq, id: message.id, secrets: own.found() });
        }
    }
    SharePreview {
        title: head.title,
        visibility: head.visibility,
        messages: count,
        bytes: head.message_bytes,
        tool_messages: tools,
        secrets: all.found(),
        findings,
        share: share.map(shown),
    }
}

fn shown(row: &ShareRow) -> Share {
    Share {
        token: None,
        url: None,
        created_at: row.created_at,
        expires_at: row.expires_at,
        live: row.through_seq.is_none(),
        through_seq: row.through_seq,
        redact: row.redact,
    }
}

/// Read a shared thread
///
/// For whoever has the link. A browser gets a page, everybody else JSON.
#[utoipa::path(
    get,
    path = "/api/threads/shared/{token}",
    operation_id = "get_shared_thread",
    tag = "threads",
    params(("token" = String, Path)),
    responses(
        (status = 200, body = SharedThread),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(()),
)]
pub(crate) async fn get_shared_thread(
    State(threads): State<Threads>,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let hash = share::parse(&token)?;
    let mut tx = loom_db::begin(&threads.pool).await?;
    store::take_snapshot(&mut tx).await?;
    let found = store::sharing::by_token(&mut tx, &hash, threads.clock.now()).await?;
    let (share, head) = found.ok_or_else(share::no_such_link)?;
    let shown = 0..share.through_seq.unwrap_or(i64::MAX);
    let messages =
        store::messages::between(&mut tx, head.org_id, head.id, shown, None, Outputs::Full).await?;
    tx.commit().await?;
    let wants_page = wants_page(&headers);
    let build = move || {
        let thread = shared(head, messages, &share);
        if wants_page { share_page::page(&thread) } else { Json(thread).into_response() }
    };
    let mut response = tokio::task::spawn_blocking(build).await.map_err(Error::internal)?;
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-robots-tag", "noindex, nofollow, noarchive"),
        ("cache-control", "private, no-store"),
        // The address is the key.
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("vary", "accept"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Ok(response)
}

fn shared(head: ThreadHead, messages: Vec<crate::Message>, share: &ShareRow) -> SharedThread {
    let mut thread = SharedThread {
        title: head.title,
        provider: head.provider,
        model: head.model,
        created_at: head.created_at,
        last_activity_at: head.last_activity_at,
        is_frozen: share.through_seq.is_some_and(|last| last < head.last_seq),
        messages,
    };
    let mut masker = Masker::new();
    for message in &mut thread.messages {
        // Tokens and cost are the owner's business.
        message.usage = None;
        if share.redact {
            masker.message(message);
        }
    }
    if let Some(title) = thread.title.as_mut().filter(|_| share.redact) {
        masker.text(title);
    }
    thread
}

fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}
