//! Who is behind a credential, as it is cached.

use std::{net::IpAddr, sync::Arc};

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use loom_core::{
    id::{OrgId, UserId},
    principal::{Actor, Scopes, Via},
};

/// Whose a credential is, and what it may do.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) via: Via,
    pub(crate) who: Who,
    pub(crate) scopes: Scopes,
    /// Where it may be used from; empty: from everywhere.
    pub(crate) networks: Vec<IpNet>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) revoked: bool,
    pub(crate) last_used_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Who {
    /// Acts as this user, in any of the user's organisations.
    User(UserId),
    /// Acts as itself, in this organisation and no other.
    Own {
        actor: Actor,
        org: OrgId,
        slug: Arc<str>,
        name: Arc<str>,
        /// Without whom it is worth nothing.
        owner: Option<UserId>,
    },
}

impl Holder {
    /// Why it is not good from here and now, if it is not.
    pub(crate) fn fault(&self, ip: Option<IpAddr>, now: DateTime<Utc>) -> Option<Fault> {
        if self.revoked {
            return Some(Fault::Revoked);
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Some(Fault::Expired);
        }
        let within = |ip: IpAddr| self.networks.iter().any(|network| network.contains(&ip));
        if !self.networks.is_empty() && !ip.is_some_and(within) {
            return Some(Fault::Network);
        }
        None
    }
}

/// Why a credential was refused, for the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Unknown,
    Revoked,
    Expired,
    Network,
    /// Its user is disabled, or no longer in the organisation that it is for.
    User,
}

impl Fault {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Network => "network",
            Self::User => "user",
        }
    }
}
