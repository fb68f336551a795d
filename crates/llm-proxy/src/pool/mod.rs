//! The credentials of a provider: which there are, in what state, and which is next.

mod config;
mod lease;
mod member;
mod verdict;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use loom_core::Clock;

pub(crate) use config::Config;
pub(crate) use lease::{CredentialKey, Lease, Unavailable, put_on};
pub(crate) use member::{Member, Ready, Who};
pub(crate) use verdict::Verdict;

use member::Standing;

/// The credentials of one provider.
pub(crate) struct Pool {
    clock: Clock,
    /// From the environment, or the place of none where none is needed.
    own: Option<Arc<Member>>,
    stored: ArcSwap<Vec<Arc<Member>>>,
    turn: AtomicU64,
}

impl Pool {
    pub(crate) fn new(clock: Clock, own: Option<Arc<Member>>) -> Self {
        Self { clock, own, stored: ArcSwap::default(), turn: AtomicU64::new(1) }
    }

    pub(crate) fn set_stored(&self, members: Vec<Arc<Member>>) {
        self.stored.store(Arc::new(members));
    }

    /// All of them. That none is needed counts only while there is none.
    pub(crate) fn members(&self) -> Vec<Arc<Member>> {
        let stored = self.stored.load();
        let own = self.own.iter().filter(|own| stored.is_empty() || own.who != Who::Keyless);
        own.chain(stored.iter()).cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_none() && self.stored.load().is_empty()
    }

    /// The least loaded one that is available and was not tried; of equals, the one that rested longest.
    pub(crate) fn lease(
        &self,
        tried: &[CredentialKey],
        now: DateTime<Utc>,
    ) -> Result<Lease, Unavailable> {
        let members = self.members();
        let key = |member: &Member| CredentialKey { who: member.who, token: 0 };
        let mut open: Vec<_> =
            members.iter().filter(|member| !tried.contains(&key(member))).collect();
        open.sort_by_cached_key(|member| {
            (member.in_flight.load(Ordering::Relaxed), member.last_used.load(Ordering::Relaxed))
        });
        for member in open {
            if let Some(probe) = member.take(now) {
                member
                    .last_used
                    .store(self.turn.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
                return Ok(Lease::new(Arc::clone(member), 0, probe, self.clock.clone()));
            }
        }
        Err(Self::why_not(&members, now))
    }

    /// One of them, in whatever state it is.
    pub(crate) fn lease_of(&self, member: &Arc<Member>) -> Lease {
        Lease::new(Arc::clone(member), 0, false, self.clock.clone())
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
