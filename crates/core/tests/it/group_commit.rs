//! Group commit against a store that the test plays: what is committed is answered, and one bad item
//! costs its neighbours nothing. Time is the runtime's and moves by itself.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use loom_core::group_commit::{Limits, Writer};
use sqlx::error::{DatabaseError, ErrorKind};
use tokio::{sync::Semaphore, time::Instant};

/// What PostgreSQL would say, by its code.
#[derive(Debug)]
struct Refusal(&'static str);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SQLSTATE {}", self.0)
    }
}

impl std::error::Error for Refusal {}

impl DatabaseError for Refusal {
    fn message(&self) -> &str {
        self.0
    }
    fn code(&self) -> Option<Cow<'_, str>> {
        Some(self.0.into())
    }
    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }
    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }
    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

fn refusal(code: &'static str) -> sqlx::Error {
    sqlx::Error::Database(Box::new(Refusal(code)))
}

fn broken() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::other("the connection is gone"))
}

type Answer = Box<dyn Fn(usize, &[u32]) -> Result<(), sqlx::Error> + Send + Sync>;

/// A table whose every write the test can delay (a permit each) and refuse.
#[derive(Clone)]
struct Table {
    rows: Arc<Mutex<BTreeSet<u32>>>,
    batches: Arc<Mutex<Vec<Vec<u32>>>>,
    gate: Arc<Semaphore>,
    answer: Arc<Answer>,
}

impl Table {
    /// `answer` gets the number of the write (from 0) and its items.
    fn new(
        answer: impl Fn(usize, &[u32]) -> Result<(), sqlx::Error> + Send + Sync + 'static,
    ) -> Self {
        Self {
            rows: Arc::default(),
            batches: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            answer: Arc::new(Box::new(answer)),
        }
    }

    fn sound() -> Self {
        Self::new(|_, _| Ok(()))
    }

    /// Lets no write through before [`Semaphore::add_permits`].
    fn gated(self) -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), ..self }
    }

    fn writer(&self, limits: Limits) -> Writer<u32> {
        let table = self.clone();
        Writer::start("test", limits, move |items: Arc<[u32]>| {
            let table = table.clone();
            async move {
                let number = {
                    let mut batches = table.batches.lock().unwrap();
                    batches.push(items.to_vec());
                    batches.len() - 1
                };
                table.gate.acquire().await.unwrap().forget();
                (table.answer)(number, &items)?;
                table.rows.lock().unwrap().extend(items.iter());
                Ok(())
            }
        })
    }

    fn has(&self, row: u32) -> bool {
        self.rows.lock().unwrap().contains(&row)
    }

    fn rows(&self) -> Vec<u32> {
        self.rows.lock().unwrap().iter().copied().collect()
    }

    fn batches(&self) -> Vec<Vec<u32>> {
        self.batches.lock().unwrap().clone()
    }

    /// Returns when the writer is inside its `n`th write.
    async fn writing(&self, n: usize) {
        while self.batches.lock().unwrap().len() < n {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn submit_resolves_when_the_item_is_committed_and_not_before() {
    let table = Table::sound().gated();
    let writer = table.writer(Limits::default());
    let mut submitted = std::pin::pin!(writer.submit(1));
    let early = tokio::time::timeout(Duration::from_secs(5), &mut submitted).await;
    assert!(early.is_err() && !table.has(1));
    table.gate.add_permits(1);
    submitted.await.unwrap();
    assert!(table.has(1));
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_during_a_write_is_the_next_batch() {
    let table = Table::sound().gated();
    let writer = table.writer(Limits { batch: 3, ..Limits::default() });
    let first = tokio::spawn({
        let writer = writer.clone();
        async move { writer.submit(0).await }
    });
    table.writing(1).await;
    for item in 1..=5 {
        writer.send(item);
    }
    table.gate.add_permits(10);
    first.await.unwrap().unwrap();
    writer.close().await;
    assert_eq!(table.batches(), [vec![0], vec![1, 2, 3], vec![4, 5]]);
}

#[tokio::test(start_paused = true)]
async fn a_lone_item_goes_at_once_without_linger_and_waits_for_company_with_it() {
    let table = Table::sound();
    let writer = table.writer(Limits::default());
    let start = Instant::now();
    writer.submit(1).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);

    let linger = Duration::from_millis(50);
    let table = Table::sound();
    let writer = table.writer(Limits { linger, ..Limits::default() });
    let start = Instant::now();
    let late = async {
        tokio::time::sleep(linger / 2).await;
        writer.submit(2).await
    };
    let (first, second) = tokio::join!(writer.submit(1), late);
    first.and(second).unwrap();
    assert!(start.elapsed() >= linger, "{:?}", start.elapsed());
    assert_eq!(table.batches(), [[1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_does_not_linger() {
    let table = Table::sound();
    let limits = Limits { batch: 2, linger: Duration::from_secs(3600), ..Limits::default() };
    let writer = table.writer(limits);
    let start = Instant::now();
    let (a, b) = tokio::join!(writer.submit(1), writer.submit(2));
    a.and(b).unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_poisonous_row_fails_alone_and_its_neighbours_are_stored() {
    // 22P02: a text that is no number. Items 7 and 40 are such.
    let table = Table::new(|_, items| {
        if items.contains(&7) || items.contains(&40) { Err(refusal("22P02")) } else { Ok(()) }
    });
    let writer = table.writer(Limits { linger: Duration::from_millis(5), ..Limits::default() });
    let answers = join_all((0..64).map(|item| writer.submit(item))).await;
    for (item, answer) in (0..64).zip(answers) {
        assert_eq!(answer.is_err(), item == 7 || item == 40, "{item}: {answer:?}");
        assert_eq!(table.has(item), answer.is_ok(), "{item}");
        if let Err(error) = answer {
            assert_eq!(error.status(), 500);
        }
    }
    let writes = table.batches();
    assert_eq!(writes[0].len(), 64);
    assert!(writes.len() <= 1 + 2 * 2 * 6, "halving, not one by one: {}", writes.len());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_is_tried_again_with_the_whole_batch() {
    for fault in [broken, || sqlx::Error::PoolTimedOut, || refusal("40P01"), || refusal("57P01")] {
        let table = Table::new(move |write, _| if write < 3 { Err(fault()) } else { Ok(()) });
        let writer = table.writer(Limits { linger: Duration::from_millis(5), ..Limits::default() });
        let (a, b) = tokio::join!(writer.submit(1), writer.submit(2));
        a.and(b).unwrap();
        assert_eq!(table.rows(), [1, 2]);
        assert_eq!(table.batches(), vec![vec![1, 2]; 4]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_that_stays_away_is_given_up_after_the_time_and_then_told() {
    // Also when the refusal comes from PostgreSQL itself (53300: too many connections): it is not the
    // fault of an item, so that a batch is not split and each part tried for as long again.
    for fault in [broken, || refusal("53300")] {
        let table = Table::new(move |_, _| Err(fault()));
        let retry_for = Duration::from_secs(10);
        let limits = Limits { linger: Duration::from_millis(5), retry_for, ..Limits::default() };
        let writer = table.writer(limits);
        let start = Instant::now();
        let answers = join_all((0..8).map(|item| writer.submit(item))).await;
        for answer in answers {
            let error = answer.unwrap_err();
            assert_eq!((error.status().as_u16(), error.code()), (503, "unavailable"));
        }
        let waited = start.elapsed();
        assert!(waited > retry_for / 2 && waited <= retry_for * 11 / 10, "{waited:?}");
        assert!(table.batches().iter().all(|batch| batch.len() == 8), "{:?}", table.batches());
    }
}

#[tokio::test(start_paused = true)]
async fn over_the_bound_submit_is_refused_with_a_429_and_nothing_is_stored_of_it() {
    let table = Table::sound().gated();
    let writer = table.writer(Limits { queue: 2, ..Limits::default() });
    writer.send(0);
    table.writing(1).await;
    writer.send(1);
    writer.send(2);
    let error = writer.submit(3).await.unwrap_err();
    assert_eq!((error.status().as_u16(), error.code()), (429, "overloaded"));
    assert_eq!(error.retry_after_secs(), Some(1));
    assert_eq!(writer.lost(), 0);
    writer.send(4);
    assert_eq!(writer.lost(), 1);
    table.gate.add_permits(10);
    writer.close().await;
    assert_eq!(table.rows(), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_item_not_waited_for_that_cannot_be_stored_is_counted_as_lost() {
    let table =
        Table::new(|_, items| if items.contains(&2) { Err(refusal("22003")) } else { Ok(()) });
    let writer = table.writer(Limits { linger: Duration::from_millis(5), ..Limits::default() });
    for item in 1..=3 {
        writer.send(item);
    }
    writer.close().await;
    assert_eq!((table.rows(), writer.lost()), (vec![1, 3], 1));
}

#[tokio::test(start_paused = true)]
async fn an_item_is_stored_also_when_whoever_submitted_it_has_gone_away() {
    let table = Table::sound().gated();
    let writer = table.writer(Limits::default());
    let asked = tokio::time::timeout(Duration::from_secs(1), writer.submit(1)).await;
    assert!(asked.is_err());
    table.gate.add_permits(1);
    writer.close().await;
    assert!(table.has(1));
}

#[tokio::test(start_paused = true)]
async fn close_writes_what_is_waiting_and_then_takes_nothing_more() {
    let table = Table::sound();
    let writer = table.writer(Limits { batch: 10, ..Limits::default() });
    for item in 0..100 {
        writer.send(item);
    }
    writer.close().await;
    assert_eq!(table.rows().len(), 100);
    let error = writer.submit(100).await.unwrap_err();
    assert_eq!((error.status().as_u16(), error.code()), (503, "unavailable"));
    assert!(!table.has(100));
    // Again, and from a copy: nothing is left to do.
    writer.clone().close().await;
}
