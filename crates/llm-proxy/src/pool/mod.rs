//! The credentials of a provider: which there are, in what state, and which is next.

mod admin;
mod config;
mod google;
mod grant;
mod health;
mod http;
mod job;
mod keeper;
mod lease;
mod load;
mod member;
mod model;
mod store;
mod test;
mod verdict;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use loom_common_secret::SecretString;
use loom_core::{Clock, Error, Result, id::CredentialId};

pub(crate) use config::Config;
pub use health::METRICS;
pub(crate) use health::Measured;
pub(crate) use http::routes;
pub(crate) use job::job;
pub(crate) use keeper::Keeper;
pub(crate) use lease::{CredentialKey, Lease, Unavailable, put_on};
pub(crate) use member::{Member, Who};
pub use model::{CredentialKind, CredentialView, NewCredential, SecretJson};
pub use test::Tested;
pub(crate) use verdict::{Verdict, retry_after};

use crate::{config::ProviderConfig, dialect::Dialect};
use grant::Grant;
use member::{Auth, Ready, Standing, Tokens};

/// With this a caller pays for a request with a token of their own.
pub(crate) const CALLERS: &str = "x-loom-provider-token";

/// The credentials of one provider.
pub(crate) struct Pool {
    clock: Clock,
    dialect: Dialect,
    config: Config,
    /// From the environment, or the place of none where none is needed.
    own: Option<Arc<Member>>,
    stored: ArcSwap<Vec<Arc<Member>>>,
    /// Callers may send their own.
    takes_callers: bool,
    turn: AtomicU64,
}

impl Pool {
    pub(crate) fn new(
        provider: &ProviderConfig,
        config: Config,
        clock: Clock,
        keeper: Option<&Arc<Keeper>>,
    ) -> Self {
        let dialect = provider.dialect;
        let new = |who, name: &str, auth| {
            Arc::new(Member::new(who, name.to_owned(), 0, auth, config, keeper.cloned()))
        };
        let from_env = provider.api_key.as_ref().and_then(|key| of_environment(dialect, key));
        let from_env = from_env.map(|auth| new(Who::Environment, "environment", auth));
        let none = || new(Who::Keyless, "(none)", Auth::Fixed(Ready::default()));
        Self {
            clock,
            dialect,
            config,
            own: from_env.or_else(|| provider.keyless.then(none)),
            stored: ArcSwap::default(),
            takes_callers: provider.callers_tokens,
            turn: AtomicU64::new(1),
        }
    }

    pub(crate) fn config(&self) -> Config {
        self.config
    }

    pub(crate) fn set_stored(&self, members: Vec<Arc<Member>>) {
        self.stored.store(Arc::new(members));
    }

    pub(crate) fn stored(&self) -> Arc<Vec<Arc<Member>>> {
        self.stored.load_full()
    }

    pub(crate) fn stored_one(&self, id: CredentialId) -> Option<Arc<Member>> {
        self.stored.load().iter().find(|member| member.who == Who::Stored(id)).cloned()
    }

    /// All of them. That none is needed counts only while there is none.
    pub(crate) fn members(&self) -> Vec<Arc<Member>> {
        let stored = self.stored.load();
        let own = self.own.iter().filter(|own| stored.is_empty() || own.who != Who::Keyless);
        own.chain(stored.iter()).cloned().collect()
    }

    /// Without a credential, and in want of one.
    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_none() && self.stored.load().is_empty() && !self.takes_callers
    }

    /// The least loaded one that is available and was not tried; of equals, the one that rested longest.
    pub(crate) fn lease(
        &self,
        tried: &[CredentialKey],
        now: DateTime<Utc>,
    ) -> Result<Lease, Unavailable> {
        let members = self.members();
        let was_tried = |member: &Member| {
            tried.contains(&CredentialKey { who: member.who, token: member.next_token() })
        };
        let mut open: Vec<_> = members.iter().filter(|member| !was_tried(member)).collect();
        open.sort_by_cached_key(|member| {
            (member.in_flight.load(Ordering::Relaxed), member.last_used.load(Ordering::Relaxed))
        });
        for member in open {
            if let Some(probe) = member.take(now) {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                member.last_used.store(turn, Ordering::Relaxed);
                return Ok(Lease::new(Arc::clone(member), probe, self.clock.clone()));
            }
        }
        Err(Self::why_not(&members, now))
    }

    /// The shortest time left when nobody can be asked because of rate limits.
    pub(crate) fn rests(&self, now: DateTime<Utc>) -> Option<Duration> {
        match Self::why_not(&self.members(), now) {
            Unavailable::CoolingDown { shortest } => Some(shortest),
            _ => None,
        }
    }

    pub(crate) fn takes_callers(&self) -> bool {
        self.takes_callers
    }

    /// The caller's own token, if one came along.
    ///
    /// # Errors
    /// 400 `provider_token_not_allowed`, or for a header that holds none.
    pub(crate) fn callers(&self, provider: &str, headers: &HeaderMap) -> Result<Option<Lease>> {
        let Some(value) = headers.get(CALLERS) else { return Ok(None) };
        if !self.takes_callers {
            return Err(Error::malformed(
                "provider_token_not_allowed",
                format!(
                    "this server sends no callers' own tokens to the provider `{provider}`; leave out `{CALLERS}`"
                ),
            ));
        }
        let text = value.to_str().unwrap_or_default().trim();
        let ready = match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Ready::bearer(&SecretString::from(token.trim()))
            }
            _ => Ready::key(self.dialect, &SecretString::from(text)),
        };
        let ready = ready.filter(|_| text.len() >= 8).ok_or_else(|| {
            Error::malformed("invalid_request", format!("`{CALLERS}` holds no token"))
        })?;
        let auth = Auth::Fixed(ready);
        let member = Member::new(Who::Caller, "caller".to_owned(), 0, auth, self.config, None);
        Ok(Some(Lease::new(Arc::new(member), false, self.clock.clone())))
    }

    /// One of them, in whatever state it is.
    pub(crate) fn lease_of(&self, member: &Arc<Member>) -> Lease {
        Lease::new(Arc::clone(member), false, self.clock.clone())
    }

    fn why_not(members: &[Arc<Member>], now: DateTime<Utc>) -> Unavailable {
        if members.is_empty() {
            return Unavailable::NotConfigured;
        }
        let mut cooling = false;
        let mut shortest: Option<Duration> = None;
        for member in members {
            let left = match member.state().standing(now) {
                Standing::Available => return Unavailable::NoneLeft,
                Standing::Disabled => continue,
                Standing::Cooling(left) => {
                    cooling = true;
                    left
                }
                Standing::Open(left) => left,
            };
            shortest = Some(shortest.map_or(left, |shortest| shortest.min(left)));
        }
        match shortest {
            None => Unavailable::AllDisabled,
            Some(shortest) if cooling => Unavailable::CoolingDown { shortest },
            Some(shortest) => Unavailable::Failing { shortest },
        }
    }
}

/// A key, or the key file of a Google service account.
fn of_environment(dialect: Dialect, secret: &SecretString) -> Option<Auth> {
    if !secret.expose().trim_start().starts_with('{') {
        return Ready::key(dialect, secret).map(Auth::Fixed);
    }
    match google::ServiceAccount::parse(secret) {
        Ok(account) => {
            let own = Some(Grant::Google(account));
            Some(Auth::Token(Box::new(Tokens::new("google_service_account", dialect, own))))
        }
        Err(why) => {
            tracing::error!(why, "a credential of the environment is not used: what it should be");
            None
        }
    }
}
