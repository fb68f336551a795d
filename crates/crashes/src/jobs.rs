//! Background work of error tracking.

mod cleanup;
mod purge;

use std::time::Duration;

use loom_db::partitions::Daily;
use loom_jobs::Job;

use crate::Crashes;

pub(crate) const RAW: Daily = Daily { table: "crash_raw", column: "received_at" };
pub(crate) const EVENTS: Daily = Daily { table: "crash_events", column: "received_at" };

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn all(crashes: &Crashes) -> Vec<Job> {
    let (cleaning, purging) = (crashes.clone(), crashes.clone());
    vec![
        crate::artifacts::job(crashes),
        crate::issues::job(crashes),
        Job::partitions(
            "crash-partition-maintenance",
            "Crash event partitions",
            "Makes the partitions of events for the days to come",
            &crashes.deps.pool,
            &[RAW, EVENTS],
        ),
        Job::new(
            "crash-event-cleanup",
            "Crash event clean-up",
            "Deletes events, attachments and feedback that are older than their project keeps them",
            24 * HOUR,
            HOUR,
            move |context| cleanup::run(cleaning.clone(), context),
        ),
        Job::new(
            "crash-project-purge",
            "Crash project purge",
            "Removes what belongs to deleted projects",
            Duration::from_secs(300),
            HOUR,
            move |context| purge::run(purging.clone(), context),
        ),
        crate::alerts::job(crashes),
    ]
}
