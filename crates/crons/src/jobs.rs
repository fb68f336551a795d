//! Background work of cron monitoring.

use loom_jobs::Job;

use crate::Crons;

pub(crate) fn all(_crons: &Crons) -> Vec<Job> {
    Vec::new()
}
