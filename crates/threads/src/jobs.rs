//! Background work of the threads.

mod search;

use loom_jobs::Job;

use crate::Threads;

pub(crate) fn all(threads: &Threads) -> Vec<Job> {
    vec![search::backfill(threads.clone()), search::drift_check(threads.clone())]
}
