//! An agent's heartbeat: while it holds the lease of a thread, the thread's state is believed.

use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use http::StatusCode;
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::ThreadId,
    principal::Scope,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ReleaseQuery, lock_for_change};
use crate::{
    Threads,
    check::Check,
    model::AgentStateKind,
    redaction::Masker,
    store::{self, lease::Held},
};

const MAX_HOLDER_BYTES: usize = 200;
const TTL_SECS: std::ops::RangeInclusive<u32> = 5..=600;

#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct LeaseRequest {
    /// How long the holder may be silent: 5 to 600. Renew it after a third of that.
    #[schema(minimum = 5, maximum = 600)]
    pub ttl_secs: u32,
    /// What the agent calls itself: one line of up to 200 bytes, the same at each renewal.
    #[schema(max_length = 200)]
    pub holder: String,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Lease {
    pub holder: String,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub expires_at: DateTime<Utc>,
    /// Where the thread stands, so that a holder learns that it was given up (`error`) or written by
    /// somebody else.
    pub version: i64,
    pub state: AgentStateKind,
}

/// Take or renew the lease of a thread.
///
/// When it runs out while the agent's state is `calling_llm`, `processing_llm_response` or
/// `executing_tools`, the state becomes `error` with `last_error: lost`, at most 30 s later. The version
/// stays: a heartbeat is no change. A thread whose agent works without a lease is given up ten minutes
/// after its last write.
#[utoipa::path(
    put,
    path = "/api/threads/{id}/lease",
    operation_id = "lease_thread",
    tag = "threads",
    params(("id" = ThreadId, Path)),
    request_body = LeaseRequest,
    responses(
        (status = 200, body = Lease),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`lease_held`, with `holder` and `expires_at`", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn lease_thread(
    State(threads): State<Threads>,
    principal: Principal,
    Path(id): Path<ThreadId>,
    Json(request): Json<LeaseRequest>,
) -> Result<Json<Lease>> {
    authorize(&principal, Action::Use(Scope::ThreadsWrite))?;
    let mut check = Check::default();
    check.line("holder", &request.holder, MAX_HOLDER_BYTES);
    if !TTL_SECS.contains(&request.ttl_secs) {
        check.wrong("ttl_secs", format!("is {} to {}", TTL_SECS.start(), TTL_SECS.end()));
    }
    let LeaseRequest { ttl_secs, mut holder } = check.finish(request)?;
    if threads.redacts(principal.org).await? {
        Masker::new().text(&mut holder);
    }
    let now = threads.now();
    let mut tx = loom_db::begin(&threads.pool).await?;
    let head = lock_for_change(&mut tx, &principal, id).await?;
    let held = store::lease::held(&mut tx, head.org_id, id, now).await?;
    if let Some(held) = held.filter(|held| held.holder != holder) {
        return Err(is_held(&held));
    }
    let expires_at = now + TimeDelta::seconds(i64::from(ttl_secs));
    store::lease::set(&mut tx, head.org_id, id, Some(&holder), Some(expires_at)).await?;
    tx.commit().await?;
    Ok(Json(Lease { holder, expires_at, version: head.version, state: head.agent_state.kind }))
}

/// Give the lease of a thread back.
#[utoipa::path(
    delete,
    path = "/api/threads/{id}/lease",
    operation_id = "release_thread",
    tag = "threads",
    params(("id" = ThreadId, Path), ReleaseQuery),
    responses(
        (status = 204, description = "Nobody holds it"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`lease_held` by another holder", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn release_thread(
    State(threads): State<Threads>,
    principal: Principal,
    Path(id): Path<ThreadId>,
    Query(mut query): Query<ReleaseQuery>,
) -> Result<StatusCode> {
    authorize(&principal, Action::Use(Scope::ThreadsWrite))?;
    if let Some(holder) = &mut query.holder
        && threads.redacts(principal.org).await?
    {
        Masker::new().text(holder);
    }
    let now = threads.now();
    let mut tx = loom_db::begin(&threads.pool).await?;
    let head = lock_for_change(&mut tx, &principal, id).await?;
    if let Some(held) = store::lease::held(&mut tx, head.org_id, id, now).await? {
        if query.holder.is_some_and(|holder| holder != held.holder) {
            return Err(is_held(&held));
        }
        let silent_until = head.agent_state.kind.is_working().then(|| now + store::lease::SILENCE);
        store::lease::set(&mut tx, head.org_id, id, None, silent_until).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn is_held(held: &Held) -> Error {
    let until = held.until.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    Error::conflict(
        "lease_held",
        format!(
            "`{}` works on this thread until {until}; wait for it, or take the lease away with DELETE",
            held.holder
        ),
    )
    .with("holder", held.holder.clone())
    .with("expires_at", until)
}
