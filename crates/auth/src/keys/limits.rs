//! A key hands no more on than it has: what limits it, limits the keys that it makes and changes. Else
//! whoever finds a key that ends tonight, or counts in one network only, had one that does neither.

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use loom_core::{Error, Principal, Result, principal::Via};

use super::store::{self, KeyLimits};
use crate::Auth;

impl Auth {
    /// The limits of the key that a request was authenticated with; those of a session are none.
    pub(super) async fn limits_of(&self, principal: &Principal) -> Result<KeyLimits> {
        let limits = match principal.via {
            Via::ApiKey(id) => store::limits(&self.pool, id).await?,
            Via::Session(_) | Via::WeaverToken(_) | Via::DevMode => None,
        };
        Ok(limits.unwrap_or_default())
    }
}

impl KeyLimits {
    pub(super) fn allow_expiry(&self, expires_at: Option<DateTime<Utc>>) -> Result<()> {
        let within = self.expires_at.is_none_or(|own| expires_at.is_some_and(|at| at <= own));
        require(
            within,
            "a key that expires makes no key outlive it: give an earlier `expires_in_secs`",
        )
    }

    pub(super) fn allow_networks(&self, networks: &[String]) -> Result<()> {
        let own: Vec<IpNet> = self.networks.iter().filter_map(|text| text.parse().ok()).collect();
        let lies_within = |text: &String| {
            text.parse::<IpNet>().is_ok_and(|one| own.iter().any(|own| own.contains(&one)))
        };
        let within =
            self.networks.is_empty() || (!networks.is_empty() && networks.iter().all(lies_within));
        require(within, "a key with `allowed_networks` opens none beyond them for a key")
    }

    pub(super) fn allow_budget(&self, budget_nanousd: Option<i64>) -> Result<()> {
        let within = self.budget_nanousd.is_none_or(|own| budget_nanousd.is_some_and(|n| n <= own));
        require(within, "a key with a budget gives no key a larger one")
    }
}

fn require(within: bool, detail: &'static str) -> Result<()> {
    if within { Ok(()) } else { Err(Error::forbidden(detail)) }
}
