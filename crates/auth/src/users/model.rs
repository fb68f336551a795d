//! Users, as they are stored and shown.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use loom_core::{
    id::{ApiKeyId, OrgId, SessionId, UserId, WeaverId},
    principal::{OrgRole, Scope},
};
use serde::{Deserialize, Serialize};

use crate::organisations::model::Organisation;

/// A membership, as authentication needs it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Membership {
    pub(crate) org: OrgId,
    pub(crate) slug: String,
    pub(crate) role: OrgRole,
}

/// Everything that is needed to make a principal of a user, without another query.
#[derive(Clone, Debug)]
pub(crate) struct UserHolder {
    pub(crate) id: UserId,
    pub(crate) email: Arc<str>,
    pub(crate) personal_org: OrgId,
    pub(crate) system_admin: bool,
    pub(crate) auditor: bool,
    pub(crate) disabled: bool,
    pub(crate) memberships: Vec<Membership>,
}

/// Who this request is.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Me {
    /// None for a service key.
    pub user: Option<User>,
    /// The organisation that this request acts in.
    pub org_id: OrgId,
    pub role: OrgRole,
    pub organisations: Vec<Organisation>,
    /// How this request was authenticated.
    pub via: MeVia,
    pub scopes: Vec<Scope>,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MeVia {
    ApiKey { id: ApiKeyId },
    Session { id: SessionId },
    WeaverToken { id: WeaverId },
    DevMode,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub name: String,
    pub is_system_admin: bool,
    pub is_auditor: bool,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
}
