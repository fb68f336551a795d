//! The handle: looks what is due, claims it, and hands each run to its supervisor.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use loom_core::{Clock, Error, Result, id::RunId, port::CheckInSink, sse::Seats};
use loom_db::{Announcer, Hub};
use loom_notify::Notify;
use sqlx::PgPool;
use tokio::{sync::oneshot, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    alert::Turn,
    cleanup,
    clockwork::Clockwork,
    config::Config,
    lease::Lease,
    model::{Job, RunOutcome, RunRecord, RunStatus},
    plan::Plan,
    schedule::{CatchUp, Slots},
    store::{self, Abandoned, NewRun},
    stream, supervise,
};

/// Runs that were killed get this long to be recorded.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Runs jobs when they are due, each slot once over all replicas. Cheap to clone.
#[derive(Clone)]
pub struct JobScheduler(pub(crate) Arc<Inner>);

/// What a scheduler works with.
#[derive(Clone)]
pub struct Deps {
    pub pool: PgPool,
    pub clock: Clock,
    /// Listens on [`CHANNEL`](crate::CHANNEL) and [`RUNS_CHANNEL`](crate::RUNS_CHANNEL).
    pub hub: Hub,
    pub notify: Notify,
    pub config: Config,
    /// Which of several servers this is, in the history.
    pub replica: String,
}

pub(crate) struct Inner {
    pub(crate) pool: PgPool,
    pub(crate) clock: Clock,
    pub(crate) hub: Hub,
    pub(crate) notify: Notify,
    pub(crate) lease: Duration,
    replica: String,
    pub(crate) listening: AtomicBool,
    /// The hub has listened at least once.
    pub(crate) heard: AtomicBool,
    /// All our jobs have a row.
    registered: AtomicBool,
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
    /// Whoever wants to know of each run.
    pub(crate) sink: OnceLock<Arc<dyn CheckInSink>>,
    /// Tells those who watch, on all servers.
    pub(crate) announcer: Announcer,
    pub(crate) seats: Seats,
    /// Ends the streams.
    pub(crate) streams: CancellationToken,
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

    /// Since when a slot is waiting to be taken: since the first that was not, whichever of them will be.
    pub(crate) fn due_since(
        &self,
        taken: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        (self.next(taken, now) <= now).then(|| self.slots.after(taken))
    }

    /// With the slots that nobody took between its own and the one before.
    pub(crate) fn counted(&self, run: RunRecord) -> RunRecord {
        let missed_slots = match run.previous_slot {
            Some(previous) => self.slots.between(previous, run.slot),
            None => run.missed_slots,
        };
        RunRecord { missed_slots, ..run }
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
    pub fn new(deps: Deps, jobs: Vec<Job>) -> Result<Self> {
        let Deps { pool, clock, hub, notify, config, replica } = deps;
        let mut by_id = BTreeMap::new();
        for job in jobs.into_iter().chain([cleanup::job(pool.clone())]) {
            let slots = Slots::of(job.id, &job.schedule)?;
            if let Some(other) = by_id.insert(job.id, Known { job, slots }) {
                return Err(Error::internal(format!("there are two jobs {}", other.id)));
            }
        }
        let announcer = Announcer::new(pool.clone(), stream::RUNS_CHANNEL);
        Ok(Self(Arc::new(Inner {
            pool,
            clock,
            hub,
            notify,
            lease: config.lease,
            replica,
            listening: AtomicBool::default(),
            heard: AtomicBool::default(),
            registered: AtomicBool::default(),
            jobs: by_id,
            plan: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            runs: TaskTracker::new(),
            running: Mutex::default(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            clockwork: Mutex::default(),
            sink: OnceLock::new(),
            announcer,
            seats: Seats::new(stream::PLACES),
            streams: CancellationToken::new(),
        })))
    }

    /// Begins to tell those who watch of runs, on all servers.
    pub fn announce(&self) {
        self.0.announcer.start();
    }

    pub fn end_streams(&self) {
        self.0.streams.cancel();
    }

    /// From now on each run is told of when it begins and when it has ended. The first one stays.
    pub fn report_to(&self, sink: Arc<dyn CheckInSink>) {
        let _ = self.0.sink.set(sink);
    }

    /// Starts the clock, which looks each second from now on. A database that is out of reach is
    /// logged and tried again.
    pub async fn start_clock(&self) -> Result<()> {
        for job in self.jobs() {
            supervise::count_from_zero(job.id);
        }
        self.tick().await;
        let clockwork = Clockwork::start(&self.0).await?;
        *lock(&self.0.clockwork) = Some(clockwork);
        Ok(())
    }

    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.0.jobs.values().map(|known| &known.job)
    }

    /// Looks what is due and begins it. The clock calls this each second; asks the database only
    /// when something is due or was said, and once a minute. Gives the runs that it began.
    pub async fn tick(&self) -> Vec<Run> {
        let inner = &self.0;
        inner.listen();
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
            // It may have taken long to fail.
            let now = inner.clock.now();
            let mut plan = inner.plan();
            plan.failed(now);
            plan.be_patient(now + inner.lease / 2);
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
        inner.announcer.stop().await;
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

    /// When the clock last struck; None while there is none.
    pub(crate) fn last_strike(&self) -> Option<Instant> {
        lock(&self.clockwork).as_ref().map(Clockwork::last_strike)
    }

    /// Looks without waiting for the next strike of the clock. Without a clock whoever has the
    /// scheduler says when it looks.
    pub(crate) fn look_soon(self: &Arc<Self>) {
        if self.last_strike().is_some() {
            let scheduler = JobScheduler(Arc::clone(self));
            tokio::spawn(async move { scheduler.tick().await });
        }
    }

    async fn look(self: &Arc<Self>, now: DateTime<Utc>, begun: &mut Vec<Run>) -> Result<()> {
        if self.plan().is_stale(now) && self.read_plan(now).await? {
            self.abandon(now).await?;
        }
        let due = self.plan().due(now);
        for job in due.into_iter().filter_map(|id| self.jobs.get(id)) {
            let Some(slot) = self.plan().slot(job, now) else { continue };
            let Some(run) = self.begin(job, Start::Slot(slot)).await? else {
                let mut plan = self.plan();
                plan.postpone(job, now);
                // Whoever runs it may go away: no lease of today ends later than one from now.
                plan.watch(now + self.lease);
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

    /// True: the lease of a run has ended.
    async fn read_plan(&self, now: DateTime<Utc>) -> Result<bool> {
        let ids: Vec<String> = self.jobs.keys().map(|&id| id.to_owned()).collect();
        if !self.registered.load(Ordering::SeqCst) {
            let slots: Vec<_> = self.jobs.values().map(|job| job.present(now)).collect();
            store::register(&self.pool, &ids, &slots).await?;
            self.registered.store(true, Ordering::SeqCst);
        }
        let expired = self.plan().expired();
        let rows = store::jobs(&self.pool, &ids).await?;
        let mut plan = self.plan();
        plan.read(&rows, self.jobs.values(), now, expired);
        let mut ended = false;
        for row in &rows {
            let (Some(run), Some(left)) = (row.running, row.lease_left) else { continue };
            let ours = lock(&self.running).contains_key(&run);
            if ours && row.cancel_requested {
                self.cancel(run);
            }
            match Duration::try_from_secs_f64(left) {
                Ok(left) if !left.is_zero() => {
                    if !ours {
                        plan.watch(now + left);
                    }
                }
                _ => ended = true,
            }
        }
        Ok(ended)
    }

    /// Ends the runs whose lease has ended, on whichever replica they were.
    pub(crate) async fn abandon(&self, now: DateTime<Utc>) -> Result<()> {
        let cut_off = self.heard.load(Ordering::SeqCst) && !self.hub.is_connected();
        // It may have taken long to get here.
        if !self.plan().may_abandon(self.clock.now(), cut_off, self.lease / 2) {
            return Ok(());
        }
        let abandoned = match self.abandon_once(now, true).await {
            // If it is the telling that fails, the next failure tells.
            Err(error) => {
                tracing::warn!(?error, "abandoned runs were not recorded; trying without an alert");
                self.abandon_once(now, false).await?
            }
            Ok(abandoned) => abandoned,
        };
        for Abandoned { id, again, error, .. } in abandoned {
            tracing::warn!(job = id, again, error, "a run was abandoned");
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

    async fn abandon_once(&self, now: DateTime<Utc>, tell: bool) -> Result<Vec<Abandoned>> {
        let mut db = loom_db::begin(&self.pool).await?;
        let abandoned = store::abandon(&mut db, now, tell).await?;
        let mut told = false;
        for one in &abandoned {
            let turn = Turn {
                job: &one.id,
                name: self.jobs.get(one.id.as_str()).map_or("of another version", |job| job.name),
                failures: one.consecutive_failures,
                error: Some(&one.error),
                alerted_before: one.alerted_before,
                alerted_at: one.alerted_at,
            };
            told |= turn.tell(&self.notify, &mut db).await?;
        }
        db.commit().await?;
        if told {
            self.notify.wake();
        }
        Ok(abandoned)
    }

    async fn begin_manual(self: &Arc<Self>, job: &Known) -> Result<Run> {
        if self.stop.is_cancelled() {
            return Err(Error::unavailable("the server is going down"));
        }
        self.listen();
        let now = self.clock.now();
        store::register(&self.pool, &[job.id.to_owned()], &[job.present(now)]).await?;
        if let Some(run) = self.begin(job, Start::Manual(now)).await? {
            return Ok(run);
        }
        // Perhaps it is one of a replica that went away.
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
            // Is in the row of the job.
            Start::Retry => now,
        };
        let new = NewRun {
            id: RunId::new(now),
            job: job.id,
            slot,
            replica: &self.replica,
            now,
            lease: self.lease,
        };
        let asked = tokio::time::Instant::now();
        let claimed = match start {
            Start::Slot(_) => {
                let in_order = matches!(job.catch_up, CatchUp::All { .. });
                store::claim_slot(&self.pool, &new, in_order).await?
            }
            Start::Manual(_) => store::claim_manual(&self.pool, &new).await?,
            Start::Retry => store::claim_retry(&self.pool, &new).await?,
        };
        let Some(claimed) = claimed else { return Ok(None) };
        let cancel = CancellationToken::new();
        lock(&self.running).insert(new.id, cancel.clone());
        let run = supervise::Running {
            id: new.id,
            slot: claimed.slot,
            attempt: claimed.attempt,
            term: claimed.term,
            started_at: now,
            lease: Arc::new(Lease::new(self.pool.clone(), new.id, self.lease, asked)),
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
            let now = inner.clock.now();
            inner.plan().ended(job.id, now);
            if inner.plan().wants_a_look(now) {
                inner.look_soon();
            }
            // Mostly nobody waits.
            let _ = done.send(outcome);
        });
        Ok(Some(Run { id: new.id, job: id, outcome }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
