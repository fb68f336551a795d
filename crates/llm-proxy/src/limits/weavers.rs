//! Weavers: whose account a request may be put on, and the budget that one was made with, for its whole life.

use std::sync::{Arc, PoisonError};

use axum::http::HeaderMap;
use loom_core::{
    Error, Principal, Result,
    id::{OrgId, UserId, WeaverId},
    port::WeaverFacts,
    principal::Actor,
};
use uuid::Uuid;

use super::{
    Limits, MAX_KEYS, WAIT,
    gauge::{Gauge, Key, Kind, Measure},
    lease,
};
use crate::ledger::attribution;

pub(crate) const HEADER: &str = "x-loom-weaver-id";

/// What is known of a weaver; it never changes.
#[derive(Clone)]
pub(super) struct Known {
    owner: Option<UserId>,
    pub(super) budget: Option<Arc<Gauge>>,
}

impl Limits {
    /// Whether a request may be put on the account of the weaver that it names: a weaver's own token names no
    /// other, and everybody else a weaver that they made.
    ///
    /// # Errors
    /// 400 for what is no id, 403.
    pub(crate) async fn check_weaver(&self, by: &Principal, headers: &HeaderMap) -> Result<()> {
        let Some(named) = attribution::<WeaverId>(headers, HEADER)? else { return Ok(()) };
        let is_own = match by.actor {
            Actor::Weaver(own) => own == named,
            Actor::User(user) => {
                self.weaver(by.org, named).await?.is_some_and(|known| known.owner == Some(user))
            }
            Actor::Service(_) => {
                self.weaver(by.org, named).await?.is_some_and(|known| known.owner.is_none())
            }
        };
        if is_own {
            return Ok(());
        }
        Err(Error::forbidden(format!(
            "`{HEADER}` names no weaver of yours in this organisation; leave it away, or name one that you made"
        )))
    }

    /// Read once.
    pub(super) async fn weaver(&self, org: OrgId, id: WeaverId) -> Result<Option<Known>> {
        let place = (org.0, id.0);
        {
            let known = self.weavers.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = known.get(&place) {
                return Ok(Some(known.clone()));
            }
        }
        let read = tokio::time::timeout(WAIT, self.directory.weaver(org, id));
        let facts: Option<WeaverFacts> = read.await.unwrap_or_else(|_| Err(lease::away()))?;
        let Some(facts) = facts else { return Ok(None) };
        let budget = facts.budget_nanousd.map(|cap| self.gauge(budget(org.0, id.0), cap));
        let read = Known { owner: facts.owner, budget };
        let mut known = self.weavers.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KEYS {
            known.clear();
            let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
            // One that is in use goes on with those who hold it.
            gauges.retain(|key, gauge| {
                key.kind != Kind::WeaverBudget || Arc::strong_count(gauge) > 1
            });
        }
        known.insert(place, read.clone());
        Ok(Some(read))
    }

    /// The budget that a row of this weaver counts against, as far as it may have one.
    pub(super) fn weaver_charged(&self, org: Uuid, id: Uuid) -> Option<Key> {
        let known = self.weavers.read().unwrap_or_else(PoisonError::into_inner);
        // Of one that is not known just now, the database knows whether its budget is kept.
        known.get(&(org, id)).is_none_or(|known| known.budget.is_some()).then(|| budget(org, id))
    }
}

fn budget(org: Uuid, id: Uuid) -> Key {
    Key { org, kind: Kind::WeaverBudget, subject: id.to_string().into(), measure: Measure::Life }
}
