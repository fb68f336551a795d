//! Members, as they are shown.

use chrono::{DateTime, Utc};
use loom_core::{id::UserId, principal::OrgRole};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Member {
    pub(crate) user_id: UserId,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) role: OrgRole,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) joined_at: DateTime<Utc>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Members {
    pub(crate) members: Vec<Member>,
    pub(crate) next_cursor: Option<String>,
}

#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct MemberChange {
    pub(crate) role: OrgRole,
}

#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Transfer {
    /// A member, who becomes owner in your place; you stay as an admin.
    pub(crate) user_id: UserId,
}
