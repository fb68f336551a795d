//! What is no longer needed of deliveries goes, in small pieces.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::{Error, Result};
use tokio_util::sync::CancellationToken;

use crate::{Notify, outbox, store};

const KEEP: TimeDelta = TimeDelta::days(30);
/// So long can what failed be tried again by hand.
const KEEP_PAYLOAD: TimeDelta = TimeDelta::days(7);
const KEEP_OUTBOX: Duration = Duration::from_secs(7 * 24 * 3600);
const BATCH: i64 = 1000;

impl Notify {
    /// Deletes what ended more than 30 days ago, erases what failed more than 7 days ago, and files in
    /// the outbox of that age. Gives the number of all of these.
    pub async fn clean_up(&self, now: DateTime<Utc>, cancel: &CancellationToken) -> Result<u64> {
        let mut handled = 0;
        while !cancel.is_cancelled() {
            let erased = store::erase_payloads(&self.pool, now - KEEP_PAYLOAD, BATCH).await?;
            let deleted = store::delete_before(&self.pool, now - KEEP, BATCH).await?;
            handled += erased + deleted;
            if erased + deleted == 0 {
                break;
            }
        }
        let before = SystemTime::from(now) - KEEP_OUTBOX;
        handled += outbox::sweep(&self.outbox, before).await.map_err(Error::internal)?;
        Ok(handled)
    }
}
