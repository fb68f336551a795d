//! Background work of the threads.

use loom_jobs::Job;

use crate::Threads;

pub(crate) fn all(_threads: &Threads) -> Vec<Job> {
    Vec::new()
}
