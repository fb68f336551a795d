//! Group commit: many small writes, one transaction. [`Writer::submit`] resolves when its item is
//! committed; a batch that the database refuses is split until the poisonous item stands alone.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use tokio_util::sync::CancellationToken;

use crate::{Error, Result};

/// How a writer gathers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Items in one batch.
    pub batch: usize,
    /// How long the first item of a batch waits for company. Zero: a batch is what came in while
    /// the one before was being written, so that a lone item goes at once.
    pub linger: Duration,
    /// Items waiting; over it, `submit` is refused.
    pub queue: usize,
    /// How long a batch is tried again while the database is out of reach.
    pub retry_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch: 512,
            linger: Duration::ZERO,
            queue: 16_384,
            retry_for: Duration::from_secs(30),
        }
    }
}

struct Waiting<T> {
    item: T,
    done: Option<oneshot::Sender<Result<()>>>,
}

/// A handle to submit with; cheap to clone.
pub struct Writer<T> {
    name: &'static str,
    queue: mpsc::Sender<Waiting<T>>,
    signals: Arc<Signals>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
    lost: Arc<AtomicU64>,
}

/// What the writing task is woken by while it waits for company. An item by itself does not wake it:
/// one wake-up for each would cost more than the rest of handing it over.
struct Signals {
    batch: usize,
    /// There is enough for a batch.
    full: Notify,
    closing: CancellationToken,
}

impl<T> Clone for Writer<T> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            queue: self.queue.clone(),
            signals: Arc::clone(&self.signals),
            task: Arc::clone(&self.task),
            lost: Arc::clone(&self.lost),
        }
    }
}

impl<T: Clone + Send + Sync + 'static> Writer<T> {
    /// Starts the writing task. `write` stores a batch in one statement, all or nothing; it must
    /// bear being called again with the same items (unique ids, `ON CONFLICT DO NOTHING`).
    pub fn start<W, F>(name: &'static str, limits: Limits, write: W) -> Self
    where
        W: Fn(Arc<[T]>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), sqlx::Error>> + Send + 'static,
    {
        // From nothing: what a counter begins with is no increase to whoever watches it.
        for counted in ["loom_group_commit_refused_total", "loom_group_commit_lost_total"] {
            metrics::counter!(counted, "writer" => name).increment(0);
        }
        let (queue, receiver) = mpsc::channel(limits.queue.max(1));
        let lost = Arc::new(AtomicU64::new(0));
        let batch = limits.batch.max(1);
        let signals =
            Arc::new(Signals { batch, full: Notify::new(), closing: CancellationToken::new() });
        let task = run(name, limits, write, receiver, Arc::clone(&signals), Arc::clone(&lost));
        let task = Arc::new(Mutex::new(Some(tokio::spawn(task))));
        Self { name, queue, signals, task, lost }
    }

    fn enqueue(&self, waiting: Waiting<T>) -> Result<()> {
        match self.queue.try_send(waiting) {
            Ok(()) => {
                // The task holds the first of a batch already.
                let queued = self.queue.max_capacity() - self.queue.capacity();
                if queued + 1 >= self.signals.batch {
                    self.signals.full.notify_one();
                }
                Ok(())
            }
            Err(TrySendError::Closed(_)) => Err(Error::unavailable("the server is going down")),
            Err(TrySendError::Full(_)) => {
                metrics::counter!("loom_group_commit_refused_total", "writer" => self.name)
                    .increment(1);
                Err(Error::overloaded(self.name))
            }
        }
    }

    /// Resolves when the item is committed.
    ///
    /// # Errors
    /// 429 `overloaded` when the queue is full, otherwise what the database said.
    pub async fn submit(&self, item: T) -> Result<()> {
        let (done, committed) = oneshot::channel();
        self.enqueue(Waiting { item, done: Some(done) })?;
        committed.await.unwrap_or_else(|_| Err(Error::unavailable("the server is going down")))
    }

    /// Hands the item over and does not wait for it. A full queue loses it, and counts that.
    pub fn send(&self, item: T) {
        if let Err(error) = self.enqueue(Waiting { item, done: None }) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(writer = self.name, %error, "an item was lost");
        }
    }

    /// Items handed over with [`Writer::send`] that could not be stored, since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Takes nothing more, writes what is waiting, and resolves when it is committed.
    pub async fn close(&self) {
        self.signals.closing.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(writer = self.name, %error, "the writer ended badly");
        }
    }
}

async fn run<T, W, F>(
    name: &'static str,
    limits: Limits,
    write: W,
    mut queue: mpsc::Receiver<Waiting<T>>,
    signals: Arc<Signals>,
    lost: Arc<AtomicU64>,
) where
    T: Clone + Send + Sync + 'static,
    W: Fn(Arc<[T]>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), sqlx::Error>> + Send + 'static,
{
    loop {
        let first = tokio::select! {
            biased;
            first = queue.recv() => first,
            () = signals.closing.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        // Closed, and empty.
        let Some(first) = first else { return };
        let mut batch = vec![first];
        take_waiting(&mut queue, &mut batch, signals.batch);
        let until = Instant::now() + limits.linger;
        let mut lingers = !limits.linger.is_zero();
        while lingers && batch.len() < signals.batch {
            tokio::select! {
                () = sleep_until(until) => lingers = false,
                () = signals.closing.cancelled() => lingers = false,
                () = signals.full.notified() => {}
            }
            take_waiting(&mut queue, &mut batch, signals.batch);
        }
        metrics::histogram!("loom_group_commit_batch_items", "writer" => name)
            .record(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        store(name, &limits, &write, batch, &lost).await;
    }
}

fn take_waiting<T>(queue: &mut mpsc::Receiver<T>, batch: &mut Vec<T>, limit: usize) {
    while batch.len() < limit
        && let Ok(next) = queue.try_recv()
    {
        batch.push(next);
    }
}

/// Writes a batch; splits it on a data error. Iterative, because the halves are again batches.
async fn store<T, W, F>(
    name: &'static str,
    limits: &Limits,
    write: &W,
    batch: Vec<Waiting<T>>,
    lost: &AtomicU64,
) where
    T: Clone + Send + Sync + 'static,
    W: Fn(Arc<[T]>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), sqlx::Error>> + Send + 'static,
{
    let mut batches = vec![batch];
    while let Some(mut batch) = batches.pop() {
        let items: Arc<[T]> = batch.iter().map(|waiting| waiting.item.clone()).collect();
        match write_until(limits, write, items).await {
            Ok(()) => {
                for waiting in batch {
                    answer(waiting.done, Ok(()));
                }
            }
            // No item is at fault when the database is: its parts would each wait as long again.
            Err(error @ (sqlx::Error::Database(_) | sqlx::Error::Decode(_)))
                if batch.len() > 1 && !is_passing(&error) =>
            {
                let tail = batch.split_off(batch.len() / 2);
                batches.push(tail);
                batches.push(batch);
            }
            Err(error) => {
                let error = Error::from(error);
                tracing::error!(
                    writer = name,
                    items = batch.len(),
                    ?error,
                    "a batch could not be written"
                );
                for waiting in batch {
                    if waiting.done.is_none() {
                        lost.fetch_add(1, Ordering::Relaxed);
                        metrics::counter!("loom_group_commit_lost_total", "writer" => name)
                            .increment(1);
                    }
                    answer(waiting.done, Err(error.clone()));
                }
            }
        }
    }
}

fn answer(done: Option<oneshot::Sender<Result<()>>>, result: Result<()>) {
    if let Some(done) = done {
        // Whoever asked may have gone away; the item is stored all the same.
        let _ = done.send(result);
    }
}

/// Tries again while the fault is the connection's and not the data's.
async fn write_until<T, W, F>(
    limits: &Limits,
    write: &W,
    items: Arc<[T]>,
) -> Result<(), sqlx::Error>
where
    W: Fn(Arc<[T]>) -> F,
    F: Future<Output = Result<(), sqlx::Error>>,
{
    let deadline = Instant::now() + limits.retry_for;
    let mut pause = Duration::from_millis(20);
    loop {
        match write(Arc::clone(&items)).await {
            Err(error) if is_passing(&error) && Instant::now() + pause < deadline => {
                tracing::warn!(%error, "the database is out of reach; trying again");
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            result => return result,
        }
    }
}

/// Connection faults, restarts, deadlocks and exhausted resources pass; bad data does not.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(db) => db.code().is_some_and(|code| {
            ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}
