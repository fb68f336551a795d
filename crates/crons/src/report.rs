//! What is told of a run, by whichever way, and how it is handed to the writer.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use loom_core::{Error, Result, id::CheckInId};
use uuid::Uuid;

use crate::{
    Crons,
    model::{Monitor, Source},
};

/// Clocks differ by so much without anybody's fault.
const SKEW: TimeDelta = TimeDelta::minutes(5);
/// What is older is not taken: its partition may be gone.
const OLDEST: TimeDelta = TimeDelta::days(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunKey {
    /// The job gave an id.
    Given(Uuid),
    /// The newest run in progress, or one that is over at once. True: also one that was given an id.
    Newest(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Start,
    End { ok: bool },
    Log,
}

/// What was made of a report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applied {
    pub(crate) id: CheckInId,
}

/// What the writer did with a report so far.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    applied: Mutex<Option<Applied>>,
    /// The transaction that it was last written in; 0 when there was none. Whether that was committed is not
    /// always heard.
    transaction: AtomicU64,
}

impl Fate {
    pub(crate) fn apply(&self, applied: Applied) {
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = Some(applied);
    }

    fn applied(&self) -> Option<Applied> {
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write_in(&self, transaction: u64) {
        self.transaction.store(transaction, Ordering::Relaxed);
    }

    pub(crate) fn transaction(&self) -> u64 {
        self.transaction.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
pub(crate) struct Report {
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) environment: String,
    pub(crate) key: RunKey,
    pub(crate) kind: Kind,
    /// When it happened, in whole milliseconds.
    pub(crate) at: DateTime<Utc>,
    pub(crate) received_at: DateTime<Utc>,
    pub(crate) duration_ms: Option<i64>,
    pub(crate) exit_code: Option<i16>,
    pub(crate) output: Option<String>,
    pub(crate) release: Option<String>,
    pub(crate) trace_id: Option<String>,
    pub(crate) source: Source,
    /// Of the row, if it becomes one of its own.
    pub(crate) new_id: CheckInId,
    /// Filled in by the writer.
    pub(crate) fate: Arc<Fate>,
}

impl Report {
    pub(crate) fn new(
        monitor: Arc<Monitor>,
        environment: String,
        (key, kind): (RunKey, Kind),
        at: DateTime<Utc>,
        duration_ms: Option<i64>,
        received_at: DateTime<Utc>,
        source: Source,
    ) -> Self {
        let at = at.min(received_at).trunc_subsecs(3);
        let mut report = Self {
            monitor,
            environment,
            key,
            kind,
            at,
            received_at,
            duration_ms,
            exit_code: None,
            output: None,
            release: None,
            trace_id: None,
            source,
            new_id: CheckInId(Uuid::nil()),
            fate: Arc::default(),
        };
        report.new_id = CheckInId::new(report.began_at());
        report
    }

    /// When the run began, as far as this says it.
    pub(crate) fn began_at(&self) -> DateTime<Utc> {
        match (self.kind, self.duration_ms) {
            (Kind::End { .. }, Some(ms)) => self.at - TimeDelta::milliseconds(ms),
            _ => self.at,
        }
    }
}

/// A time that a job says of itself, if it can be true.
///
/// # Errors
/// Why it cannot.
pub(crate) fn believable(
    at: DateTime<Utc>,
    received_at: DateTime<Utc>,
) -> std::result::Result<DateTime<Utc>, &'static str> {
    if at > received_at + SKEW {
        return Err("is in the future by more than five minutes");
    }
    if at < received_at - OLDEST {
        return Err("is more than 30 days ago");
    }
    Ok(at.min(received_at))
}

impl Crons {
    /// Resolves when the report is committed.
    ///
    /// # Errors
    /// 404 when the monitor has gone meanwhile, 429 when too much waits.
    pub(crate) async fn submit(&self, report: Report) -> Result<Applied> {
        let fate = Arc::clone(&report.fate);
        self.writer()?.submit(report).await?;
        fate.applied().ok_or_else(|| Error::not_found("monitor"))
    }
}
