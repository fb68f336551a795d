//! Threads, followed live.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{extract::State, response::Response};
use http::request::Parts;
use loom_core::{
    Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::ThreadId,
    principal::Scope,
    sse::{self, Leash},
};

use super::{EventsQuery, not_found};
use crate::{
    Threads,
    feed::watch::{self, Who},
    store,
};

/// Follow a thread.
///
/// Server-sent events: first `ready`, whose id is where the stream begins; then `message`, `state`,
/// `updated`, `visibility`, `deleted`, each with the thread's `version`, and `delta` for a text that is
/// being written. Each event that has an id comes once, in the order of the versions, also over
/// reconnects with `Last-Event-ID` and from whichever server. `reset`: what came after that id is not known any
/// more (it is kept for 7 days); read the thread again. `lagged`: this many deltas were missed.
/// `bye` is the last event: after an hour (`max_duration`), when the credential is not good any more
/// (`revoked`), when the thread is not there for you any more (`not_found`), or when the server goes down
/// (`shutdown`).
#[utoipa::path(
    get,
    path = "/api/threads/{id}/events",
    operation_id = "watch_thread",
    tag = "threads",
    params(
        ("id" = ThreadId, Path),
        EventsQuery,
        ("last-event-id" = Option<String>, Header, description = "The id of the last event seen"),
    ),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`threads:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_watchers`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn watch_thread(
    State(threads): State<Threads>,
    principal: Principal,
    Path(id): Path<ThreadId>,
    Query(query): Query<EventsQuery>,
    parts: Parts,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::ThreadsRead))?;
    let mut db = threads.pool.acquire().await?;
    let head = store::find(&mut db, principal.org, id).await?;
    let head = head.filter(|head| head.ownership().visible_to(&principal)).ok_or_else(not_found)?;
    drop(db);
    watch(&threads, principal, watch::Scope::One(head.org_id, id), query, parts).await
}

/// Follow all threads of your organisation that you may see.
///
/// As `GET /api/threads/{id}/events`, without `delta`. A thread that you may not see any more comes as
/// `deleted` with `reason: hidden`.
#[utoipa::path(
    get,
    path = "/api/threads/events",
    operation_id = "watch_threads",
    tag = "threads",
    params(
        EventsQuery,
        ("last-event-id" = Option<String>, Header, description = "The id of the last event seen"),
    ),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`threads:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_watchers`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn watch_threads(
    State(threads): State<Threads>,
    principal: Principal,
    Query(query): Query<EventsQuery>,
    parts: Parts,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::ThreadsRead))?;
    let scope = watch::Scope::All(principal.org);
    watch(&threads, principal, scope, query, parts).await
}

async fn watch(
    threads: &Threads,
    principal: Principal,
    scope: watch::Scope,
    query: EventsQuery,
    parts: Parts,
) -> Result<Response> {
    let seat = threads.feed.watchers.sit(principal.holder())?;
    let seen = parts.headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?").to_owned());
    let seen = seen.or(query.after);
    let who: Who = Arc::new(Mutex::new(principal));
    let known = Arc::clone(&who);
    let may = move |now: Principal| {
        let mut who = known.lock().unwrap_or_else(PoisonError::into_inner);
        let may = now.org == who.org && authorize(&now, Action::Use(Scope::ThreadsRead)).is_ok();
        *who = now;
        may
    };
    let recheck = sse::recheck(&threads.who, parts, may);
    let leash = Leash::new(threads.feed.leaving.clone(), recheck);
    let events = watch::events(&threads.feed, scope, who, seen.as_deref(), seat, leash).await?;
    Ok(sse::raw_response(events))
}
