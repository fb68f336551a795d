//! Counters in memory, of this process alone.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use loom_core::{Clock, Result};
use moka::future::Cache;

use super::{Budget, network_of, too_many};

/// Who is counted at a time; beyond it those that come least often are forgotten.
const COUNTED: u64 = 100_000;
/// No budget here is over a longer time.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// Who it is that does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// A network, as [`network_of`] gives it.
    Network(IpAddr),
    /// All of them together.
    Everybody,
}

impl From<IpAddr> for Subject {
    fn from(ip: IpAddr) -> Self {
        Self::Network(network_of(ip))
    }
}

/// A leaky bucket for each purpose and subject. What is kept is the moment at which the budget is whole
/// again, in microseconds.
pub(crate) struct Flood {
    clock: Clock,
    full_at: Cache<(&'static str, Subject), Arc<AtomicI64>>,
}

impl Flood {
    pub(crate) fn new(clock: Clock) -> Self {
        let full_at = Cache::builder().max_capacity(COUNTED).time_to_idle(FORGET_AFTER).build();
        Self { clock, full_at }
    }

    /// Takes one of the budget.
    ///
    /// # Errors
    /// 429 when there is none left.
    pub(crate) async fn take(
        &self,
        purpose: &'static str,
        subject: impl Into<Subject>,
        budget: Budget,
    ) -> Result<()> {
        let bucket = self.full_at.get_with((purpose, subject.into()), async { Arc::default() });
        let bucket = bucket.await;
        let (now, per, interval) = self.measures(budget);
        bucket
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |full_at| {
                let next = full_at.clamp(now, now.saturating_add(per)).saturating_add(interval);
                (next <= now.saturating_add(per)).then_some(next)
            })
            .map(|_| ())
            .map_err(|full_at| too_many(wait(full_at, now, per, interval)))
    }

    /// Is one left? Takes nothing.
    ///
    /// # Errors
    /// 429 when there is none left.
    pub(crate) async fn look(
        &self,
        purpose: &'static str,
        subject: impl Into<Subject>,
        budget: Budget,
    ) -> Result<()> {
        let Some(bucket) = self.full_at.get(&(purpose, subject.into())).await else {
            return Ok(());
        };
        let (now, per, interval) = self.measures(budget);
        let full_at = bucket.load(Ordering::Acquire).clamp(now, now.saturating_add(per));
        if full_at.saturating_add(interval) <= now.saturating_add(per) {
            Ok(())
        } else {
            Err(too_many(wait(full_at, now, per, interval)))
        }
    }

    fn measures(&self, budget: Budget) -> (i64, i64, i64) {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        (self.clock.now().timestamp_micros(), micros(budget.per), micros(budget.interval()))
    }
}

fn wait(full_at: i64, now: i64, per: i64, interval: i64) -> Duration {
    let micros = full_at.saturating_add(interval).saturating_sub(per).saturating_sub(now);
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    const BUDGET: Budget = Budget::per_minute(3);

    fn flood() -> (Flood, Clock) {
        let clock = Clock::manual(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        (Flood::new(clock.clone()), clock)
    }

    #[tokio::test]
    async fn a_budget_is_spent_and_comes_back_bit_by_bit() {
        let (flood, clock) = flood();
        let who: IpAddr = [192, 0, 2, 1].into();
        for _ in 0..3 {
            flood.look("x", who, BUDGET).await.unwrap();
            flood.take("x", who, BUDGET).await.unwrap();
        }
        let refused = flood.take("x", who, BUDGET).await.unwrap_err();
        assert_eq!((refused.code(), refused.retry_after_secs()), ("rate_limited", Some(20)));
        assert_eq!(flood.look("x", who, BUDGET).await.unwrap_err().retry_after_secs(), Some(20));
        // What was refused costs nothing, and others have their own.
        flood.take("x", IpAddr::from([192, 0, 2, 2]), BUDGET).await.unwrap();
        flood.take("y", who, BUDGET).await.unwrap();
        clock.advance(Duration::from_secs(20));
        flood.take("x", who, BUDGET).await.unwrap();
        flood.take("x", who, BUDGET).await.unwrap_err();
        clock.advance(Duration::from_secs(600));
        for _ in 0..3 {
            flood.take("x", who, BUDGET).await.unwrap();
        }
        flood.take("x", who, BUDGET).await.unwrap_err();
    }

    #[tokio::test]
    async fn ipv6_counts_by_its_64_and_a_mapped_ipv4_as_itself() {
        let (flood, _) = flood();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for n in 1..=3 {
            flood.take("x", ip(&format!("2001:db8:0:1::{n}")), BUDGET).await.unwrap();
            flood.take("x", ip("192.0.2.1"), BUDGET).await.unwrap();
        }
        flood.take("x", ip("2001:db8:0:1:ffff::9"), BUDGET).await.unwrap_err();
        flood.take("x", ip("2001:db8:0:2::1"), BUDGET).await.unwrap();
        flood.take("x", ip("::ffff:192.0.2.1"), BUDGET).await.unwrap_err();
    }
}
