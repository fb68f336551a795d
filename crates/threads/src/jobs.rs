//! Background work of the threads.

mod search;

use std::time::Duration;

use chrono::TimeDelta;
use loom_core::{
    Error, Result,
    id::{OrgId, ThreadId},
};
use loom_jobs::{Job, JobContext, JobError, JobReport};
use metrics::counter;

use crate::{Threads, http::touch, model::AgentStateKind, store};

/// A deleted thread can be brought back for so long.
pub(crate) const RESTORABLE: TimeDelta = TimeDelta::days(30);
/// Threads of one look.
const BATCH: i64 = 500;
/// Rows of one statement.
const EVENTS: i64 = 5000;
const KEEP_DAYS: i32 = 7;

pub(crate) fn all(threads: &Threads) -> Vec<Job> {
    let (reaper, cleanup, purger) = (threads.clone(), threads.clone(), threads.clone());
    vec![
        Job::new(
            "thread-lease-reaper",
            "Thread lease reaper",
            "Turns threads whose agent is not heard of any more to `error`, with `last_error: lost`",
            Duration::from_secs(30),
            Duration::from_secs(120),
            move |context| reap(reaper.clone(), context),
        ),
        Job::new(
            "thread-event-cleanup",
            "Thread event clean-up",
            "Deletes what happened to threads after 7 days; who was away for longer begins anew",
            Duration::from_secs(3600),
            Duration::from_secs(600),
            move |context| clean_up(cleanup.clone(), context),
        ),
        Job::new(
            "thread-purge",
            "Thread purge",
            "Removes threads for good that were deleted more than 30 days ago",
            Duration::from_secs(24 * 3600),
            Duration::from_secs(3600),
            move |context| purge(purger.clone(), context),
        ),
        search::backfill(threads.clone()),
        search::drift_check(threads.clone()),
    ]
}

async fn reap(threads: Threads, context: JobContext) -> Result<JobReport, JobError> {
    let mut items_handled = 0;
    while !context.cancel.is_cancelled() {
        let due = store::lease::due(&threads.pool, threads.now(), BATCH).await?;
        let is_last = (due.len() as i64) < BATCH;
        for (org, id) in due {
            if context.cancel.is_cancelled() {
                break;
            }
            items_handled += u64::from(give_up(&threads, org, id).await?);
        }
        if is_last {
            break;
        }
    }
    Ok(JobReport { items_handled })
}

/// A transaction for each, as all that write events have: what it locks may have been heard of since.
async fn give_up(threads: &Threads, org: OrgId, id: ThreadId) -> Result<bool> {
    let now = threads.now();
    let mut tx = loom_db::begin(&threads.pool).await?;
    let Some(before) = store::lock(&mut tx, org, id).await? else { return Ok(false) };
    if !store::lease::is_due(&mut tx, org, id, now).await? {
        return Ok(false);
    }
    if before.deleted_at.is_some() || !before.agent_state.kind.is_working() {
        store::lease::set(&mut tx, org, id, None, None).await?;
        tx.commit().await.map_err(Error::from)?;
        return Ok(false);
    }
    let mut head = before.clone();
    head.agent_state.kind = AgentStateKind::Error;
    head.agent_state.last_error = Some("lost".to_owned());
    touch(&mut head, &before, now);
    store::update(&mut tx, &head).await?;
    store::lease::set(&mut tx, org, id, None, None).await?;
    threads.tell(&mut tx, Some(&before), &head).await?;
    tx.commit().await?;
    threads.feed.wrote();
    counter!("loom_threads_lost_total").increment(1);
    Ok(true)
}

async fn clean_up(threads: Threads, context: JobContext) -> Result<JobReport, JobError> {
    let mut items_handled = store::events::clean_up_foreign(&threads.pool).await?;
    while !context.cancel.is_cancelled() {
        let gone = store::events::clean_up(&threads.pool, KEEP_DAYS, EVENTS).await?;
        items_handled += gone;
        if gone < EVENTS as u64 {
            break;
        }
    }
    Ok(JobReport { items_handled })
}

async fn purge(threads: Threads, context: JobContext) -> Result<JobReport, JobError> {
    let before = context.clock.now() - RESTORABLE;
    let mut items_handled = 0;
    while !context.cancel.is_cancelled() {
        // One at a time: one alone may have a hundred thousand messages.
        let mut tx = loom_db::begin(&threads.pool).await?;
        let Some((org, id)) = store::purgeable(&mut tx, before).await? else { break };
        // Who had the turn before may have restored it.
        let head = store::lock(&mut tx, org, id).await?;
        if head.and_then(|head| head.deleted_at).is_some_and(|at| at < before) {
            store::purge(&mut tx, org, id).await?;
            items_handled += 1;
        }
        tx.commit().await.map_err(Error::from)?;
    }
    Ok(JobReport { items_handled })
}
