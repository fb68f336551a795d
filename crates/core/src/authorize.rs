//! May this principal do that? One function for all features; lists filter the same way in SQL.

use crate::{
    Error, Principal, Result,
    id::{OrgId, UserId},
    principal::{OrgRole, Scope},
};

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// Use what the scope covers, as any member of the organisation.
    Use(Scope),
    /// Administer the organisation: its keys, members, settings.
    ManageOrg(Scope),
    /// What only an owner may: end the organisation, hand it over, make further owners.
    OwnOrg(Scope),
    /// Administer this installation.
    ManageSystem(Scope),
    /// See how this installation runs (also auditors).
    InspectSystem(Scope),
}

/// Checks the scope of the credential and the role of its holder.
///
/// # Errors
/// 403 that names the missing scope or role.
pub fn authorize(principal: &Principal, action: Action) -> Result<()> {
    let (scope, allowed, who) = match action {
        Action::Use(scope) => (scope, true, ""),
        Action::ManageOrg(scope) => {
            (scope, principal.role >= OrgRole::Admin, "an admin or owner of this organisation")
        }
        Action::OwnOrg(scope) => {
            (scope, principal.role >= OrgRole::Owner, "an owner of this organisation")
        }
        Action::ManageSystem(scope) => (scope, principal.system_admin, "a system admin"),
        Action::InspectSystem(scope) => {
            (scope, principal.system_admin || principal.auditor, "a system admin or auditor")
        }
    };
    if !principal.scopes.contains(scope) {
        return Err(Error::insufficient_scope(scope));
    }
    if allowed { Ok(()) } else { Err(Error::forbidden(format!("only {who} may do this"))) }
}

/// Who may see a thing.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    sqlx::Type,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Visibility {
    /// Its owner.
    #[default]
    Private,
    /// All members of its organisation.
    Organization,
    /// Every signed-in user of this installation.
    Public,
}

/// Whose a thing is. Without an owner it belongs to the organisation: to its service keys and admins.
#[derive(Clone, Copy, Debug)]
pub struct Ownership {
    pub org: OrgId,
    pub owner: Option<UserId>,
    pub visibility: Visibility,
}

impl Ownership {
    fn is_mine(self, principal: &Principal) -> bool {
        self.org == principal.org
            && match self.owner {
                Some(owner) => principal.user_id() == Some(owner),
                None => principal.user_id().is_none() || principal.role >= OrgRole::Admin,
            }
    }

    pub fn visible_to(self, principal: &Principal) -> bool {
        match self.visibility {
            Visibility::Private => self.is_mine(principal),
            Visibility::Organization => self.org == principal.org,
            Visibility::Public => true,
        }
    }

    /// May change it? 404 for what the principal cannot see, 403 for what it sees and may not change.
    ///
    /// # Errors
    /// 404 or 403.
    pub fn require_change(self, principal: &Principal, what: &str) -> Result<()> {
        if self.is_mine(principal) {
            Ok(())
        } else if !self.visible_to(principal) {
            Err(Error::not_found(what))
        } else if self.org == principal.org && principal.role >= OrgRole::Admin {
            Ok(())
        } else {
            Err(Error::forbidden(format!(
                "only the owner of this {what} or an admin of its organisation may change it"
            )))
        }
    }
}
