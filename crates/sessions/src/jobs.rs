//! Background work of release health.

use loom_jobs::Job;

use crate::Sessions;

pub(crate) fn all(_sessions: &Sessions) -> Vec<Job> {
    Vec::new()
}
