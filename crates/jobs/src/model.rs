//! What a job is, what its body is given and gives back, and what a run came to.

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, NaiveDate, Utc};
use loom_core::{Clock, Error, Result, id::RunId, port::BoxFuture};
use loom_db::partitions::Daily;
use serde::Serialize;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{
    lease::Lease,
    schedule::{CatchUp, Schedule},
};

const HOUR: Duration = Duration::from_secs(3600);

/// The body of a job.
pub type RunFn =
    Arc<dyn Fn(JobContext) -> BoxFuture<'static, Result<JobReport, JobError>> + Send + Sync>;

/// Something to be done again and again.
#[derive(Clone)]
pub struct Job {
    /// Unique and never renamed: the history hangs on it. As `session-cleanup`.
    pub id: &'static str,
    pub name: &'static str,
    pub description: &'static str,
    pub schedule: Schedule,
    /// Of slots that were missed.
    pub catch_up: CatchUp,
    /// A run that takes longer is cancelled and has failed.
    pub timeout: Duration,
    pub run: RunFn,
}

impl Job {
    /// One run makes up for all slots that were missed.
    pub fn new<F, R>(
        id: &'static str,
        name: &'static str,
        description: &'static str,
        schedule: impl Into<Schedule>,
        timeout: Duration,
        run: F,
    ) -> Self
    where
        F: Fn(JobContext) -> R + Send + Sync + 'static,
        R: Future<Output = Result<JobReport, JobError>> + Send + 'static,
    {
        let run: RunFn = Arc::new(move |context| Box::pin(run(context)));
        let (schedule, catch_up) = (schedule.into(), CatchUp::default());
        Self { id, name, description, schedule, catch_up, timeout, run }
    }

    /// Makes the partitions of these tables for the days to come, each hour.
    pub fn partitions(
        id: &'static str,
        name: &'static str,
        description: &'static str,
        pool: &PgPool,
        tables: &'static [Daily],
    ) -> Self {
        let pool = pool.clone();
        Self::new(id, name, description, HOUR, HOUR / 4, move |context| {
            let pool = pool.clone();
            async move {
                let mut made = 0;
                for table in tables {
                    made += table.make_ahead(&pool, context.clock.now()).await?;
                }
                Ok(made.into())
            }
        })
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("schedule", &self.schedule)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// What a run is given.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobContext {
    /// Cancelled on shutdown, at the timeout, by an admin, and when the lease is lost: stop soon. A
    /// run that does not is dropped at its next await.
    pub cancel: CancellationToken,
    pub clock: Clock,
    /// The instant that this run was due.
    pub slot: DateTime<Utc>,
    /// Each claim of a job has a higher one than all before it.
    pub term: i64,
    pub(crate) lease: Arc<Lease>,
}

impl JobContext {
    /// Call it right before an effect that leaves our database and that another run must not cross,
    /// as a call to Kubernetes or a provider. From a success on the run is its job's only one for at
    /// least the length of a lease (30 s by default), so that the effect needs a time limit below
    /// that. A replica that was suspended may sleep between this and the effect: whatever can compare
    /// numbers (a row, an object's annotation) had better take `term` with the effect too, and refuse
    /// one that is lower than what it has seen. In our database:
    /// `… WHERE EXISTS (SELECT FROM jobs WHERE id = $job AND term = $term)`.
    ///
    /// # Errors
    /// 409 `run_lost` when the lease has ended: give up at once, another run may be under way. 503
    /// when the database did not say.
    pub async fn fence(&self) -> Result<()> {
        self.lease.fence().await
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobReport {
    pub items_handled: u64,
}

impl From<u64> for JobReport {
    fn from(items_handled: u64) -> Self {
        Self { items_handled }
    }
}

/// Why a run failed.
#[derive(Clone, Debug)]
pub enum JobError {
    /// It may go well soon: the slot is tried again, three times in all.
    Retry(Error),
    /// It will not go well without a change.
    Fail(Error),
}

impl JobError {
    pub fn error(&self) -> &Error {
        match self {
            Self::Retry(error) | Self::Fail(error) => error,
        }
    }
}

impl From<Error> for JobError {
    /// An error that says when to come again (429, 503) passes, any other stays.
    fn from(error: Error) -> Self {
        if error.retry_after_secs().is_some() { Self::Retry(error) } else { Self::Fail(error) }
    }
}

impl From<sqlx::Error> for JobError {
    fn from(error: sqlx::Error) -> Self {
        Error::from(error).into()
    }
}

/// Why a run was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Trigger {
    Schedule,
    Manual,
    Retry,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum RunStatus {
    Running,
    Succeeded,
    Failed,
    /// Told to stop before it was done.
    Cancelled,
    /// Its replica went away without a word.
    Abandoned,
}

impl RunStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Abandoned => "abandoned",
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutcome {
    pub run_id: RunId,
    pub status: RunStatus,
    pub duration: Duration,
    pub items_handled: u64,
    /// For admins: it may tell of our inside.
    pub error: Option<String>,
    /// When the next attempt is due.
    pub retry_at: Option<DateTime<Utc>>,
}

/// A run as the history has it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct RunRecord {
    pub id: RunId,
    pub trigger: Trigger,
    /// From 1; further ones have the trigger `retry` and the slot of the first.
    pub attempt: i32,
    /// Each run of a job has a higher one than all that began before it.
    pub term: i64,
    /// Slots before its own that nobody took, as while no server was up.
    pub missed_slots: i32,
    #[serde(skip)]
    #[schema(ignore)]
    pub(crate) previous_slot: Option<DateTime<Utc>>,
    /// Which server ran it.
    pub replica: String,
    pub status: RunStatus,
    /// The instant it was due; for a run by hand that at which somebody asked.
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub slot: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub started_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub finished_at: Option<DateTime<Utc>>,
    pub duration_ms: Option<i64>,
    pub items_handled: i64,
    /// At most 2000 bytes.
    pub error: Option<String>,
}

/// What the runs of a job that are in the history no longer came to, on one day.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct RunDay {
    /// On which they began, in UTC.
    pub day: NaiveDate,
    pub runs: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub cancelled: i64,
    pub abandoned: i64,
    /// Those that were a further attempt at their slot.
    pub retried: i64,
    pub items_handled: i64,
    pub total_duration_ms: i64,
    pub max_duration_ms: i64,
}

/// A job as admins see it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct JobView {
    pub id: &'static str,
    pub name: &'static str,
    pub description: &'static str,
    /// It is due at the multiples of this since 1970; null when it has a `schedule`.
    pub interval_secs: Option<u64>,
    /// A cron expression, in `timezone`.
    pub schedule: Option<String>,
    pub timezone: Option<String>,
    /// Off: it neither runs by the schedule nor by hand.
    pub enabled: bool,
    /// On any server.
    pub running: bool,
    /// The newest run, also one that is under way.
    pub last_run: Option<RunRecord>,
    /// By the schedule, or the next attempt. Absent when it is off. In the past when it is due and waits for the run before.
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub next_run_at: Option<DateTime<Utc>>,
    /// Runs that failed or were abandoned since the last that succeeded.
    pub consecutive_failures: i32,
}
