//! What several routes begin with.

use loom_core::{
    Error, Principal, Result,
    id::{OrgId, UserId},
    principal::{Actor, OrgRole},
};

use crate::{
    Auth,
    organisations::{model::Organisation, store},
};

pub(crate) fn only_users(principal: &Principal) -> Result<UserId> {
    principal
        .user_id()
        .ok_or_else(|| Error::forbidden("only a user may do this, not a service key or a weaver"))
}

impl Auth {
    /// The organisation in the path, in which the principal must be a member; with its role there.
    pub(crate) async fn org_in_path(
        &self,
        principal: &Principal,
        path: &str,
    ) -> Result<(OrgId, OrgRole)> {
        let names = |org: &Organisation| org.slug == path || path.parse() == Ok(org.id);
        match principal.actor {
            Actor::User(user) => store::organisations(&self.pool, user).await?,
            Actor::Service(_) | Actor::Weaver(_) => {
                store::organisation(&self.pool, principal.org, principal.role)
                    .await?
                    .into_iter()
                    .collect()
            }
        }
        .into_iter()
        .find(names)
        .map(|org| (org.id, org.role))
        .ok_or_else(|| Error::not_found("organisation"))
    }
}
