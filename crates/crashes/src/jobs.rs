//! Background work of error tracking.

use loom_db::partitions::Daily;
use loom_jobs::Job;

use crate::Crashes;

pub(crate) const RAW: Daily = Daily { table: "crash_raw", column: "received_at" };
pub(crate) const EVENTS: Daily = Daily { table: "crash_events", column: "received_at" };

pub(crate) fn all(crashes: &Crashes) -> Vec<Job> {
    vec![crate::artifacts::job(crashes), crate::issues::job(crashes)]
}
