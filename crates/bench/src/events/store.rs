//! The limits of the store: how many rows as those of events PostgreSQL takes, all in one transaction, and
//! each in its own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::task::JoinSet;

use crate::{stats::median, threads::corpus::Numbers};

/// Rows of one COPY.
const ROWS: i64 = 20_000;
const ROUNDS: usize = 3;
/// A private PostgreSQL has room for few beside the server's own.
pub(super) const MAX_CONNECTIONS: usize = 16;

/// Rows a second of COPY, the median of some rounds, with the rows that are there, into a table like theirs.
pub(super) async fn copy_all(db: &mut PgConnection) -> Result<f64> {
    let out = format!("COPY (SELECT * FROM crash_raw LIMIT {ROWS}) TO STDOUT (FORMAT binary)");
    let data: Vec<_> = db.copy_out_raw(&out).await?.try_collect().await?;
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        fresh(db).await?;
        let started = Instant::now();
        let mut copy = db.copy_in_raw("COPY copied FROM STDIN (FORMAT binary)").await?;
        for piece in &data {
            copy.send(&piece[..]).await?;
        }
        let rows = copy.finish().await?;
        rates.push(rows as f64 / started.elapsed().as_secs_f64());
    }
    db.execute("DROP TABLE copied").await?;
    median(rates).context("nothing was copied")
}

/// The same, each row durable before the next of its connection: what intake promises, without all else
/// that it does.
pub(super) async fn copy_each(
    db: &mut PgConnection,
    url: &str,
    connections: usize,
    time: Duration,
) -> Result<f64> {
    fresh(db).await?;
    let out =
        "COPY (SELECT org_id, project_id, payload, delivery FROM crash_raw LIMIT 1) TO STDOUT";
    let row: Vec<_> = db.copy_out_raw(out).await?.try_collect().await?;
    let row = String::from_utf8(row.concat())?.trim_end().to_owned();
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..connections.max(1) {
        let (url, row) = (url.to_owned(), row.clone());
        tasks.spawn(async move {
            let mut db = PgConnection::connect(&url).await?;
            let mut count = 0_u64;
            while Instant::now() < until {
                let mut copy = db
                    .copy_in_raw(
                        "COPY copied (org_id, project_id, payload, delivery, event_id, received_at) FROM STDIN",
                    )
                    .await?;
                copy.send(format!("{row}\t{}\tnow\n", chance()).as_bytes()).await?;
                copy.finish().await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(done) = tasks.join_next().await {
        count += done??;
    }
    db.execute("DROP TABLE copied").await?;
    Ok(count as f64 / time.as_secs_f64())
}

/// From chance, as SDKs make them.
fn chance() -> uuid::Uuid {
    let (_, seed) = loom_core::id::new_uuid(loom_core::Clock::system().now()).as_u64_pair();
    let mut numbers = Numbers(seed);
    uuid::Uuid::from_u64_pair(numbers.next(), numbers.next())
}

async fn fresh(db: &mut PgConnection) -> Result<()> {
    db.execute("DROP TABLE IF EXISTS copied; CREATE TABLE copied (LIKE crash_raw INCLUDING ALL)")
        .await?;
    Ok(())
}
