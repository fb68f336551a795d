//! The handle: looks what is due, claims it, and hands each run to its supervisor.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use loom_core::{Clock, Error, Result, id::RunId};
use sqlx::PgPool;
use tokio::{sync::oneshot, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    cleanup,
    clockwork::Clockwork,
    model::{Job, RunOutcome, RunStatus},
    plan::Plan,
    schedule::Slots,
    store::{self, Abandoned, NewRun},
    supervise::{self, LEASE},
};

/// Runs that were killed get this long to be recorded.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Runs jobs when they are due, each slot once over all replicas. Cheap to clone.
#[derive(Clone)]
pub struct JobScheduler(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) pool: PgPool,
    pub(crate) clock: Clock,
    replica: String,
    pub(crate) jobs: BTreeMap<&'static str, Known>,
    plan: Mutex<Plan>,
    looking: tokio::sync::Mutex<()>,
    runs: TaskTracker,
    /// The runs under way here, each with what tells it to stop.
    running: Mutex<HashMap<RunId, CancellationToken>>,
    /// Tells all runs to stop, and lets none begin.
    pub(crate) stop: CancellationToken,
    /// Ends the runs that did not stop.
    pub(crate) kill: CancellationToken,
    clockwork: Mutex<Option<Clockwork>>,
}

/// A job with its schedule checked.
#[derive(Clone)]
pub(crate) struct Known {
    job: Job,
    pub(crate) slots: Slots,
}

impl Known {
    /// The slot to run next, `taken` being the newest that was taken.
    pub(crate) fn next(&self, taken: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
        self.slots.next(taken, now, self.job.catch_up)
    }

    /// What counts as taken when the job is new.
    pub(crate) fn present(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.slots.floor(now).unwrap_or(now)
    }
}

impl Deref for Known {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

/// Why a run begins.
#[derive(Clone, Copy)]
enum Start {
    Slot(DateTime<Utc>),
    Manual(DateTime<Utc>),
    Retry,
}

/// A run that has begun.
#[derive(Debug)]
pub struct Run {
    pub id: RunId,
    pub job: &'static str,
    outcome: oneshot::Receiver<RunOutcome>,
}

impl Run {
    /// Resolves when the run has ended and that is recorded. Not waiting for it changes nothing.
    pub async fn outcome(self) -> Result<RunOutcome> {
        self.outcome.await.map_err(|_| Error::unavailable("the server is going down"))
    }
}

impl JobScheduler {
    /// Without the clock: nothing runs but what [`JobScheduler::run_now`] or
    /// [`JobScheduler::tick`] start. Adds the scheduler's own job, `job-history-cleanup`.
    ///
    /// # Errors
    /// Two jobs with one id, or a schedule that cannot be right.
    pub fn new(
        pool: PgPool,
        clock: Clock,
        replica: impl Into<String>,
        jobs: Vec<Job>,
    ) -> Result<Self> {
        let mut by_id = BTreeMap::new();
        for job in jobs.into_iter().chain([cleanup::job(pool.clone())]) {
            let slots = Slots::of(job.id, &job.schedule)?;
            if let Some(other) = by_id.insert(job.id, Known { job, slots }) {
                return Err(Error::internal(format!("there are two jobs {}", other.id)));
            }
        }
        Ok(Self(Arc::new(Inner {
            pool,
            clock,
            replica: replica.into(),
            jobs: by_id,
            plan: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            runs: TaskTracker::new(),
            running: Mutex::default(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            clockwork: Mutex::default(),
        })))
    }

    /// With the clock, which looks each second from now on. A database that is out of reach is
    /// logged and tried again.
    pub async fn start(
        pool: PgPool,
        clock: Clock,
        replica: impl Into<String>,
        jobs: Vec<Job>,
    ) -> Result<Self> {
        let scheduler = Self::new(pool, clock, replica, jobs)?;
        scheduler.start_clock().await?;
        Ok(scheduler)
    }

    /// Starts the clock of a scheduler that was made without.
    pub async fn start_clock(&self) -> Result<()> {
        self.tick().await;
        let clockwork = Clockwork::start(&self.0).await?;
        *lock(&self.0.clockwork) = Some(clockwork);
        Ok(())
    }

    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.0.jobs.values().map(|known| &known.job)
    }

    /// Looks what is due and begins it. The clock calls this each second; asks the database only
    /// when something is due, and once a minute. Gives the runs that it began.
    pub async fn tick(&self) -> Vec<Run> {
        let inner = &self.0;
        let now = inner.clock.now();
        if inner.stop.is_cancelled() || !inner.plan().wants_a_look(now) {
            return Vec::new();
        }
        // The look before may still be waiting for the database.
        let Ok(_looking) = inner.looking.try_lock() else { return Vec::new() };
        // Asked again under the lock, for which a shutdown waits.
        if inner.stop.is_cancelled() {
            return Vec::new();
        }
        let mut begun = Vec::new();
        if let Err(error) = inner.look(now, &mut begun).await {
            tracing::warn!(?error, "could not look what is due; trying again");
            inner.plan().failed(now);
        }
        begun
    }

    /// Begins a run outside the schedule, also of a job that is switched off.
    ///
    /// # Errors
    /// 404 for an unknown job, 409 `job_running` when a run of it is under way on any replica.
    pub async fn request(&self, job_id: &str) -> Result<Run> {
        let job = self.0.jobs.get(job_id).cloned().ok_or_else(|| Error::not_found("job"))?;
        let inner = Arc::clone(&self.0);
        // Of its own: a caller who goes away must not leave a claimed run that nobody runs.
        let claim = self.0.runs.spawn(async move { inner.begin_manual(&job).await });
        claim.await.map_err(Error::internal)?
    }

    /// Runs a job now and waits until it has ended.
    ///
    /// # Errors
    /// As [`JobScheduler::request`]. A run that failed is no error here: see its outcome.
    pub async fn run_now(&self, job_id: &str) -> Result<RunOutcome> {
        self.request(job_id).await?.outcome().await
    }

    /// Begins nothing more, tells all runs to stop, and waits for them. What has not ended within
    /// `grace` is dropped and recorded as cancelled.
    pub async fn shutdown(&self, grace: Duration) {
        let inner = &self.0;
        inner.stop.cancel();
        let clockwork = lock(&inner.clockwork).take();
        if let Some(clockwork) = clockwork {
            clockwork.stop().await;
        }
        inner.runs.close();
        let ended = async {
            drop(inner.looking.lock().await);
            inner.runs.wait().await;
        };
        if timeout(grace, ended).await.is_err() {
            inner.kill.cancel();
            if timeout(LAST_WRITES, inner.runs.wait()).await.is_err() {
                tracing::error!(runs = inner.runs.len(), "runs of jobs could not be recorded");
            }
        }
    }
}

impl Inner {
    pub(crate) fn plan(&self) -> MutexGuard<'_, Plan> {
        lock(&self.plan)
    }

    /// Tells a run to stop, if it is one of ours.
    pub(crate) fn cancel(&self, run: RunId) {
        if let Some(cancel) = lock(&self.running).get(&run) {
            cancel.cancel();
        }
    }

    /// Passes on what was asked of our runs at another replica.
    async fn look_for_cancel_requests(&self) -> Result<()> {
        let running: Vec<RunId> = lock(&self.running).keys().copied().collect();
        if !running.is_empty() {
            for run in store::admin::cancel_requests(&self.pool, &running).await? {
                self.cancel(run);
            }
        }
        Ok(())
    }

    /// When the clock last struck; None while there is none.
    pub(crate) fn last_strike(&self) -> Option<Instant> {
        lock(&self.clockwork).as_ref().map(Clockwork::last_strike)
    }

    async fn look(self: &Arc<Self>, now: DateTime<Utc>, begun: &mut Vec<Run>) -> Result<()> {
        self.abandon(now).await?;
        self.look_for_cancel_requests().await?;
        if self.plan().is_stale(now) {
            self.read_plan(now).await?;
        }
        let due = self.plan().due(now);
        for job in due.into_iter().filter_map(|id| self.jobs.get(id)) {
            let Some(slot) = self.plan().slot(job, now) else { continue };
            let Some(run) = self.begin(job, Start::Slot(slot)).await? else {
                self.plan().postpone(job, now);
                continue;
            };
            self.plan().took(job, slot, now);
            begun.push(run);
        }
        let due = self.plan().take_due_retries(now);
        for job in due.into_iter().filter_map(|id| self.jobs.get(id)) {
            begun.extend(self.begin(job, Start::Retry).await?);
        }
        Ok(())
    }

    async fn read_plan(&self, now: DateTime<Utc>) -> Result<()> {
        let ids: Vec<String> = self.jobs.keys().map(|&id| id.to_owned()).collect();
        if !self.plan().was_read() {
            let slots: Vec<_> = self.jobs.values().map(|job| job.present(now)).collect();
            store::register(&self.pool, &ids, &slots).await?;
        }
        let rows = store::jobs(&self.pool, &ids).await?;
        self.plan().read(&rows, self.jobs.values(), now);
        Ok(())
    }

    /// From here on the run is ours, so that no fault may keep it from being run.
    async fn note_missed(&self, job: &Known, run: &NewRun<'_>, before: DateTime<Utc>) {
        let missed = job.slots.between(before, run.slot);
        if missed > 0
            && let Err(error) = store::note_missed(&self.pool, run.id, missed).await
        {
            tracing::warn!(job = job.id, missed, ?error, "missed slots were not recorded");
        }
    }

    pub(crate) async fn abandon(&self, now: DateTime<Utc>) -> Result<()> {
        for Abandoned { id, again } in store::abandon(&self.pool, now).await? {
            tracing::warn!(job = id, again, "a run was abandoned: its replica went away");
            if let Some(job) = self.jobs.get(id.as_str()) {
                supervise::count(job.id, RunStatus::Abandoned);
                if again {
                    self.plan().retry(job.id, now);
                }
            }
            self.plan().ended(&id, now);
        }
        Ok(())
    }

    async fn begin_manual(self: &Arc<Self>, job: &Known) -> Result<Run> {
        if self.stop.is_cancelled() {
            return Err(Error::unavailable("the server is going down"));
        }
        let now = self.clock.now();
        store::register(&self.pool, &[job.id.to_owned()], &[job.present(now)]).await?;
        self.abandon(now).await?;
        self.begin(job, Start::Manual(now)).await?.ok_or_else(|| {
            Error::conflict(
                "job_running",
                "a run of this job is under way; wait until it has ended",
            )
        })
    }

    /// None: somebody else has the slot, or a run of this job is under way.
    async fn begin(self: &Arc<Self>, job: &Known, start: Start) -> Result<Option<Run>> {
        let now = self.clock.now();
        let slot = match start {
            Start::Slot(slot) | Start::Manual(slot) => slot,
            Start::Retry => now,
        };
        let new = NewRun {
            id: RunId::new(now),
            job: job.id,
            slot,
            replica: &self.replica,
            now,
            lease_until: now + LEASE,
        };
        let claimed = match start {
            Start::Slot(_) => {
                let before = store::claim_slot(&self.pool, &new).await?;
                if let Some(before) = before {
                    self.note_missed(job, &new, before).await;
                }
                before.map(|_| (slot, 1))
            }
            Start::Manual(_) => store::insert_run(&self.pool, &new).await?.then_some((slot, 1)),
            Start::Retry => store::claim_retry(&self.pool, &new).await?,
        };
        let Some((slot, attempt)) = claimed else { return Ok(None) };
        let cancel = CancellationToken::new();
        lock(&self.running).insert(new.id, cancel.clone());
        let run = supervise::Running {
            id: new.id,
            slot,
            attempt,
            started_at: now,
            lease_until: new.lease_until,
            cancel,
        };
        let (done, outcome) = oneshot::channel();
        let (inner, job) = (Arc::clone(self), job.clone());
        let id = job.id;
        self.runs.spawn(async move {
            let outcome = supervise::run(&inner, &job, &run).await;
            lock(&inner.running).remove(&run.id);
            if let Some(at) = outcome.retry_at {
                inner.plan().retry(job.id, at);
            }
            inner.plan().ended(job.id, inner.clock.now());
            // Mostly nobody waits.
            let _ = done.send(outcome);
        });
        Ok(Some(Run { id: new.id, job: id, outcome }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
