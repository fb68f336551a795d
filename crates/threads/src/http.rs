//! The handlers, one file for each way to use a thread.

pub(crate) mod append;
pub(crate) mod change;
pub(crate) mod document;
pub(crate) mod list;
pub(crate) mod search;

use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SubsecRound, Utc};
use http::header;
use loom_core::{Error, Json, Principal, Result, id::ThreadId};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::IntoParams;

use crate::{Threads, model::ThreadHead, precondition::etag, store};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct GetQuery {
    /// Only messages with a greater `seq`.
    pub(crate) messages_after: Option<i64>,
}

impl Threads {
    /// Cut to what we show, so that what is read back and sent again is the same.
    fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(3)
    }
}

/// The thread, locked, if the principal may change it.
async fn lock_for_change(
    db: &mut PgConnection,
    principal: &Principal,
    id: ThreadId,
) -> Result<ThreadHead> {
    let head = store::lock(db, principal.org, id).await?;
    let head = head.filter(|head| head.deleted_at.is_none()).ok_or_else(not_found)?;
    head.ownership().require_change(principal, "thread")?;
    Ok(head)
}

/// Counts the change and notes its time, when there is one.
fn touch(head: &mut ThreadHead, before: &ThreadHead, now: DateTime<Utc>) {
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
