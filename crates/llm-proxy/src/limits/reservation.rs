//! Letting a request in: what it may use is reserved of every limit that it counts against, all or
//! nothing, and settled with what it did use.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use loom_core::{Error, Result};

use super::{
    Limits,
    gauge::{Entry, Gauge, InLine, Measure},
    headers::{Quota, Surface, refused},
    lease::{Fetched, away},
    model,
};
use crate::{dialect::Operation, ledger::Row, price, usage::Usage};

/// How long to wait for what others give back, before each further try.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(15), Duration::from_millis(40)];
/// The longest that a request stands in line for its turn.
const IN_LINE: Duration = Duration::from_secs(10);

type Entries = Vec<(Arc<Gauge>, Entry)>;

/// What a request may use, as far as it is known before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// What the provider is asked.
    pub(crate) operation: Operation,
    /// How the client speaks to us.
    pub(crate) surface: Surface,
    /// The most tokens that the client lets the model answer with.
    pub(crate) max_output: Option<u64>,
    /// See [`super::input_estimate`].
    pub(crate) input_estimate: u64,
}

/// What a request has reserved. Dropped unsettled, all of it is free again.
pub(crate) struct Reservation {
    entries: Entries,
    input_estimate: u64,
    pub(super) quotas: Vec<Quota>,
    pub(super) surface: Surface,
    pub(super) at: DateTime<Utc>,
}

impl Limits {
    /// Reserves what a request may use, in place of what is `held` for it already. None where nothing is
    /// limited.
    ///
    /// # Errors
    /// 429 for what is used up, 503 when that cannot be known; what is held stays.
    pub(crate) async fn reserve(
        &self,
        held: &mut Option<Reservation>,
        asked: Need,
        row: &Row,
    ) -> Result<()> {
        let (gauges, strict) = self.gauges_of(row).await?;
        if gauges.is_empty() && !strict {
            *held = None;
            return Ok(());
        }
        let now = self.clock.now();
        let provider = &*row.provider;
        let model = model::bare(provider, &row.model);
        let costs = !asked.operation.only_counts();
        let price = self.prices.of(row.org_id, provider, model).filter(|_| costs);
        if strict && costs && price.is_none() {
            return Err(Error::new(
                StatusCode::FORBIDDEN,
                "unpriced_model",
                format!(
                    "the price of `{model}` is not known, and a limit here refuses models that no budget can hold"
                ),
            ));
        }
        let output = match asked.operation {
            Operation::Embeddings => 0,
            _ if !costs => 0,
            _ => {
                let most = price::max_output(provider, model);
                let wanted = asked.max_output.unwrap_or(u64::MAX);
                wanted.min(most.unwrap_or(u64::MAX)).min(match (asked.max_output, most) {
                    (None, None) => price::DEFAULT_MAX_OUTPUT,
                    _ => u64::MAX,
                })
            }
        };
        let input = if costs { asked.input_estimate } else { 0 };
        let usage = Usage { input: Some(input), output: Some(output), ..Usage::default() };
        let money = price.and_then(|price| price.cost_nanousd(&usage)).unwrap_or_default();
        let tokens = i64::try_from(input.saturating_add(output)).unwrap_or(i64::MAX);
        let amount = |measure: Measure| match measure {
            Measure::Requests | Measure::Concurrent => 1,
            Measure::Tokens => tokens,
            Measure::Day | Measure::Month | Measure::Life => money,
        };
        let mut needs = Vec::with_capacity(gauges.len());
        for gauge in gauges {
            let mut amount = amount(gauge.key.measure);
            if gauge.key.measure == Measure::Life && amount > 0 {
                // The last of it is spent too, by a request that may cost more: nothing comes after.
                amount = amount.min(gauge.remaining(now).max(1));
            }
            // What costs nothing that is known is not held by a budget, not even by one that is used up.
            if amount == 0 && gauge.key.measure != Measure::Requests {
                continue;
            }
            match gauge.need(amount) {
                Some(need) => needs.push((gauge, need)),
                None => {
                    self.measures.refused(&gauge.key);
                    return Err(refused(&gauge, amount, now));
                }
            }
        }
        let has = |gauge: &Arc<Gauge>| held.as_ref().map_or(0, |held| held.of(gauge, now));
        let more = needs.iter().filter_map(|(gauge, need)| {
            let more = need - has(gauge);
            (more > 0).then(|| (Arc::clone(gauge), more))
        });
        let more: Vec<_> = more.collect();
        let mut entries = self.admit(&more, now).await?;
        if let Some(before) = held.take() {
            before.pass_on(&needs, &mut entries);
        }
        let quotas = Quota::of(&entries, now);
        let input_estimate = asked.input_estimate;
        let surface = asked.surface;
        *held = Some(Reservation { entries, input_estimate, quotas, surface, at: now });
        Ok(())
    }

    async fn admit(&self, needs: &[(Arc<Gauge>, i64)], now: DateTime<Utc>) -> Result<Entries> {
        // In memory, nearly always.
        let mut lacking = match self.try_admit(needs, now) {
            Ok(entries) => return Ok(entries),
            Err(lacking) => lacking,
        };
        lacking.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
        let Some((first, _)) = lacking.first() else { return Err(away()) };
        let first = Arc::clone(first);
        // One asks for all who wait.
        let _line = InLine::new(&lacking);
        let _turn = tokio::time::timeout(IN_LINE, first.turn.lock()).await.map_err(|_| away())?;
        let mut pauses = PAUSES.iter();
        // A lease that ended meanwhile takes a further turn.
        for _ in 0..PAUSES.len() + 3 {
            let now = self.clock.now();
            let mut lacking = match self.try_admit(needs, now) {
                Ok(entries) => return Ok(entries),
                Err(lacking) => lacking,
            };
            lacking.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
            let empty =
                lacking.iter().find(|(gauge, need)| gauge.state(now).is_short_of(*need, now));
            if let Some((gauge, need)) = empty {
                self.measures.refused(&gauge.key);
                return Err(refused(gauge, *need, now));
            }
            match self.fetch(&lacking, now).await? {
                Fetched::All => continue,
                Fetched::Held => {
                    if let Some(pause) = pauses.next() {
                        tokio::time::sleep(*pause).await;
                        continue;
                    }
                }
                Fetched::None => {}
            }
            let refusal = lacking.iter().find(|(gauge, need)| gauge.state(now).free() < *need);
            if let Some((gauge, need)) = refusal {
                gauge.state(now).found_empty(now);
                self.measures.refused(&gauge.key);
                return Err(refused(gauge, *need, now));
            }
        }
        // Others were faster each time.
        let Some((gauge, need)) = needs.first() else { return Err(away()) };
        self.measures.refused(&gauge.key);
        Err(refused(gauge, *need, now))
    }

    /// All, or what is lacking.
    fn try_admit(
        &self,
        needs: &[(Arc<Gauge>, i64)],
        now: DateTime<Utc>,
    ) -> Result<Entries, Vec<(Arc<Gauge>, i64)>> {
        let sound = self.is_sound(now);
        let mut entries = Vec::with_capacity(needs.len());
        let mut lacking = Vec::new();
        for (gauge, need) in needs {
            match gauge.reserve(*need, sound, now) {
                Ok(entry) => entries.push((Arc::clone(gauge), entry)),
                Err(_) => lacking.push((Arc::clone(gauge), *need)),
            }
        }
        if lacking.is_empty() {
            return Ok(entries);
        }
        for (gauge, entry) in entries {
            gauge.settle(entry, 0);
        }
        Err(lacking)
    }
}

impl Reservation {
    /// What is reserved of this gauge.
    fn of(&self, gauge: &Arc<Gauge>, now: DateTime<Utc>) -> i64 {
        let entry = self.entries.iter().find(|(of, _)| Arc::ptr_eq(of, gauge));
        let window = gauge.state(now).window;
        entry.filter(|(_, entry)| entry.window == window).map_or(0, |(_, entry)| entry.amount)
    }

    /// Leaves to another what that one still needs, and the rest is free again.
    fn pass_on(mut self, needs: &[(Arc<Gauge>, i64)], to: &mut Entries) {
        for (gauge, mut entry) in self.entries.drain(..) {
            let need = needs.iter().find(|(of, _)| Arc::ptr_eq(of, &gauge)).map_or(0, |(_, n)| *n);
            let there = to.iter_mut().find(|(of, _)| Arc::ptr_eq(of, &gauge));
            let kept = match &there {
                // Its window is over.
                Some((_, more)) if more.window != entry.window => 0,
                _ => entry.amount.min(need),
            };
            entry.amount -= kept;
            gauge.settle(entry, 0);
            entry.amount = kept;
            match there {
                Some((_, more)) => more.amount += kept,
                None if kept > 0 => to.push((gauge, entry)),
                None => {}
            }
        }
    }

    /// Ends it with what the request has really used.
    pub(crate) fn settle(mut self, row: &Row) {
        let usage = &row.usage;
        let tokens = if usage.is_unknown() {
            // A failure used nothing that is known; of what was broken off, the input was read.
            if row.outcome == crate::ledger::Outcome::Failed.name() {
                0
            } else {
                self.input_estimate
            }
        } else {
            // OpenAI tells of the input at the end only: of a stream that was left it was read all the same.
            let read = [usage.input, usage.cache_read, usage.cache_write()];
            let read = read.into_iter().flatten().reduce(u64::saturating_add);
            read.unwrap_or(self.input_estimate).saturating_add(usage.output.unwrap_or_default())
        };
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        let money = row.cost_nanousd.unwrap_or_default();
        for (gauge, entry) in self.entries.drain(..) {
            let used = match gauge.key.measure {
                Measure::Requests => entry.amount,
                Measure::Tokens => tokens,
                Measure::Concurrent => 0,
                Measure::Day | Measure::Month | Measure::Life => money,
            };
            gauge.settle(entry, used);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        for (gauge, entry) in self.entries.drain(..) {
            gauge.settle(entry, 0);
        }
    }
}
