//! Taking the sums of what was stored since the last time.

use std::collections::HashMap;

use loom_core::Result;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::{
    store,
    sum::{Place, Sum},
};

/// Rows in one transaction: each is in some 26 sums.
const ROWS: i64 = 10_000;

/// Adds all rows that were committed when it began. Each is added once, however often and wherever this
/// runs: where the sums end is moved in the transaction that adds. Gives how far it came.
pub(crate) async fn roll_up(pool: &PgPool, cancel: &CancellationToken) -> Result<u64> {
    let settled = store::settled(pool).await?;
    let mut rows = 0;
    while !cancel.is_cancelled() {
        let mut tx = loom_db::begin(pool).await?;
        let after = store::progress_to_move(&mut tx).await?;
        if after >= settled {
            break;
        }
        // Rows of the time before there were numbers have 0, all of them.
        let to = if after < 0 { 0 } else { settled.min(after + ROWS) };
        let mut sums: HashMap<Place, Sum> = HashMap::new();
        store::rows_between(&mut tx, after, to, |row| {
            rows += 1;
            for place in row.places() {
                sums.entry(place).or_default().add(&row);
            }
        })
        .await?;
        store::add(&mut tx, sums).await?;
        store::move_progress(&mut tx, to).await?;
        tx.commit().await?;
    }
    Ok(rows)
}
