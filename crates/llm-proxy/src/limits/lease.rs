//! Shares, as they come from the database and go back to it.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::{Error, Result};

use super::{
    Limits, SHARES,
    gauge::{Gauge, Measure, share_of},
    store::{self, Back, Took, Want},
};

/// What a replica holds is lost when it has not said for so long that it lives.
const LEASE: TimeDelta = TimeDelta::seconds(60);
/// A share that nothing was let in against for so long goes back.
const IDLE: TimeDelta = TimeDelta::seconds(10);
const TICK: Duration = Duration::from_secs(1);
/// The longest that a request waits for the database.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a failure, nobody asks for so long.
const RECOVERY: Duration = Duration::from_millis(500);
/// What is taken beyond what is needed, as a part of the limit: alone, or with others, who could lack it.
const ALONE: i64 = 10;
const AMONG_OTHERS: i64 = 400;

/// What came of asking for more.
pub(super) enum Fetched {
    /// Everything that was lacking.
    All,
    /// Others hold some, or did: it may come back in a moment.
    Held,
    None,
}

pub(super) fn away() -> Error {
    Error::unavailable(
        "limits cannot be checked just now, as the database does not answer; nothing was asked of a model",
    )
}

impl Limits {
    /// The shares are ours beyond doubt.
    pub(super) fn is_sound(&self, now: DateTime<Utc>) -> bool {
        now.timestamp_micros() < self.lease_until.load(Ordering::Acquire)
            && !self.doubtful.load(Ordering::Acquire)
    }

    /// Asks for what is lacking, once; bounded in time.
    pub(super) async fn fetch(
        &self,
        lacking: &[(Arc<Gauge>, i64)],
        now: DateTime<Utc>,
    ) -> Result<Fetched> {
        if self.is_away() {
            return Err(away());
        }
        // In a task of its own: when the client leaves meanwhile, what the database gives is still ours.
        let (limits, lacking) = (self.clone(), lacking.to_vec());
        let fetching =
            async move { tokio::time::timeout(PATIENCE, limits.try_fetch(&lacking, now)).await };
        let fetched = tokio::spawn(fetching).await.map_err(Error::internal)?;
        match fetched {
            Ok(Ok(fetched)) => Ok(fetched),
            failed => {
                // Whether it was done is not known.
                self.doubtful.store(true, Ordering::Release);
                *self.away.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                self.measures.trips_failed.increment(1);
                Err(match failed {
                    Ok(Err(error)) => away().because(error),
                    _ => away(),
                })
            }
        }
    }

    fn is_away(&self) -> bool {
        let since = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|at| at.elapsed() < RECOVERY)
    }

    async fn try_fetch(
        &self,
        lacking: &[(Arc<Gauge>, i64)],
        now: DateTime<Utc>,
    ) -> Result<Fetched> {
        self.renew(now).await?;
        for (gauge, _) in lacking {
            self.open(gauge, now).await?;
        }
        let alone = self.replicas.load(Ordering::Relaxed) <= 1;
        let part = if alone { ALONE } else { AMONG_OTHERS };
        let wants: Vec<Want<'_>> = lacking
            .iter()
            .filter_map(|(gauge, need)| {
                let state = gauge.state(now);
                // It may have come in meanwhile.
                let need = need.saturating_sub(state.free());
                let window = state.window;
                drop(state);
                // For all who stand in line, and some more.
                let wanted =
                    need.max(gauge.in_line()).saturating_add(share_of(gauge.cap(), 1, part));
                (need > 0).then_some(Want { gauge, window, need, wanted })
            })
            .collect();
        if wants.is_empty() {
            return Ok(Fetched::All);
        }
        let took = store::take(&self.own, self.id, &wants, now).await?;
        let mut fetched = Fetched::All;
        let mut wanted = std::collections::BTreeSet::new();
        for (want, took) in wants.iter().zip(took) {
            let Took { granted, rest, others, replicas } = took;
            self.replicas.store(replicas, Ordering::Relaxed);
            {
                let mut state = want.gauge.plain();
                if state.window == want.window {
                    state.took(granted, rest, now);
                }
            }
            if granted > 0 {
                self.measures.shares_taken.increment(1);
                continue;
            }
            self.measures.shares_refused.increment(1);
            let measure = want.gauge.key.measure;
            let may_come = others > 0
                || measure == Measure::Concurrent
                || (measure.is_rate() && replicas > 1 && rest > 0);
            if !may_come {
                fetched = Fetched::None;
            } else if matches!(fetched, Fetched::All) {
                fetched = Fetched::Held;
            }
            wanted.insert(want.gauge.key.org);
        }
        if matches!(fetched, Fetched::Held) && self.replicas.load(Ordering::Relaxed) > 1 {
            for org in wanted {
                store::say(&self.own, &format!("{SHARES} {} {org}", self.id)).await?;
            }
        }
        Ok(fetched)
    }

    /// Makes sure that the window of a budget is in the database.
    async fn open(&self, gauge: &Gauge, now: DateTime<Utc>) -> Result<()> {
        let measure = gauge.key.measure;
        let (window, opened) = {
            let state = gauge.state(now);
            (state.window, state.opened)
        };
        if opened || !measure.is_budget() {
            return Ok(());
        }
        store::open_window(&self.pool, &gauge.key, window, measure.window_end(window)).await?;
        let mut state = gauge.plain();
        state.opened |= state.window == window;
        Ok(())
    }

    /// Says that we live, when the half of the lease is over, or what we hold is not known.
    pub(super) async fn renew(&self, now: DateTime<Utc>) -> Result<()> {
        let half = (now + LEASE / 2).timestamp_micros();
        let doubtful = self.doubtful.load(Ordering::Acquire);
        if half < self.lease_until.load(Ordering::Acquire) && !doubtful {
            return Ok(());
        }
        if doubtful {
            store::leave(&self.own, self.id).await?;
        }
        let until = now + LEASE;
        let new = store::renew(&self.own, self.id, &self.name, until).await?;
        if new {
            // What we held is gone: what runs here is covered again with the next share.
            for gauge in self.all_gauges() {
                if !gauge.key.measure.is_rate() {
                    gauge.plain().held = 0;
                }
            }
        }
        self.doubtful.store(false, Ordering::Release);
        self.lease_until.store(until.timestamp_micros(), Ordering::Release);
        Ok(())
    }

    fn all_gauges(&self) -> Vec<Arc<Gauge>> {
        let gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        gauges.values().cloned().collect()
    }

    /// Gives back what nothing runs against, but for what `keep` says; None keeps all.
    pub(super) async fn give_back_free(&self, keep: impl Fn(&Gauge) -> Option<i64>) {
        let backs = self.take_free(keep);
        if backs.is_empty() {
            return;
        }
        self.measures.shares_returned.increment(backs.len() as u64);
        let given =
            tokio::time::timeout(PATIENCE, store::give_back(&self.own, self.id, &backs)).await;
        if !matches!(given, Ok(Ok(()))) {
            self.doubtful.store(true, Ordering::Release);
        }
    }

    fn take_free(&self, keep: impl Fn(&Gauge) -> Option<i64>) -> Vec<Back> {
        let mut backs = Vec::new();
        for gauge in self.all_gauges() {
            let Some(kept) = keep(&gauge) else { continue };
            let mut state = gauge.plain();
            let amount = state.take_free(kept);
            if amount > 0 {
                backs.push(Back {
                    key: gauge.key.clone(),
                    cap: gauge.cap(),
                    window: state.window,
                    amount,
                });
            }
        }
        backs.sort_by(|a, b| a.key.cmp(&b.key));
        backs
    }

    /// Renews the lease in time, and gives back what lies idle.
    pub(super) async fn keep_leases(self) {
        let weak = Arc::downgrade(&self.0);
        drop(self);
        loop {
            tokio::time::sleep(TICK).await;
            let Some(limits) = weak.upgrade().map(Limits) else { return };
            let now = limits.clock.now();
            if limits.lease_until.load(Ordering::Acquire) == i64::MIN {
                return;
            }
            let holds = limits.all_gauges().iter().any(|gauge| {
                let state = gauge.plain();
                !gauge.key.measure.is_rate() && (state.held > 0 || state.reserved > 0)
            });
            if holds && let Ok(Err(error)) = tokio::time::timeout(PATIENCE, limits.renew(now)).await
            {
                tracing::warn!(?error, "shares of limits could not be renewed");
            }
            let keep = |gauge: &Gauge| {
                let idle = now - gauge.plain().used_at > IDLE;
                // What requests did not use of the tokens that they reserved is for all.
                let surplus = gauge.key.measure == Measure::Tokens;
                let kept = if idle { 0 } else { share_of(gauge.cap(), 1, ALONE) };
                (idle || surplus).then_some(kept)
            };
            limits.give_back_free(keep).await;
        }
    }

    /// Gives everything back; nothing is let in after this.
    pub(crate) async fn close(&self) {
        self.give_back_free(|_| Some(0)).await;
        self.lease_until.store(i64::MIN, Ordering::Release);
        let left = tokio::time::timeout(PATIENCE, store::leave(&self.own, self.id)).await;
        if let Ok(Err(error)) = left {
            tracing::warn!(
                ?error,
                "shares of limits could not be given back; they come back by themselves"
            );
        }
    }
}
