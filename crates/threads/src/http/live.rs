//! A message while it is being written.

use axum::extract::State;
use loom_core::{
    Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::ThreadId,
    principal::Scope,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Threads,
    check::Check,
    live::{End, Piece},
    message::MAX_ID_BYTES,
    raw::{Kind, Raw},
};

#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct DeltaRequest {
    /// The message's id: any text of up to 200 bytes. With the first piece the message begins, with the
    /// role `assistant`.
    pub id: String,
    /// Where the piece begins in the text, in bytes of UTF-8. A piece may repeat the end of what was sent.
    pub offset: u64,
    pub text: String,
    /// The text is complete: it is stored when the answer comes.
    #[serde(default)]
    pub done: bool,
    /// With `done`: the calls that the assistant asks for.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tool_calls: Option<Raw>,
    /// With `done`: tokens and the like.
    #[schema(value_type = Option<Object>)]
    pub usage: Option<Raw>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct DeltaTaken {
    pub id: String,
    pub seq: i64,
    /// Bytes of the text: the next piece begins here.
    pub length: u64,
    /// Bytes that are stored, and survive this server.
    pub stored_length: u64,
}

/// Write a message piece by piece.
///
/// Whoever follows the thread gets each piece at once, as `delta`. The text is stored with its first
/// piece, at most once a second while it grows, and with `done`; each time is a change of the thread.
/// After 409 `offset_conflict` (a server has gone, or the request went to another), go on from `length`.
#[utoipa::path(
    post,
    path = "/api/threads/{id}/deltas",
    operation_id = "write_delta",
    tag = "threads",
    params(("id" = ThreadId, Path)),
    request_body = DeltaRequest,
    responses(
        (status = 200, body = DeltaTaken),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`offset_conflict` with `length`, or `not_a_text`", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_texts`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn write_delta(
    State(threads): State<Threads>,
    principal: Principal,
    Path(id): Path<ThreadId>,
    Json(request): Json<DeltaRequest>,
) -> Result<Json<DeltaTaken>> {
    authorize(&principal, Action::Use(Scope::ThreadsWrite))?;
    let mut check = Check::default();
    check.line("id", &request.id, MAX_ID_BYTES);
    if !request.done && (request.tool_calls.is_some() || request.usage.is_some()) {
        check.wrong("done", "is true where `tool_calls` or `usage` come");
    }
    if let Some(calls) = &request.tool_calls {
        check.raw("tool_calls", calls, &[Kind::Array], "a list");
    }
    if let Some(usage) = &request.usage {
        check.raw("usage", usage, &[Kind::Object], "an object");
    }
    let request = check.finish(request)?;
    let piece = Piece {
        id: request.id.clone(),
        offset: usize::try_from(request.offset).unwrap_or(usize::MAX),
        text: request.text,
        end: request.done.then_some(End { tool_calls: request.tool_calls, usage: request.usage }),
    };
    let grown = threads.write_piece(&principal, id, piece).await?;
    Ok(Json(DeltaTaken {
        id: request.id,
        seq: grown.seq,
        length: grown.length as u64,
        stored_length: grown.stored_length as u64,
    }))
}
