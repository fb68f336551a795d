//! One message, whole.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use loom_core::{
    Error, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::ThreadId,
    principal::Scope,
};

use super::{not_found, versioned};
use crate::{
    Threads,
    message::Message,
    precondition::{self, etag},
    store::{self, messages::Outputs},
};

/// Read one message with all of its content.
#[utoipa::path(
    get,
    path = "/api/threads/{id}/messages/{seq}",
    operation_id = "get_message",
    tag = "threads",
    params(
        ("id" = ThreadId, Path),
        ("seq" = i64, Path, description = "The message's `seq`"),
        ("if-none-match" = Option<String>, Header, description = "The `ETag` of the thread's version at hand"),
    ),
    responses(
        (status = 200, body = Message, headers(("etag" = String, description = "The thread's version, quoted"))),
        (status = 304, description = "Still the version at hand"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`threads:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn get_message(
    State(threads): State<Threads>,
    principal: Principal,
    Path((id, seq)): Path<(ThreadId, i64)>,
    headers: HeaderMap,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::ThreadsRead))?;
    let mut tx = loom_db::begin(&threads.pool).await?;
    store::take_snapshot(&mut tx).await?;
    let head = store::find(&mut tx, principal.org, id).await?;
    let head = head.filter(|head| head.ownership().visible_to(&principal)).ok_or_else(not_found)?;
    if precondition::is_known(&headers, head.version) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag(head.version))]).into_response());
    }
    let before = seq.checked_sub(1).ok_or_else(|| Error::not_found("message"))?;
    let found =
        store::messages::after(&mut tx, head.org_id, id, before, Some(1), Outputs::Full).await?;
    tx.commit().await?;
    let message = found.into_iter().find(|message| message.seq == seq);
    Ok(versioned(head.version, message.ok_or_else(|| Error::not_found("message"))?))
}
