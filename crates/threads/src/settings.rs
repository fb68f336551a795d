//! What an organisation wants done with its threads, kept in memory: it is asked at each write.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use loom_core::{Result, id::OrgId};
use loom_db::Signal;

use crate::{Threads, store};

/// Another replica's change is told at once; this is for when the telling got lost.
const MAX_AGE: Duration = Duration::from_secs(30);
const MAX_KEPT: usize = 10_000;
/// How a word on the channel begins that is about settings.
const WORD: &str = "settings ";

#[derive(Default)]
pub(crate) struct Settings(Mutex<HashMap<OrgId, Known>>);

#[derive(Clone, Copy)]
struct Known {
    redact_secrets: bool,
    read_at: DateTime<Utc>,
}

impl Settings {
    fn known(&self, org: OrgId, now: DateTime<Utc>) -> Option<bool> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&org)?;
        // One from the future is old: the clock went back.
        let age = (now - known.read_at).to_std().ok()?;
        (age < MAX_AGE).then_some(known.redact_secrets)
    }

    fn keep(&self, org: OrgId, redact_secrets: bool, now: DateTime<Utc>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_KEPT {
            all.clear();
        }
        all.insert(org, Known { redact_secrets, read_at: now });
    }

    fn forget(&self, org: Option<OrgId>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match org {
            Some(org) => {
                all.remove(&org);
            }
            None => all.clear(),
        }
    }
}

impl Threads {
    /// Are secrets masked before anything of this organisation is stored?
    pub(crate) async fn redacts(&self, org: OrgId) -> Result<bool> {
        let now = self.clock.now();
        if let Some(known) = self.settings.known(org, now) {
            return Ok(known);
        }
        let found = store::sharing::redacts(&self.pool, org).await?;
        self.settings.keep(org, found, now);
        Ok(found)
    }

    pub(crate) async fn set_redacts(&self, org: OrgId, redact_secrets: bool) -> Result<()> {
        store::sharing::set_redacts(&self.pool, org, redact_secrets, self.clock.now()).await?;
        self.settings.forget(Some(org));
        let word = format!("{WORD}{org}");
        sqlx::query!("SELECT pg_notify($1, $2)", crate::CHANNEL, word).execute(&self.pool).await?;
        Ok(())
    }

    /// Forgets what another replica says has changed, until the server stops.
    pub(crate) fn follow_settings(&self) {
        let threads = self.clone();
        let mut said = self.hub.subscribe(crate::CHANNEL);
        tokio::spawn(async move {
            loop {
                let signal = tokio::select! {
                    () = threads.feed.leaving.cancelled() => return,
                    signal = said.next() => signal,
                };
                match signal {
                    Some(Signal::Said(word)) => {
                        if let Some(org) = word.strip_prefix(WORD) {
                            threads.settings.forget(org.parse().ok());
                        }
                    }
                    Some(Signal::ReadAgain) => threads.settings.forget(None),
                    None => return,
                }
            }
        });
    }
}
