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
                // What is wrong with the one keeps not from the other.
                let (signals, counts) = (crashes.tell_signals().await, crashes.tell_counts().await);
                let told = signals? + counts?;
                Ok(told.into())
            }
        },
    )
}

/// Rings when an issue is new, or back.
#[derive(Default)]
pub(crate) struct Bell(tokio::sync::Notify);

impl Crashes {
    /// An issue is new, or back: says so soon, without waiting for the job. Call after the commit.
    pub(crate) fn alerts_soon(&self) {
        self.alerts.0.notify_one();
    }

    /// Tells as soon as the bell rings, however often it did meanwhile.
    pub(crate) fn start_alerts(&self) {
        let crashes = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = crashes.deps.stop.cancelled() => return,
                    () = crashes.alerts.0.notified() => {}
                }
                if let Err(error) = crashes.tell_signals().await {
                    tracing::warn!(%error, "alerts cannot be told now; the job `crash-alerts` will");
                }
            }
        });
    }
}
