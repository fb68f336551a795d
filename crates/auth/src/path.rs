//! What several routes begin and end with.

use loom_core::{
    Error, Principal, Result,
    id::{OrgId, UserId},
    port::{Act, Audit, Outcome},
    principal::{Actor, RequestInfo},
};
use serde_json::Value;

use crate::{Auth, organisations::store};

pub(crate) fn only_users(principal: &Principal) -> Result<UserId> {
    principal
        .user_id()
        .ok_or_else(|| Error::forbidden("only a user may do this, not a service key or a weaver"))
}

impl Auth {
    /// The principal in the organisation that the path names, with the role it has there now. Who is no
    /// member finds no organisation.
    pub(crate) async fn acting_in(&self, principal: &Principal, path: &str) -> Result<Principal> {
        let not_found = || Error::not_found("organisation");
        let (org, role) = match principal.actor {
            Actor::User(user) => {
                store::membership(&self.pool, user, path).await?.ok_or_else(not_found)?
            }
            Actor::Service(_) | Actor::Weaver(_) => {
                let own = store::organisation(&self.pool, principal.org, principal.role).await?;
                own.filter(|own| own.slug == path || path.parse() == Ok(own.id))
                    .map(|own| (own.id, own.role))
                    .ok_or_else(not_found)?
            }
        };
        Ok(Principal { org, role, ..principal.clone() })
    }

    /// Records what was done.
    pub(crate) async fn done(
        &self,
        by: &Principal,
        org: Option<OrgId>,
        from: &RequestInfo,
        action: &'static str,
        target: impl ToString,
        details: Value,
    ) -> Result<()> {
        let act = Act { action, target: target.to_string(), outcome: Outcome::Success, details };
        self.audit.record(Some(by), org, Some(from), act).await
    }
}
