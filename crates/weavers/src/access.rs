//! Which weavers somebody may see and change: their own; admins all of their organisation; a weaver itself.

use loom_core::{
    Error, Principal, Result,
    authorize::{Action, authorize},
    id::{OrgId, UserId, WeaverId},
    principal::{Actor, OrgRole, Scope},
};

use crate::model::Row;

/// Whose weavers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// All of the organisation.
    All,
    User(UserId),
    /// Those that service keys made.
    Nobody,
    One(WeaverId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) org: OrgId,
    pub(crate) whose: Whose,
}

impl Access {
    fn of(principal: &Principal, looks: bool) -> Self {
        let is_admin = principal.role >= OrgRole::Admin
            || principal.system_admin
            || (looks && principal.auditor);
        let whose = match principal.actor {
            Actor::Weaver(id) => Whose::One(id),
            Actor::User(_) if is_admin => Whose::All,
            Actor::User(id) => Whose::User(id),
            Actor::Service(_) => Whose::Nobody,
        };
        Self { org: principal.org, whose }
    }

    pub(crate) fn sees(self, org: OrgId, owner: Option<UserId>, weaver: WeaverId) -> bool {
        org == self.org
            && match self.whose {
                Whose::All => true,
                Whose::User(user) => owner == Some(user),
                Whose::Nobody => owner.is_none(),
                Whose::One(id) => weaver == id,
            }
    }

    fn sees_row(self, row: &Row) -> bool {
        self.sees(row.org_id, row.owner_id, row.id)
    }
}

/// What somebody may look at.
///
/// # Errors
/// 403 without the scope.
pub(crate) fn reads(principal: &Principal) -> Result<Access> {
    authorize(principal, Action::Use(Scope::WeaversRead))?;
    Ok(Access::of(principal, true))
}

/// What somebody may change, or enter.
///
/// # Errors
/// 403 without the scope.
pub(crate) fn writes(principal: &Principal) -> Result<Access> {
    authorize(principal, Action::Use(Scope::WeaversWrite))?;
    Ok(Access::of(principal, false))
}

pub(crate) fn not_found() -> Error {
    Error::new(
        http::StatusCode::NOT_FOUND,
        "weaver_not_found",
        "there is no such weaver, or you may not see it",
    )
}

/// The row, to be looked at.
///
/// # Errors
/// 404.
pub(crate) fn seen(access: Access, row: Option<Row>) -> Result<Row> {
    row.filter(|row| access.sees_row(row)).ok_or_else(not_found)
}

/// The row, to be changed: 403 for who may only look at it.
///
/// # Errors
/// 404 or 403.
pub(crate) fn changed(principal: &Principal, access: Access, row: Option<Row>) -> Result<Row> {
    let row = seen(Access::of(principal, true), row)?;
    if access.sees_row(&row) {
        return Ok(row);
    }
    Err(Error::forbidden(
        "only the owner of this weaver or an admin of its organisation may change it",
    ))
}
