//! What was taken is processed: by any server, in batches, several at once. Whoever takes a batch has it for
//! as long as its lease; what attaches it takes it out of the queue in the same transaction, so that an
//! event is attached once, whoever else still works on it.

mod attach;
pub(crate) mod claim;
pub(crate) mod http;
mod prepare;
pub(crate) mod requeue;
mod waiting;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, stream};
use loom_core::id::ProjectId;
use loom_db::Signal;
use serde_json::json;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub(crate) use attach::{MAX_KEYS, MAX_VALUES, OTHER, Outcome};
pub(crate) use claim::Claimed;
pub(crate) use prepare::Processed;
pub(crate) use waiting::{Became, Waiting, Waits};

use attach::Failure;
use prepare::Prepared;

use crate::{Crashes, event::Event};

/// Said when something came into the queue.
pub(crate) const WORD: &str = "queue";
/// How a word begins that watchers are told.
pub(crate) const STREAM: &str = "stream ";
/// Events of one batch.
const BATCH: i64 = 256;
/// A batch that was not full is followed by a pause of so much for each of its events, up to the most: what
/// comes in a stream is counted together, what comes alone does not wait.
const PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Whoever was not told looks all the same.
const LOOK: Duration = Duration::from_secs(5);
/// What was taken by a server that is gone, and what failed, is looked for so often.
const OVERDUE: Duration = Duration::from_secs(2);
/// An event that could not be processed so often is put aside.
const MAX_ATTEMPTS: i32 = 5;
/// Events of a batch that are taken apart together.
const PARSED: usize = 8;
/// Events of a batch that wait for symbols at once.
const SYMBOLICATED: usize = 8;
/// New events of a batch that watchers are told of; of new and returned issues they always are.
const TOLD: usize = 32;
/// A batch whose issues were merged or deleted meanwhile.
const MOVED: usize = 5;

/// What wakes the workers of this server, and ends them.
pub(crate) struct Pipeline {
    bell: Notify,
    stop: CancellationToken,
    batches: Arc<Semaphore>,
    most: u32,
    running: tokio::sync::Mutex<JoinSet<()>>,
    pub waiting: Waiting,
}

impl Pipeline {
    pub(crate) fn new(workers: u32) -> Self {
        Self {
            bell: Notify::new(),
            stop: CancellationToken::new(),
            batches: Arc::new(Semaphore::new(workers as usize)),
            most: workers,
            running: tokio::sync::Mutex::default(),
            waiting: Waiting::default(),
        }
    }

    pub(crate) fn wake(&self) {
        self.bell.notify_one();
    }
}

/// What was taken from the queue, with its payload and what surrounded it.
type Stored = (Claimed, Vec<u8>, serde_json::Value);

fn parse_all(stored: Vec<Stored>) -> Vec<(Claimed, Result<Event, String>)> {
    let parse = |(claimed, payload, delivery): Stored| {
        let event = catch_unwind(AssertUnwindSafe(|| prepare::parse(&claimed, &payload, delivery)));
        (claimed, event.unwrap_or_else(|_| Err("reading it panicked".to_owned())))
    };
    stored.into_iter().map(parse).collect()
}

impl Crashes {
    pub(crate) fn start_pipeline(&self) {
        let (hearing, taking, mending) = (self.clone(), self.clone(), self.clone());
        let Ok(mut running) = self.pipeline.running.try_lock() else { return };
        // From nothing: what a counter begins with is no increase to whoever watches it.
        for counted in ["processed", "repeated", "parked", "folded"] {
            metrics::counter!(format!("loom_crash_events_{counted}_total")).increment(0);
        }
        let stop = self.pipeline.stop.clone();
        self.deps.hub.follow(crate::CHANNEL, stop, move |signal| hearing.hear(&signal));
        running.spawn(async move { taking.take_batches().await });
        running.spawn(async move { mending.take_overdue().await });
    }

    /// Finishes the batches that are being processed.
    pub(crate) async fn close_pipeline(&self) {
        self.pipeline.stop.cancel();
        let mut running = self.pipeline.running.lock().await;
        while running.join_next().await.is_some() {}
        // All of them back: no batch is under way.
        let _ = self.pipeline.batches.acquire_many(self.pipeline.most).await;
    }

    /// What other servers say.
    fn hear(&self, signal: &Signal) {
        match signal {
            Signal::Said(word) if **word == *WORD => self.pipeline.wake(),
            Signal::Said(word) => {
                if let Some(told) = word.strip_prefix(STREAM) {
                    self.pipeline.waiting.hear(told);
                }
            }
            Signal::ReadAgain => self.pipeline.wake(),
        }
    }

    async fn take_batches(&self) {
        while !self.pipeline.stop.is_cancelled() {
            let Ok(permit) = Arc::clone(&self.pipeline.batches).acquire_owned().await else {
                return;
            };
            let claimed = match claim::fresh(&self.deps.pool, BATCH).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    tracing::warn!(%error, "events cannot be taken from the queue; trying again");
                    Vec::new()
                }
            };
            if claimed.is_empty() {
                drop(permit);
                tokio::select! {
                    () = self.pipeline.stop.cancelled() => return,
                    () = self.pipeline.bell.notified() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
                continue;
            }
            let is_full = i64::try_from(claimed.len()).is_ok_and(|count| count >= BATCH);
            let pause = PAUSE * u32::try_from(claimed.len()).unwrap_or(u32::MAX);
            let crashes = self.clone();
            tokio::spawn(async move {
                crashes.process(claimed).await;
                drop(permit);
            });
            if !is_full {
                tokio::select! {
                    () = self.pipeline.stop.cancelled() => return,
                    () = tokio::time::sleep(pause.min(LONGEST_PAUSE)) => {}
                }
            }
        }
    }

    /// One by one: one that ends whoever looks at it takes no other along.
    async fn take_overdue(&self) {
        while !self.pipeline.stop.is_cancelled() {
            match claim::overdue(&self.deps.pool).await {
                Ok(Some(claimed)) if claimed.attempts > MAX_ATTEMPTS => {
                    self.park(&claimed, "processing did not come to an end").await;
                }
                Ok(Some(claimed)) => self.process(vec![claimed]).await,
                Ok(None) | Err(_) => {
                    tokio::select! {
                        () = self.pipeline.stop.cancelled() => return,
                        () = tokio::time::sleep(OVERDUE) => {}
                    }
                }
            }
        }
    }

    /// Processes what was taken, and leaves nothing of it undecided.
    async fn process(&self, claimed: Vec<Claimed>) {
        // Most often for a file that came late, of which this server may not have heard yet.
        let again = claimed.iter().filter(|one| one.again).map(|one| one.project);
        for project in again.collect::<BTreeSet<_>>() {
            self.symbolicator.uploaded(project);
        }
        let Ok(prepared) = self.prepare_all(claimed).await else { return };
        let mut batches = vec![prepared];
        while let Some(mut batch) = batches.pop() {
            if batch.is_empty() {
                continue;
            }
            match self.attach(&batch).await {
                Ok(outcomes) => self.tell_outcomes(&outcomes),
                Err(Failure::Database(error)) if is_of_data(&error) => {
                    if batch.len() == 1 {
                        if let Some(event) = batch.first() {
                            self.fail(&event.claimed, &error.to_string()).await;
                        }
                        continue;
                    }
                    // One of them is at fault: the halves tell which.
                    let tail = batch.split_off(batch.len() / 2);
                    batches.push(tail);
                    batches.push(batch);
                }
                Err(failure) => {
                    tracing::warn!(
                        ?failure,
                        events = batch.len(),
                        "events cannot be attached just now"
                    );
                    let ids: Vec<_> = batch.iter().map(|event| event.claimed.queue_id).collect();
                    self.give_back(&ids).await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    async fn attach(&self, batch: &[Prepared]) -> Result<Vec<Outcome>, Failure> {
        let mut tries = 0;
        loop {
            match attach::attach(self, batch).await {
                Err(Failure::Moved) if tries < MOVED => tries += 1,
                result => return result,
            }
        }
    }

    /// Everything but what could not be processed, which is dealt with.
    async fn prepare_all(&self, claimed: Vec<Claimed>) -> Result<Vec<Prepared>, ()> {
        let loaded = match claim::load(&self.deps.pool, &claimed).await {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::warn!(%error, "events cannot be read just now");
                let ids: Vec<_> = claimed.iter().map(|claimed| claimed.queue_id).collect();
                self.give_back(&ids).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
                return Err(());
            }
        };
        let mut gone = Vec::new();
        let mut stored = Vec::new();
        for (claimed, loaded) in claimed.into_iter().zip(loaded) {
            match loaded {
                Some((payload, delivery)) => stored.push((claimed, payload, delivery)),
                None => gone.push(claimed.queue_id),
            }
        }
        // Few at a time: an event that is taken apart may be a hundred times as large as what was sent.
        let mut pieces = Vec::new();
        while !stored.is_empty() {
            let rest = stored.split_off(stored.len().min(PARSED));
            pieces.push(std::mem::replace(&mut stored, rest));
        }
        let prepared = stream::iter(pieces)
            .then(|piece| async move {
                let parsed = tokio::task::spawn_blocking(move || parse_all(piece));
                stream::iter(parsed.await.unwrap_or_default())
            })
            .flatten()
            .map(|(claimed, event)| self.prepare_one(claimed, event))
            .buffered(SYMBOLICATED);
        let mut prepared = std::pin::pin!(prepared);
        let mut done = Vec::new();
        while let Some(result) = prepared.next().await {
            match result {
                Ok(Some(event)) => done.push(event),
                Ok(None) => {}
                Err((claimed, Some(reason))) => self.fail(&claimed, &reason).await,
                Err((claimed, None)) => gone.push(claimed.queue_id),
            }
        }
        if !gone.is_empty() {
            // Its project, or its day, is no more.
            self.forget(&gone).await;
        }
        Ok(done)
    }

    async fn prepare_one(
        &self,
        claimed: Claimed,
        event: Result<Event, String>,
    ) -> Result<Option<Prepared>, (Claimed, Option<String>)> {
        let event = match event {
            Ok(event) => event,
            Err(reason) => return Err((claimed, Some(reason))),
        };
        let settings = match self.deps.directory.settings(claimed.project).await {
            Ok(Some(settings)) => settings,
            Ok(None) => return Err((claimed, None)),
            Err(_) => {
                self.give_back(&[claimed.queue_id]).await;
                return Ok(None);
            }
        };
        let work = prepare::prepare(self, &settings, claimed.clone(), event);
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(Ok(prepared)) => Ok(Some(prepared)),
            Ok(Err(reason)) => Err((claimed, Some(reason))),
            Err(_) => Err((claimed, Some("processing it panicked".to_owned()))),
        }
    }

    async fn fail(&self, claimed: &Claimed, reason: &str) {
        if claimed.attempts >= MAX_ATTEMPTS {
            self.park(claimed, reason).await;
            return;
        }
        if let Err(error) = claim::postpone(&self.deps.pool, claimed).await {
            tracing::debug!(%error, "an event that failed waits for the end of its lease");
        }
    }

    async fn park(&self, claimed: &Claimed, reason: &str) {
        tracing::warn!(event = %claimed.event, project = %claimed.project, reason, "an event cannot be processed");
        metrics::counter!("loom_crash_events_parked_total").increment(1);
        let now = self.deps.clock.now();
        if let Err(error) = claim::park(&self.deps.pool, claimed.queue_id, reason, now).await {
            tracing::debug!(%error, "an event is put aside later");
        }
    }

    async fn give_back(&self, ids: &[i64]) {
        // Else the lease ends.
        if let Err(error) = claim::give_back(&self.deps.pool, ids).await {
            tracing::debug!(%error, "events are given back by the end of their lease");
        }
        self.pipeline.wake();
    }

    async fn forget(&self, ids: &[i64]) {
        let done = async {
            let mut db = self.deps.pool.acquire().await?;
            claim::finish(&mut db, ids).await
        };
        if let Err(error) = done.await {
            tracing::debug!(%error, "events that are gone stay in the queue for a while");
        }
    }

    /// After the commit.
    fn tell_outcomes(&self, outcomes: &[Outcome]) {
        metrics::counter!("loom_crash_events_processed_total")
            .increment(u64::try_from(outcomes.len()).unwrap_or_default());
        let mut told = 0;
        for outcome in outcomes {
            self.pipeline.waiting.resolve(outcome);
            if outcome.again {
                continue;
            }
            if outcome.is_new_issue {
                self.say("issue.new", outcome);
            }
            if outcome.is_regression {
                self.say("issue.regressed", outcome);
            }
            if told < TOLD {
                told += 1;
                self.say("crash.new", outcome);
            }
        }
        if outcomes.iter().any(|outcome| outcome.is_new_issue || outcome.is_regression) {
            self.alerts_soon();
        }
    }

    fn say(&self, event: &str, outcome: &Outcome) {
        let word = json!({
            "event": event,
            "org_id": outcome.org,
            "project_id": outcome.project,
            "issue_id": outcome.issue,
            "event_id": outcome.event,
            "short_id": outcome.short_id,
            "title": outcome.title,
            "level": outcome.level,
            "is_new_issue": outcome.is_new_issue,
            "is_regression": outcome.is_regression,
            "at": outcome.at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        });
        self.announcer.say(format!("{STREAM}{word}"));
    }
}

/// Is it one of the rows that the database does not take?
fn is_of_data(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => !database.code().is_some_and(|code| {
            code == "55P03" || ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class))
        }),
        sqlx::Error::Encode(_) => true,
        _ => false,
    }
}

/// A project and an event in it.
pub(crate) type Place = (ProjectId, loom_core::id::EventId);
