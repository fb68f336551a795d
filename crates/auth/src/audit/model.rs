//! The audit log, as it is asked for and shown.

use chrono::{DateTime, Utc};
use loom_core::{Error, Result, clock::is_storable, id::OrgId, page::PageQuery, text};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// One act.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Entry {
    pub(crate) id: Uuid,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) at: DateTime<Utc>,
    pub(crate) org_id: Option<OrgId>,
    /// `user`, `service`, `weaver` or `system`.
    pub(crate) actor_kind: String,
    pub(crate) actor_id: Option<Uuid>,
    /// The e-mail address or the name of the key, as it was then.
    pub(crate) actor_name: String,
    /// By what kind of credential: `api_key`, `session`, `weaver_token`, `dev_mode` or `system`.
    pub(crate) via: String,
    pub(crate) credential_id: Option<Uuid>,
    /// As `api_key.create`.
    pub(crate) action: String,
    pub(crate) target: String,
    /// `success`, `denied` or `failed`.
    pub(crate) outcome: String,
    pub(crate) ip: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) details: Value,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Entries {
    pub(crate) entries: Vec<Entry>,
    pub(crate) next_cursor: Option<String>,
}

/// What to show of the audit log. What is absent does not limit it.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// The id of a user, a key or a weaver.
    pub(crate) actor: Option<Uuid>,
    /// The beginning of the action, as `api_key.` or `member.remove`.
    pub(crate) action: Option<String>,
    /// Of this organisation; only for those who see all of them.
    pub(crate) org_id: Option<Uuid>,
    /// `success`, `denied` or `failed`.
    pub(crate) outcome: Option<String>,
    /// Exactly this target.
    pub(crate) target: Option<String>,
    /// The id of the credential by which it was done.
    pub(crate) credential: Option<Uuid>,
    /// Exactly this address.
    pub(crate) ip: Option<String>,
    /// Not before this time, RFC 3339.
    pub(crate) from: Option<DateTime<Utc>>,
    /// Before this time, RFC 3339.
    pub(crate) to: Option<DateTime<Utc>>,
    /// `json` (a page), or `ndjson`: all of it, one object a line.
    #[param(inline)]
    pub(crate) format: Option<Format>,
    /// How many items, 1 to 200; 50 when absent.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub(crate) limit: Option<u16>,
    /// `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditFormat)]
pub(crate) enum Format {
    #[default]
    Json,
    Ndjson,
}

impl AuditQuery {
    pub(crate) fn page(&self) -> PageQuery {
        PageQuery { limit: self.limit, cursor: self.cursor.clone() }
    }

    /// # Errors
    /// 422 for what nothing could match.
    pub(crate) fn check(&self) -> Result<()> {
        for (name, value) in [("action", &self.action), ("target", &self.target), ("ip", &self.ip)]
        {
            if value.as_ref().is_some_and(|value| !text::is_plain_line(value, 512)) {
                return Err(Error::invalid(name, "is one line of 1 to 512 bytes"));
            }
        }
        for (name, value) in [("from", self.from), ("to", self.to)] {
            if value.is_some_and(|at| !is_storable(at)) {
                return Err(Error::invalid(name, "is a time from 1970 to 9999"));
            }
        }
        match self.outcome.as_deref() {
            None | Some("success" | "denied" | "failed") => Ok(()),
            Some(_) => Err(Error::invalid("outcome", "is `success`, `denied` or `failed`")),
        }
    }
}
