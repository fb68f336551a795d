//! Webhooks about weavers, queued in the transaction that changes the row.

use chrono::SecondsFormat;
use loom_core::Result;
use serde_json::json;
use sqlx::PgConnection;

use crate::{Weavers, model::Row};

/// What happened to a weaver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Created,
    Ready,
    /// It ends in a few minutes unless it is extended.
    Expiring,
    /// Over, as its maker or its time wanted it.
    Deleted,
    Failed,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "weaver.created",
            Self::Ready => "weaver.ready",
            Self::Expiring => "weaver.expiring",
            Self::Deleted => "weaver.deleted",
            Self::Failed => "weaver.failed",
        }
    }
}

impl Weavers {
    /// Tells the webhooks of its organisation and of the installation. The row is as it is now; call
    /// `notify.wake()` after the commit.
    ///
    /// # Errors
    /// When the database cannot be written. A queue that is full must not keep a weaver from its change.
    pub(crate) async fn told(&self, db: &mut PgConnection, row: &Row, kind: Kind) -> Result<()> {
        let time =
            |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let data = json!({"weaver": {
            "id": row.id, "org_id": row.org_id, "owner_user_id": row.owner_id, "image": row.spec.image,
            "tags": row.tags, "status": row.status, "pod_name": row.pod_name, "reason_code": row.reason_code,
            "reason": row.reason, "exit_code": row.exit_code, "created_at": time(row.created_at),
            "started_at": row.started_at.map(time), "ended_at": row.ended_at.map(time),
            "expires_at": time(row.expires_at),
        }});
        let kind = kind.name();
        for org in [Some(row.org_id), None] {
            match self.deps.notify.webhook(db, org, kind, &data).await {
                Err(error) if !error.status().is_server_error() => {
                    tracing::warn!(kind, weaver = %row.id, %error, "a change of a weaver goes to no webhook");
                }
                queued => queued.map(|_| ())?,
            }
        }
        Ok(())
    }
}
