//! The handlers, one file for each way to use a thread.

pub(crate) mod append;
pub(crate) mod change;
pub(crate) mod document;
pub(crate) mod events;
pub(crate) mod lease;
pub(crate) mod list;
pub(crate) mod live;
pub(crate) mod message;
pub(crate) mod search;
pub(crate) mod settings;
pub(crate) mod share;
pub(crate) mod transfer;

use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SubsecRound, Utc};
use http::header;
use loom_core::{Error, Json, Principal, Result, id::ThreadId};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::IntoParams;

use crate::{
    Threads,
    feed::events_of,
    message::PlacedMessage,
    model::ThreadHead,
    precondition::{IfMatch, etag},
    store::{self, messages::Outputs},
};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct GetQuery {
    /// Only messages with a greater `seq`.
    pub(crate) messages_after: Option<i64>,
    /// `preview`: of contents larger than 64 KiB only the beginning, with `content_truncated`.
    #[serde(default)]
    #[param(inline)]
    pub(crate) outputs: Outputs,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// The id of the last event seen, where `Last-Event-ID` cannot be sent.
    pub(crate) after: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReleaseQuery {
    /// Give it back only if this is the holder; absent: whoever holds it.
    pub(crate) holder: Option<String>,
}

impl Threads {
    /// Cut to what we show, so that what is read back and sent again is the same.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(3)
    }

    /// Writes down, in the transaction of a change, what those who follow the thread are told of it.
    /// After the commit: `feed.wrote()`.
    pub(crate) async fn tell(
        &self,
        db: &mut PgConnection,
        before: Option<&ThreadHead>,
        head: &ThreadHead,
    ) -> Result<()> {
        self.tell_messages(db, before, head, std::iter::empty(), false).await
    }

    /// As [`Threads::tell`], with the messages that were written, and whether some are gone.
    pub(crate) async fn tell_messages<'a>(
        &self,
        db: &mut PgConnection,
        before: Option<&ThreadHead>,
        head: &ThreadHead,
        written: impl Iterator<Item = &'a PlacedMessage>,
        removed: bool,
    ) -> Result<()> {
        let events = events_of(before, head, written, removed);
        store::events::insert(db, head.org_id, head.id, &events).await
    }
}

/// The thread, locked, if the principal may change it.
pub(crate) async fn lock_for_change(
    db: &mut PgConnection,
    principal: &Principal,
    id: ThreadId,
) -> Result<ThreadHead> {
    let head = store::lock(db, principal.org, id).await?;
    let head = head.filter(|head| head.deleted_at.is_none()).ok_or_else(not_found)?;
    head.ownership().require_change(principal, "thread")?;
    Ok(head)
}

/// 409 when the thread is at another version than the writer thinks, with what it lacks.
async fn require_version(
    db: &mut PgConnection,
    if_match: IfMatch,
    head: &ThreadHead,
) -> Result<()> {
    let Err(conflict) = if_match.require(head.version) else { return Ok(()) };
    Err(with_missing_range(db, conflict, if_match, head).await?)
}

/// Adds to a conflict where the messages are that were written since the version that the writer knows.
async fn with_missing_range(
    db: &mut PgConnection,
    conflict: Error,
    if_match: IfMatch,
    head: &ThreadHead,
) -> Result<Error> {
    let conflict = conflict.with("last_seq", head.last_seq);
    let IfMatch::Version(client) = if_match else { return Ok(conflict) };
    let range = store::messages::since_version(db, head.org_id, head.id, client).await?;
    Ok(match range {
        Some((from, to)) => conflict.with("missing_range", missing_range(head, from, to)),
        None => conflict.with("missing_range", serde_json::Value::Null),
    })
}

/// Where messages are that a writer lacks, and how to get them.
fn missing_range(head: &ThreadHead, from: i64, to: i64) -> serde_json::Value {
    serde_json::json!({
        "from_seq": from, "to_seq": to,
        "url": format!("/api/threads/{}?messages_after={}", head.id, from - 1),
    })
}

/// Counts the change and notes its time, when there is one.
pub(crate) fn touch(head: &mut ThreadHead, before: &ThreadHead, now: DateTime<Utc>) {
    let now = now.max(before.updated_at);
    head.version = before.version + 1;
    head.updated_at = now;
    if head.last_seq != before.last_seq || head.agent_state != before.agent_state {
        head.last_activity_at = now;
    }
}

fn not_found() -> Error {
    Error::not_found("thread")
}

/// A body with the version it stands for.
fn versioned(version: i64, body: impl Serialize) -> Response {
    ([(header::ETAG, etag(version))], Json(body)).into_response()
}
