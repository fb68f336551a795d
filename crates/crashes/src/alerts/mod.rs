//! Alerts: rules of a project by which people are told of new and returned issues, and of what repeats.

mod evaluate;
pub(crate) mod http;
mod model;
mod store;
mod tell;

use std::time::Duration;

use loom_jobs::Job;

use crate::Crashes;

/// What repeats is looked at so often; and signals that nobody was woken for.
const EVERY: Duration = Duration::from_secs(60);

pub(crate) fn job(crashes: &Crashes) -> Job {
    let crashes = crashes.clone();
    Job::new(
        "crash-alerts",
        "Crash alerts",
        "Tells of new and returned issues, and of events that repeat",
        EVERY,
        EVERY * 10,
        move |_| {
            let crashes = crashes.clone();
            async move {
                let told = crashes.tell_signals().await? + crashes.tell_counts().await?;
                Ok(told.into())
            }
        },
    )
}

impl Crashes {
    /// An issue is new, or back: says so soon, without waiting for the job. Call after the commit.
    pub(crate) fn alerts_soon(&self) {
        let crashes = self.clone();
        tokio::spawn(async move {
            if let Err(error) = crashes.tell_signals().await {
                tracing::warn!(%error, "alerts cannot be told now; the job `crash-alerts` will");
            }
        });
    }
}
