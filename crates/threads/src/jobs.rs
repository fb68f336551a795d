//! Background work of the threads.

use std::time::Duration;

use chrono::TimeDelta;
use loom_jobs::Job;

use crate::{Threads, store};

/// A deleted thread can be brought back for so long.
pub(crate) const RESTORABLE: TimeDelta = TimeDelta::days(30);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn all(threads: &Threads) -> Vec<Job> {
    let threads = threads.clone();
    let purge = Job::new(
        "thread-purge",
        "Thread purge",
        "Removes threads for good that were deleted more than 30 days ago",
        DAY,
        Duration::from_secs(3600),
        move |context| {
            let threads = threads.clone();
            async move {
                let before = context.clock.now() - RESTORABLE;
                let mut purged: u64 = 0;
                while !context.cancel.is_cancelled() {
                    // One at a time: one alone may have a hundred thousand messages.
                    let mut db = threads.pool.acquire().await?;
                    if store::purge_one(&mut db, before).await?.is_none() {
                        break;
                    }
                    purged += 1;
                }
                Ok(purged.into())
            }
        },
    );
    vec![purge]
}
