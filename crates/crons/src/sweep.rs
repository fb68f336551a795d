//! Runs that were not told of: those that did not begin, and those that were not heard of again. Each in time
//! that grows with what is due, and once however many servers look.

#[cfg(test)]
mod model;

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use loom_core::{
    Result,
    id::{CheckInId, MonitorId},
};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::Engine,
    model::{EnvironmentState, Monitor, Source, Status},
    store::{self, sweeps::Gap},
    work::{Place, Row, Work, overlapping},
};

/// Of one transaction.
const BATCH: i64 = 500;
/// What came in just now may still be on its way to the database.
const ON_ITS_WAY: TimeDelta = TimeDelta::seconds(2);
/// Runs of one monitor that are judged in one go.
const MOST_SLOTS: usize = 100;
/// Gaps that ended longer ago touch nothing that is judged now.
pub(crate) const OLD: TimeDelta = TimeDelta::days(40);
/// A run may begin so much before its time.
const EARLY: TimeDelta = TimeDelta::seconds(30);

impl Engine {
    /// Finds the runs that did not begin in time; gives their number.
    pub(crate) async fn find_missed(&self, cancel: &CancellationToken) -> Result<u64> {
        self.beat().await?;
        let now = self.clock.now();
        store::sweeps::note(&self.pool, now).await?;
        let mut handled = 0;
        while !cancel.is_cancelled() {
            let mut tx = loom_db::begin(&self.pool).await?;
            let due = store::states::lock_due(&mut tx, now - ON_ITS_WAY, BATCH).await?;
            let is_last = (due.len() as i64) < BATCH;
            if due.is_empty() {
                break;
            }
            let gaps = store::sweeps::gaps(&mut tx, now - OLD).await?;
            let monitors = self.monitors(&mut tx, due.iter().map(|(id, _)| *id)).await?;
            let mut work = Work::new(now);
            for (id, state) in due {
                let Some(monitor) = monitors.get(&id) else { continue };
                handled += miss(&mut work, monitor, state, &gaps, now);
            }
            let told = work.save(self, &mut tx).await?;
            tx.commit().await?;
            self.notify.wake();
            self.say(&told);
            if is_last {
                break;
            }
        }
        metrics::counter!("loom_cron_missed_total").increment(handled);
        Ok(handled)
    }

    /// Finds the runs that were not heard of again in time; gives their number.
    pub(crate) async fn find_timeouts(&self, cancel: &CancellationToken) -> Result<u64> {
        self.beat().await?;
        let now = self.clock.now();
        store::sweeps::note(&self.pool, now).await?;
        let before = now - ON_ITS_WAY;
        let mut handled = 0;
        while !cancel.is_cancelled() {
            let mut tx = loom_db::begin(&self.pool).await?;
            let due = store::states::overdue_runs(&mut tx, before, BATCH).await?;
            let is_last = (due.len() as i64) < BATCH;
            let mut places: Vec<Place> = due.iter().map(|(place, _)| place.clone()).collect();
            places.sort();
            places.dedup();
            // What somebody else holds is looked at in a minute.
            let locked = store::states::lock(&mut tx, &places, true).await?;
            if locked.is_empty() {
                break;
            }
            let gaps = store::sweeps::gaps(&mut tx, now - OLD).await?;
            let monitors = self.monitors(&mut tx, locked.iter().map(|(id, _)| *id)).await?;
            let mut work = Work::new(now);
            for (id, state) in locked {
                if let Some(monitor) = monitors.get(&id) {
                    work.hold(Arc::clone(monitor), state);
                }
            }
            // Again, now that they are held: one may have ended in between.
            let keys: Vec<_> = due.iter().map(|(_, run)| run.key).collect();
            let of: Vec<Place> = due.into_iter().map(|(place, _)| place).collect();
            for (place, run) in store::states::runs_by_key(&mut tx, &of, &keys).await? {
                if let Some(held) = work.held.get_mut(&place)
                    && run.deadline_at.is_some_and(|deadline| deadline <= before)
                {
                    held.runs.push(run);
                }
            }
            handled += give_up(&mut work, &gaps, now);
            let told = work.save(self, &mut tx).await?;
            tx.commit().await?;
            self.notify.wake();
            self.say(&told);
            if is_last {
                break;
            }
        }
        metrics::counter!("loom_cron_timeouts_total").increment(handled);
        Ok(handled)
    }

    async fn monitors(
        &self,
        db: &mut sqlx::PgConnection,
        ids: impl Iterator<Item = MonitorId>,
    ) -> Result<HashMap<MonitorId, Arc<Monitor>>> {
        let mut ids: Vec<_> = ids.map(|id| id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        let found = store::monitors::by_ids(db, &ids).await?;
        Ok(found.into_iter().map(|monitor| (monitor.id, Arc::new(monitor))).collect())
    }

    /// Tells of incidents that last, or were muted; gives their number.
    pub(crate) async fn remind(&self, cancel: &CancellationToken) -> Result<u64> {
        let now = self.clock.now();
        let mut handled = 0;
        while !cancel.is_cancelled() {
            let mut tx = loom_db::begin(&self.pool).await?;
            let due = store::incidents::lock_due(&mut tx, now, BATCH).await?;
            let is_last = (due.len() as i64) < BATCH;
            if due.is_empty() {
                break;
            }
            let monitors = self.monitors(&mut tx, due.iter().map(|open| open.monitor)).await?;
            for open in &due {
                match monitors.get(&open.monitor) {
                    Some(monitor) => self.tell(&mut tx, monitor, open, now).await?,
                    None => store::incidents::tell_later(&mut tx, open.id, None).await?,
                }
                handled += 1;
            }
            tx.commit().await?;
            self.notify.wake();
            if is_last {
                break;
            }
        }
        Ok(handled)
    }
}

/// Of one monitor all that is overdue.
fn miss(
    work: &mut Work,
    monitor: &Arc<Monitor>,
    state: EnvironmentState,
    gaps: &[Gap],
    now: DateTime<Utc>,
) -> u64 {
    let place: Place = (monitor.id, state.name.clone());
    work.hold(Arc::clone(monitor), state);
    let mut found = 0;
    for _ in 0..MOST_SLOTS {
        let Some(held) = work.held.get_mut(&place) else { break };
        // A job that is paused, or whose schedule has ended, is waited for no more.
        let Some(expected) = held.state.expected_at.filter(|_| monitor.paused_at.is_none()) else {
            held.state.due_at = None;
            break;
        };
        let due = expected + monitor.margin();
        if due > now - ON_ITS_WAY {
            held.state.due_at = Some(due);
            break;
        }
        let gap = overlapping(gaps, expected - EARLY, due);
        // What comes in right after we are back counts.
        if let Some(grace) = gap.map(|gap| gap.to + monitor.margin()).filter(|until| *until > now) {
            held.state.due_at = Some(grace);
            break;
        }
        // From the time it was expected at, not from now: what follows stays where it belongs.
        let next = match gap {
            Some(gap) => monitor.plan.after(expected.max(gap.to)),
            None => monitor.plan.after(expected),
        };
        held.state.expected_at = next;
        held.state.due_at = monitor.due(next);
        let (status, reason) = match gap {
            Some(_) => (Status::Unknown, "server_down"),
            None => (Status::Missed, "not_started"),
        };
        let at = expected.trunc_subsecs(3);
        let row = Row {
            is_new: true,
            id: CheckInId::new(at),
            at,
            place: place.clone(),
            monitor: Arc::clone(monitor),
            run_key: None,
            status,
            reason: Some(reason),
            source: Source::System,
            expected_at: Some(expected),
            started_at: None,
            finished_at: None,
            received_at: now,
            duration_ms: None,
            exit_code: None,
            output: None,
            late: false,
            release: None,
            trace_id: None,
        };
        work.add(row, expected);
        found += 1;
    }
    found
}

/// All that is held and overdue.
fn give_up(work: &mut Work, gaps: &[Gap], now: DateTime<Utc>) -> u64 {
    let mut rows = Vec::new();
    for (place, held) in &mut work.held {
        for run in &mut held.runs {
            let Some(deadline) = run.deadline_at else { continue };
            // Its end may have been told to nobody.
            let unheard = overlapping(gaps, run.seen_at, deadline).is_some();
            let (status, reason) = if unheard {
                (Status::Unknown, "server_down")
            } else {
                (Status::Timeout, "no_sign")
            };
            run.deadline_at = None;
            run.ended_at = Some(deadline);
            run.outcome = Some(status);
            run.changed = true;
            let row = Row {
                is_new: false,
                id: run.checkin,
                at: run.at,
                place: place.clone(),
                monitor: Arc::clone(&held.monitor),
                run_key: Some(run.key),
                status,
                reason: Some(reason),
                source: Source::System,
                expected_at: None,
                started_at: run.started_at,
                finished_at: None,
                received_at: now,
                duration_ms: None,
                exit_code: None,
                output: None,
                late: false,
                release: None,
                trace_id: None,
            };
            rows.push((row, deadline));
        }
    }
    rows.sort_by_key(|(_, deadline)| *deadline);
    let found = rows.len() as u64;
    for (row, deadline) in rows {
        // Another run may have been judged since the deadline: that this one hangs is news all the same.
        let judged = work.held.get(&row.place).and_then(|held| held.state.judged_at);
        work.add(row, judged.map_or(deadline, |judged| judged.max(deadline)));
    }
    found
}
