//! Users, organisations and keys as they are stored and shown.

use chrono::{DateTime, Utc};
use loom_core::{
    id::{ApiKeyId, OrgId, UserId},
    principal::{OrgRole, Scope, Scopes},
};
use serde::{Deserialize, Serialize};

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
    pub(crate) email: String,
    pub(crate) personal_org: OrgId,
    pub(crate) system_admin: bool,
    pub(crate) auditor: bool,
    pub(crate) disabled: bool,
    pub(crate) memberships: Vec<Membership>,
}

/// Whose a key is, and what it may do.
#[derive(Clone, Debug)]
pub(crate) struct KeyHolder {
    pub(crate) id: ApiKeyId,
    pub(crate) name: String,
    pub(crate) org: OrgId,
    pub(crate) org_slug: String,
    pub(crate) scopes: Scopes,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    /// None for a service key.
    pub(crate) user: Option<UserHolder>,
}

/// An organisation, and what the asking user is in it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Organisation {
    pub id: OrgId,
    pub slug: String,
    pub name: String,
    pub is_personal: bool,
    pub role: OrgRole,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// Acts as the user who made it.
    Personal,
    /// Acts as the organisation.
    Service,
}

/// An API key, without its secret.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub kind: KeyKind,
    pub name: String,
    /// The first part and the last four characters: `loom_svc_…x9Qz`.
    pub hint: String,
    pub scopes: Vec<Scope>,
    /// The user of a personal key.
    pub user_id: Option<UserId>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub expires_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub last_used_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub struct NewApiKey {
    /// 1 to 100 characters.
    pub name: String,
    pub kind: KeyKind,
    /// What it may do; not more than the credential that makes it.
    pub scopes: Vec<Scope>,
    /// Seconds until it expires, at most a year. Absent: never.
    pub expires_in_secs: Option<u32>,
}

/// A new key with its secret, which is shown this once.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct CreatedApiKey {
    #[serde(flatten)]
    pub key: ApiKey,
    pub secret: String,
}

#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub struct NewOrganisation {
    /// 1 to 63 of `a-z`, `0-9`, `-`; it stands in URLs.
    pub slug: String,
    pub name: String,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Organisations {
    pub orgs: Vec<Organisation>,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ApiKeys {
    pub api_keys: Vec<ApiKey>,
    pub next_cursor: Option<String>,
}
