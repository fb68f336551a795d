//! Organisations, as they are stored and shown.

use chrono::{DateTime, Utc};
use loom_core::{id::OrgId, principal::OrgRole};
use serde::{Deserialize, Serialize};

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

#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub struct NewOrganisation {
    /// 1 to 63 of `a-z`, `0-9`, `-`; it stands in URLs.
    pub slug: String,
    pub name: String,
}

/// What is to change; what is absent stays.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub struct OrganisationChange {
    pub name: Option<String>,
    /// Whoever names the organisation by its slug has to know the new one.
    pub slug: Option<String>,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Organisations {
    pub orgs: Vec<Organisation>,
}
