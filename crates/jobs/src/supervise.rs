//! One run from its claim to its record: the body in a task of its own, its timeout, its lease, and
//! what it came to.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use loom_core::{Error, id::RunId, text};
use tokio::{
    task::JoinError,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    model::{Job, JobContext, JobError, JobReport, RunOutcome, RunStatus},
    retry,
    scheduler::Inner,
    store,
};

/// How long a run belongs to its replica without a word from it. Far more than the clocks of
/// replicas differ.
pub(crate) const LEASE: Duration = Duration::from_secs(60);
const RENEW_EVERY: Duration = Duration::from_secs(20);
const RENEW_WITHIN: Duration = Duration::from_secs(5);
/// A body that was told to stop gets this long before it is dropped.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// A body that is dropped ends at its next await, and one that blocks its thread never.
const DROP_WITHIN: Duration = Duration::from_secs(1);
/// Tries to record a run before it is left to its lease.
const RECORD_PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];
/// Bytes of an error that the history keeps.
const ERROR_LEN: usize = 2000;

type Body = AbortOnDropHandle<Result<JobReport, JobError>>;

pub(crate) struct Running {
    pub(crate) id: RunId,
    pub(crate) slot: DateTime<Utc>,
    pub(crate) attempt: i32,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) lease_until: DateTime<Utc>,
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
    let cancel = inner.stop.child_token();
    let context = JobContext { cancel: cancel.clone(), clock: inner.clock.clone(), slot: run.slot };
    let body = Arc::clone(&job.run);
    // In a task of its own, where a panic ends the task and nothing else.
    let mut task: Body = AbortOnDropHandle::new(tokio::spawn(async move { body(context).await }));
    let mut ending = tokio::select! {
        biased;
        result = &mut task => Ending::Done(result),
        () = inner.kill.cancelled() => Ending::Killed,
        () = run.cancel.cancelled() => Ending::Cancelled(0),
        () = sleep(job.timeout) => Ending::TimedOut,
        () = keep_lease(inner, run) => Ending::LeaseLost,
    };
    let was_told_to_stop = cancel.is_cancelled();
    if !matches!(ending, Ending::Done(_)) {
        cancel.cancel();
        tokio::select! {
            stopped = timeout(STOP_WITHIN, &mut task) => {
                if let (Ending::Cancelled(items), Ok(Ok(Ok(report)))) = (&mut ending, stopped) {
                    *items = report.items_handled;
                }
            }
            () = inner.kill.cancelled() => {}
        }
        // A handle must not be polled again once it has given its result.
        if !task.is_finished() {
            task.abort();
            let _ = timeout(DROP_WITHIN, &mut task).await;
        }
    }
    let pause = match &ending {
        Ending::Done(Ok(Err(JobError::Retry(error)))) if !was_told_to_stop => {
            let asked = Duration::from_secs(error.retry_after_secs().unwrap_or_default());
            retry::pause(run.attempt, asked)
        }
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
    record(inner, job, &outcome, now).await;
    outcome
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

/// Resolves when the run is ours no longer, or may soon be: early enough for the body to stop
/// before another replica may take over.
async fn keep_lease(inner: &Inner, run: &Running) {
    let mut until = run.lease_until;
    let mut pause = RENEW_EVERY;
    loop {
        sleep(pause).await;
        let now = inner.clock.now();
        let renewed =
            timeout(RENEW_WITHIN, store::renew_lease(&inner.pool, run.id, now + LEASE)).await;
        match renewed {
            Ok(Ok(Some(cancel))) => {
                if cancel {
                    run.cancel.cancel();
                }
                until = now + LEASE;
                pause = RENEW_EVERY;
                continue;
            }
            Ok(Ok(None)) => return,
            Ok(Err(error)) => tracing::warn!(run_id = %run.id, ?error, "a lease was not renewed"),
            Err(_) => tracing::warn!(run_id = %run.id, "a lease was not renewed in time"),
        }
        pause = RENEW_WITHIN;
        if inner.clock.now() + pause + RENEW_WITHIN + STOP_WITHIN >= until {
            return;
        }
    }
}

async fn record(inner: &Inner, job: &Job, outcome: &RunOutcome, now: DateTime<Utc>) {
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
    let mut pauses = RECORD_PAUSES.into_iter();
    loop {
        let error = match store::finish(&inner.pool, outcome, now).await {
            Ok(true) => return,
            Ok(false) => {
                tracing::warn!(job = job.id, %run_id, "the run was given up by another replica");
                return;
            }
            Err(error) => error,
        };
        let Some(pause) = pauses.next() else {
            tracing::error!(job = job.id, %run_id, ?error, "the end of a run was not recorded");
            return;
        };
        sleep(pause).await;
    }
}

pub(crate) fn count(job: &'static str, status: RunStatus) {
    metrics::counter!("loom_job_runs_total", "job" => job, "status" => status.as_str())
        .increment(1);
}
