//! What an organisation wants done with its threads, kept in memory: it is asked at each write.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use loom_core::id::OrgId;
use loom_db::Signal;

use crate::{Threads, store};

/// Another replica's change is told at once; this is for when the telling got lost.
const MAX_AGE: Duration = Duration::from_secs(30);
const MAX_KEPT: usize = 10_000;
/// How a word on the channel begins that is about settings.
const WORD: &str = "settings ";

#[derive(Default)]
pub(crate) struct Settings(Mutex<AllKnown>);

#[derive(Default)]
struct AllKnown {
    orgs: HashMap<OrgId, Known>,
    /// How often something was forgotten: what was read before is not kept after.
    forgotten: u64,
}

#[derive(Clone, Copy)]
struct Known {
    redact_secrets: bool,
    read_at: DateTime<Utc>,
}

impl Settings {
    /// What is known, or else what [`Settings::keep`] wants to hear.
    fn known(&self, org: OrgId, now: DateTime<Utc>) -> Result<bool, u64> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One from the future is old: the clock went back.
        let fresh = |known: &&Known| (now - known.read_at).to_std().is_ok_and(|age| age < MAX_AGE);
        let known = all.orgs.get(&org).filter(fresh);
        known.map(|known| known.redact_secrets).ok_or(all.forgotten)
    }

    fn keep(&self, org: OrgId, redact_secrets: bool, now: DateTime<Utc>, forgotten: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.forgotten != forgotten {
            return;
        }
        if all.orgs.len() >= MAX_KEPT {
            all.orgs.clear();
        }
        all.orgs.insert(org, Known { redact_secrets, read_at: now });
    }

    fn forget(&self, org: Option<OrgId>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.forgotten += 1;
        match org {
            Some(org) => {
                all.orgs.remove(&org);
            }
            None => all.orgs.clear(),
        }
    }
}

impl Threads {
    /// Are secrets masked before anything of this organisation is stored?
    pub(crate) async fn redacts(&self, org: OrgId) -> loom_core::Result<bool> {
        let now = self.clock.now();
        let forgotten = match self.settings.known(org, now) {
            Ok(known) => return Ok(known),
            Err(forgotten) => forgotten,
        };
        let found = store::sharing::redacts(&self.pool, org).await?;
        self.settings.keep(org, found, now, forgotten);
        Ok(found)
    }

    pub(crate) async fn set_redacts(
        &self,
        org: OrgId,
        redact_secrets: bool,
    ) -> loom_core::Result<()> {
        store::sharing::set_redacts(&self.pool, org, redact_secrets, self.clock.now()).await?;
        self.settings.forget(Some(org));
        let word = format!("{WORD}{org}");
        sqlx::query!("SELECT pg_notify($1, $2)", crate::CHANNEL, word).execute(&self.pool).await?;
        Ok(())
    }

    /// Forgets what another replica says has changed, until the server stops.
    pub(crate) fn follow_settings(&self) {
        let threads = self.clone();
        let stop = self.feed.leaving.clone();
        self.hub.follow(crate::CHANNEL, stop, move |signal| match signal {
            Signal::Said(word) => {
                if let Some(org) = word.strip_prefix(WORD) {
                    threads.settings.forget(org.parse().ok());
                }
            }
            Signal::ReadAgain => threads.settings.forget(None),
        });
    }
}
