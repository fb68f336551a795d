//! API keys, as they are stored and shown.

use chrono::{DateTime, Utc};
use loom_core::{
    id::{ApiKeyId, UserId},
    principal::Scope,
};
use serde::{Deserialize, Serialize};

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

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ApiKeys {
    pub api_keys: Vec<ApiKey>,
    pub next_cursor: Option<String>,
}
