//! Messages added to a thread. The cost is that of the new messages, however long the thread is.

use std::collections::HashMap;

use axum::{extract::State, response::Response};
use http::HeaderMap;
use loom_core::{
    Error, Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::ThreadId,
    principal::Scope,
};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::{lock_for_change, missing_range, touch, versioned, with_missing_range};
use crate::{
    MAX_THREAD_BYTES, Threads,
    draft::Append,
    message::{CheckedMessage, MAX_MESSAGES, PlacedMessage},
    model::ThreadHead,
    precondition::IfMatch,
    redaction::Masker,
    store::{self, messages::Outputs},
};

/// How many of the messages that an appender lacks a 409 carries.
const MAX_MISSING: usize = 100;
/// And how many bytes of them.
const MAX_MISSING_BYTES: usize = 1024 * 1024;

/// Where the messages of an append are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Appended {
    version: i64,
    last_seq: i64,
    /// One for each that was sent, in the order sent, also for those that were there before.
    messages: Vec<AppendedMessage>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppendedMessage {
    id: String,
    seq: i64,
}

/// Add messages to a thread, and change its state, git facts and the like with them.
///
/// Messages whose ids the thread has already are left as they are. A request that brings none but
/// such changes nothing at all: it is taken for the repetition of one whose answer was lost.
#[utoipa::path(
    post,
    path = "/api/threads/{id}/messages",
    operation_id = "append_messages",
    tag = "threads",
    params(
        ("id" = ThreadId, Path),
        ("if-match" = Option<String>, Header, description = "Add to this version only"),
    ),
    request_body = Append,
    responses(
        (status = 200, body = Appended, headers(("etag" = String, description = "The version, quoted"))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`version_conflict` with `server_version`, `last_seq`, `missing_range` and, after `expected_last_seq`, the first of the `missing` messages and `missing_truncated`", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn append_messages(
    State(threads): State<Threads>,
    principal: Principal,
    Path(id): Path<ThreadId>,
    headers: HeaderMap,
    Json(mut append): Json<Append>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::ThreadsWrite))?;
    let if_match = IfMatch::from_headers(&headers)?;
    if threads.redacts(principal.org).await? {
        Masker::new().append(&mut append);
    }
    let append = append.check()?;
    let now = threads.now();
    let mut tx = loom_db::begin(&threads.pool).await?;
    let before = lock_for_change(&mut tx, &principal, id).await?;

    let ids: Vec<&str> = append.messages.iter().filter_map(|m| m.id.as_deref()).collect();
    let known = if ids.is_empty() {
        HashMap::new()
    } else {
        store::messages::known(&mut tx, before.org_id, id, &ids).await?.into_iter().collect()
    };
    let sent = append.messages.len();
    if sent > 0 && known.len() == sent {
        return Ok(answer(&before, append.messages, &known));
    }
    let conflict = if_match.require(before.version).err();
    let expected = append.expected_last_seq.filter(|seq| !is_current(*seq, &before, &known));
    if conflict.is_some() || expected.is_some() {
        return Err(conflict_with_missing(
            &mut tx,
            &before,
            conflict,
            if_match,
            append.expected_last_seq,
        )
        .await?);
    }

    let mut head = before.clone();
    let mut added = Vec::new();
    let mut placed = Vec::with_capacity(sent);
    for message in append.messages {
        let seq = message.id.as_ref().and_then(|id| known.get(id)).copied();
        if seq.is_none() && message.truncated.is_some() {
            return Err(lacks_content());
        }
        if let (Some(seq), Some(id)) = (seq, &message.id) {
            placed.push(AppendedMessage { id: id.clone(), seq });
            continue;
        }
        head.last_seq += 1;
        let message = message.place(head.last_seq, None, None, now);
        placed.push(AppendedMessage { id: message.message.id.clone(), seq: head.last_seq });
        added.push(message);
    }
    grow(&mut head, &added)?;
    store::messages::insert(&mut tx, head.org_id, id, before.version + 1, &added).await?;
    let got_commits = store::add_commits(&mut tx, head.org_id, id, &append.patch.1, now).await?;
    append.patch.apply(&mut head);
    if got_commits || head != before {
        touch(&mut head, &before, now);
        store::update(&mut tx, &head).await?;
        threads.tell_messages(&mut tx, Some(&before), &head, added.iter(), false).await?;
        store::index::follow(&mut tx, Some(&before), &head).await?;
    }
    tx.commit().await?;
    threads.feed.wrote();
    let (version, last_seq) = (head.version, head.last_seq);
    Ok(versioned(version, Appended { version, last_seq, messages: placed }))
}

/// Is `expected` the thread's end, or is all that came after it in this very request?
fn is_current(expected: i64, head: &ThreadHead, known: &HashMap<String, i64>) -> bool {
    let mine = known.values().filter(|seq| **seq > expected).count();
    expected <= head.last_seq && i64::try_from(mine) == Ok(head.last_seq - expected)
}

/// A new message came with the beginning of its content alone.
pub(super) fn lacks_content() -> Error {
    Error::invalid(
        "messages",
        "a message with `content_truncated` is not one that is stored at this place; send its whole content",
    )
}

/// The thread with more messages, within its limits.
fn grow(head: &mut ThreadHead, added: &[PlacedMessage]) -> Result<()> {
    let count = usize::try_from(head.message_count).unwrap_or_default() + added.len();
    if count > MAX_MESSAGES {
        return Err(Error::invalid(
            "messages",
            format!("the thread would have {count} messages; it has at most {MAX_MESSAGES}"),
        ));
    }
    head.message_count = i32::try_from(count).map_err(Error::internal)?;
    head.message_bytes += added.iter().map(|message| i64::from(message.bytes)).sum::<i64>();
    if head.message_bytes > MAX_THREAD_BYTES as i64 {
        return Err(Error::too_large("the messages of a thread have at most 32 MiB together"));
    }
    Ok(())
}

/// The answer to a repetition: where its messages have been all along.
fn answer(
    head: &ThreadHead,
    messages: Vec<CheckedMessage>,
    known: &HashMap<String, i64>,
) -> Response {
    let messages = messages
        .into_iter()
        .filter_map(|message| {
            let id = message.id?;
            let seq = known.get(&id).copied()?;
            Some(AppendedMessage { id, seq })
        })
        .collect();
    versioned(head.version, Appended { version: head.version, last_seq: head.last_seq, messages })
}

/// 409 with what the appender needs to catch up.
async fn conflict_with_missing(
    db: &mut PgConnection,
    head: &ThreadHead,
    conflict: Option<Error>,
    if_match: IfMatch,
    expected: Option<i64>,
) -> Result<Error> {
    let conflict = conflict.unwrap_or_else(|| {
        Error::conflict(
            "version_conflict",
            format!(
                "the thread's last message is {}, not {}; `missing` holds what came in between",
                head.last_seq,
                expected.unwrap_or_default()
            ),
        )
        .with("server_version", head.version)
    });
    let Some(expected) = expected else {
        return with_missing_range(db, conflict, if_match, head).await;
    };
    let conflict = conflict.with("last_seq", head.last_seq);
    let conflict = if expected < head.last_seq {
        conflict.with("missing_range", missing_range(head, expected + 1, head.last_seq))
    } else {
        conflict
    };
    let limit = i64::try_from(MAX_MISSING + 1).ok();
    let found =
        store::messages::after(db, head.org_id, head.id, expected, limit, Outputs::Preview).await?;
    let count = found.len();
    let mut bytes = 0;
    let mut missing = Vec::new();
    for message in found.iter().take(MAX_MISSING) {
        let json = serde_json::to_value(message).map_err(Error::internal)?;
        bytes += message.content.get().len()
            + message.tool_calls.as_ref().map_or(0, |calls| calls.get().len());
        if bytes > MAX_MISSING_BYTES {
            break;
        }
        missing.push(json);
    }
    let truncated = missing.len() < count;
    Ok(conflict.with("missing", missing).with("missing_truncated", truncated))
}
