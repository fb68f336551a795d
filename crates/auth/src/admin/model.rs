//! Users, as those who run the installation see them.

use chrono::{DateTime, Utc};
use loom_core::{
    id::{OrgId, UserId},
    page::PageQuery,
};
use serde::{Deserialize, Serialize};

use crate::organisations::model::Organisation;

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AdminUser {
    pub(crate) id: UserId,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) personal_org_id: OrgId,
    pub(crate) is_system_admin: bool,
    pub(crate) is_auditor: bool,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub(crate) disabled_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) created_at: DateTime<Utc>,
}

/// A user with what the user is in.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AdminUserDetail {
    #[serde(flatten)]
    pub(crate) user: AdminUser,
    pub(crate) organisations: Vec<Organisation>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct AdminUsers {
    pub(crate) users: Vec<AdminUser>,
    pub(crate) next_cursor: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UserQuery {
    /// A part of the e-mail address or the name, in any case.
    pub(crate) q: Option<String>,
    /// How many items, 1 to 200; 50 when absent.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub(crate) limit: Option<u16>,
    /// `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
}

impl UserQuery {
    pub(crate) fn page(&self) -> PageQuery {
        PageQuery { limit: self.limit, cursor: self.cursor.clone() }
    }
}

/// The global roles of a user; what is absent stays.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub(crate) struct RolesChange {
    pub(crate) system_admin: Option<bool>,
    /// Sees how the installation runs, and the audit log; changes nothing.
    pub(crate) auditor: Option<bool>,
}
