//! Invitations, as they are shown.

use chrono::{DateTime, Utc};
use loom_core::{
    id::{InvitationId, OrgId, UserId},
    principal::OrgRole,
};
use serde::{Deserialize, Serialize};

/// An invitation that is open: neither accepted nor revoked.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Invitation {
    pub(crate) id: InvitationId,
    pub(crate) email: String,
    pub(crate) role: OrgRole,
    pub(crate) invited_by: UserId,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) expires_at: DateTime<Utc>,
}

/// An invitation, with the link that its mail has; it is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CreatedInvitation {
    #[serde(flatten)]
    pub(crate) invitation: Invitation,
    /// To be passed on where no mail arrives; it lets in nobody but the user of the address.
    pub(crate) link: String,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Invitations {
    pub(crate) invitations: Vec<Invitation>,
    pub(crate) next_cursor: Option<String>,
}

#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct NewInvitation {
    pub(crate) email: String,
    /// Not above your own.
    pub(crate) role: OrgRole,
}

#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct InvitationToken {
    /// As it stands in the mail.
    pub(crate) token: String,
}

/// What was joined.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Joined {
    pub(crate) org_id: OrgId,
    pub(crate) role: OrgRole,
}
