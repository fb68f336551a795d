//! One run from its claim to its record: the body in a task of its own, its timeout, its lease, and
//! what it came to.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use loom_core::{Error, Result, id::RunId, port::OwnRun, text};
use tokio::{
    task::JoinError,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    alert::Turn,
    lease::{Lease, RUN_LOST},
    model::{Job, JobContext, JobError, JobReport, RunOutcome, RunStatus},
    retry,
    schedule::Schedule,
    scheduler::Inner,
    store,
};

/// A body that was told to stop gets this long before it is dropped.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// A body that is dropped ends at its next await, and one that blocks its thread never.
const DROP_WITHIN: Duration = Duration::from_secs(1);
/// Between tries to record a run.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of an error that the history keeps.
const ERROR_LEN: usize = 2000;

type Body = AbortOnDropHandle<Result<JobReport, JobError>>;

pub(crate) struct Running {
    pub(crate) id: RunId,
    pub(crate) slot: DateTime<Utc>,
    pub(crate) attempt: i32,
    pub(crate) term: i64,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) lease: Arc<Lease>,
    /// Cancelled when an admin wants it to stop.
    pub(crate) cancel: CancellationToken,
}

enum Ending {
    Done(Result<Result<JobReport, JobError>, JoinError>),
    TimedOut,
    LeaseLost,
    /// By an admin; with what it had done, if it stopped by itself.
    Cancelled(u64),
    Killed,
}

/// Runs the body to its end and records it.
pub(crate) async fn run(inner: &Inner, job: &Job, run: &Running) -> RunOutcome {
    report(inner, job, run.id, None, run.started_at, None);
    inner.say(job, run.id, RunStatus::Running, None);
    let cancel = inner.stop.child_token();
    let context = JobContext {
        cancel: cancel.clone(),
        clock: inner.clock.clone(),
        slot: run.slot,
        term: run.term,
        lease: Arc::clone(&run.lease),
    };
    let body = Arc::clone(&job.run);
    // In a task of its own, where a panic ends the task and nothing else.
    let mut task: Body = AbortOnDropHandle::new(tokio::spawn(async move { body(context).await }));
    let mut ending = tokio::select! {
        biased;
        result = &mut task => Ending::Done(result),
        () = inner.kill.cancelled() => Ending::Killed,
        () = run.cancel.cancelled() => Ending::Cancelled(0),
        () = sleep(job.timeout) => Ending::TimedOut,
        () = run.lease.keep(&run.cancel) => Ending::LeaseLost,
    };
    let was_told_to_stop = cancel.is_cancelled();
    if !matches!(ending, Ending::Done(_)) {
        cancel.cancel();
        let lease_lost = matches!(ending, Ending::LeaseLost);
        let to_stop = if lease_lost { run.lease.to_stop().min(STOP_WITHIN) } else { STOP_WITHIN };
        tokio::select! {
            stopped = timeout(to_stop, &mut task) => {
                if let (Ending::Cancelled(items), Ok(Ok(Ok(report)))) = (&mut ending, stopped) {
                    *items = report.items_handled;
                }
            }
            () = inner.kill.cancelled() => {}
            // Until it has stopped it is ours.
            () = run.lease.keep(&run.cancel), if !lease_lost => {}
        }
        // A handle must not be polled again once it has given its result.
        if !task.is_finished() {
            task.abort();
            let _ = timeout(DROP_WITHIN, &mut task).await;
        }
    }
    // A body that is refused at the fence did not fail: it hung, and another goes on with it.
    if matches!(&ending, Ending::Done(Ok(Err(error))) if error.error().code() == RUN_LOST) {
        ending = Ending::LeaseLost;
    }
    let pause = match &ending {
        Ending::Done(Ok(Err(JobError::Retry(error)))) if !was_told_to_stop => {
            let asked = Duration::from_secs(error.retry_after_secs().unwrap_or_default());
            retry::pause(run.attempt, asked)
        }
        // It is no fault of the job that its server went down: another goes on with it.
        Ending::Done(Ok(Err(_))) if was_told_to_stop => Some(Duration::ZERO),
        Ending::Killed => Some(Duration::ZERO),
        // Another replica may reach the database.
        Ending::LeaseLost if run.attempt < retry::MAX_ATTEMPTS => Some(Duration::ZERO),
        _ => None,
    };
    let (status, items_handled, error) = judge(ending, job, was_told_to_stop);
    let now = inner.clock.now();
    let outcome = RunOutcome {
        run_id: run.id,
        status,
        duration: (now - run.started_at).to_std().unwrap_or_default(),
        items_handled,
        error,
        retry_at: pause.map(|pause| now + pause),
    };
    record(inner, job, &outcome, run.lease.ends(), now).await;
    // Of what is tried again the last attempt counts; what somebody stopped did not fail.
    let succeeded = matches!(outcome.status, RunStatus::Succeeded | RunStatus::Cancelled);
    let duration = i64::try_from(outcome.duration.as_millis()).ok();
    report(inner, job, run.id, Some(succeeded), now, duration);
    inner.say(job, run.id, outcome.status, duration);
    outcome
}

/// Tells whoever wants to know of each run.
fn report(
    inner: &Inner,
    job: &Job,
    run: RunId,
    succeeded: Option<bool>,
    at: DateTime<Utc>,
    duration_ms: Option<i64>,
) {
    let Some(sink) = inner.sink.get() else { return };
    let (every_secs, cron) = match &job.schedule {
        Schedule::Every(every) => (Some(every.as_secs()), None),
        Schedule::Cron { expression, timezone } => {
            (None, Some((expression.clone(), timezone.clone())))
        }
    };
    let (job, name) = (job.id, job.name);
    sink.own_run(OwnRun { job, name, every_secs, cron, run, succeeded, at, duration_ms });
}

fn judge(ending: Ending, job: &Job, was_told_to_stop: bool) -> (RunStatus, u64, Option<String>) {
    match ending {
        Ending::Done(Ok(Ok(report))) => (RunStatus::Succeeded, report.items_handled, None),
        Ending::Done(Ok(Err(error))) => {
            let status = if was_told_to_stop { RunStatus::Cancelled } else { RunStatus::Failed };
            (status, 0, Some(error_text(error.error())))
        }
        Ending::Done(Err(error)) if error.is_panic() => {
            (RunStatus::Failed, 0, Some(panic_text(error)))
        }
        Ending::Done(Err(_)) | Ending::Killed => {
            (RunStatus::Cancelled, 0, Some("the server stopped before it was done".to_owned()))
        }
        Ending::Cancelled(items) => {
            (RunStatus::Cancelled, items, Some("an admin cancelled it".to_owned()))
        }
        Ending::TimedOut => {
            let error = format!("did not end within its {:?} and was cancelled", job.timeout);
            (RunStatus::Failed, 0, Some(error))
        }
        Ending::LeaseLost => {
            let error = "its lease could not be renewed, so it was cancelled".to_owned();
            (RunStatus::Abandoned, 0, Some(error))
        }
    }
}

/// For admins, who may read the inside.
fn error_text(error: &Error) -> String {
    storable(
        &error.cause().map_or_else(
            || error.detail().to_owned(),
            |cause| format!("{}: {cause}", error.code()),
        ),
    )
}

fn panic_text(error: JoinError) -> String {
    let payload = error.into_panic();
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    storable(&text.map_or_else(|| "panicked".to_owned(), |text| format!("panicked: {text}")))
}

/// Of bounded length, without secrets (an error may repeat what it was given) and without what
/// PostgreSQL cannot keep.
fn storable(text: &str) -> String {
    text::cut(&loom_redact::shared().redact(text), ERROR_LEN).replace('\0', "\u{fffd}")
}

/// Tries until the lease would have ended twice: as long as nobody has taken the run over, it counts.
async fn record(
    inner: &Inner,
    job: &Job,
    outcome: &RunOutcome,
    lease_ends: Instant,
    now: DateTime<Utc>,
) {
    count(job.id, outcome.status);
    metrics::histogram!("loom_job_duration_seconds", "job" => job.id)
        .record(outcome.duration.as_secs_f64());
    let (run_id, status) = (outcome.run_id, outcome.status.as_str());
    match &outcome.error {
        None => {
            tracing::debug!(job = job.id, %run_id, items = outcome.items_handled, "a job has run");
        }
        Some(error) => {
            tracing::warn!(job = job.id, %run_id, status, error, "a job did not do well");
        }
    }
    let (mut pause, mut tell) = (FIRST_PAUSE, true);
    loop {
        let error = match finish(inner, job, outcome, now, tell).await {
            Ok(true) => return,
            Ok(false) => {
                tracing::warn!(
                    job = job.id, %run_id,
                    "the end of a run was not recorded: it was before, or another replica has taken it over"
                );
                return;
            }
            Err(error) => error,
        };
        if Instant::now() + pause > lease_ends + inner.lease {
            tracing::error!(job = job.id, %run_id, ?error, "the end of a run was not recorded");
            return;
        }
        tracing::warn!(job = job.id, %run_id, ?error, "the end of a run is not recorded yet");
        // If it is the telling that fails, the next failure tells.
        tell = false;
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Records the run, and in the same transaction what is to be told. False: the run is no longer ours.
async fn finish(
    inner: &Inner,
    job: &Job,
    outcome: &RunOutcome,
    now: DateTime<Utc>,
    tell: bool,
) -> Result<bool> {
    let mut db = loom_db::begin(&inner.pool).await?;
    let Some(finished) = store::finish(&mut db, job.id, outcome, now, tell).await? else {
        return Ok(false);
    };
    let turn = Turn {
        job: job.id,
        name: job.name,
        failures: finished.consecutive_failures,
        error: outcome.error.as_deref(),
        alerted_before: finished.alerted_before,
        alerted_at: finished.alerted_at,
    };
    let told = turn.tell(&inner.notify, &mut db).await?;
    if outcome.retry_at.is_some() {
        store::say_plan(&mut db).await?;
    }
    db.commit().await?;
    if told {
        inner.notify.wake();
    }
    Ok(true)
}

/// From nothing: what a counter begins with is no increase to whoever watches it.
pub(crate) fn count_from_zero(job: &'static str) {
    for status in
        [RunStatus::Succeeded, RunStatus::Failed, RunStatus::Cancelled, RunStatus::Abandoned]
    {
        metrics::counter!("loom_job_runs_total", "job" => job, "status" => status.as_str())
            .increment(0);
    }
}

pub(crate) fn count(job: &'static str, status: RunStatus) {
    metrics::counter!("loom_job_runs_total", "job" => job, "status" => status.as_str())
        .increment(1);
}
