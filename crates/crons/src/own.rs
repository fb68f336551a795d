//! Loom's own jobs as monitors, of the installation's own organisation.

use std::sync::{Mutex, PoisonError};

use loom_core::{Result, id::INTERNAL_ORG, port::OwnRun};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinHandle,
};

use crate::{
    Crons,
    draft::MonitorDraft,
    model::{DEFAULT_ENVIRONMENT, Source},
    report::{Kind, Report, RunKey},
    schedule::{Schedule, Unit},
};

/// Runs that wait to be noted.
const QUEUE: usize = 1000;

#[derive(Default)]
pub(crate) struct OwnRuns {
    queue: Mutex<Option<mpsc::Sender<OwnRun>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl OwnRuns {
    /// Never waits; what there is no room for is lost, and counted.
    pub(crate) fn put(&self, run: OwnRun) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queue.as_ref() else { return };
        if let Err(TrySendError::Full(_)) = queue.try_send(run) {
            metrics::counter!("loom_cron_own_runs_lost_total").increment(1);
        }
    }

    /// Takes nothing more, and notes what waits.
    pub(crate) async fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

impl Crons {
    pub(crate) fn take_own_runs(&self) {
        let (queue, mut runs) = mpsc::channel::<OwnRun>(QUEUE);
        *self.own.queue.lock().unwrap_or_else(PoisonError::into_inner) = Some(queue);
        let crons = self.clone();
        let task = tokio::spawn(async move {
            while let Some(run) = runs.recv().await {
                if let Err(error) = crons.note(&run).await {
                    tracing::debug!(?error, job = run.job, "a run of our own was not noted");
                    metrics::counter!("loom_cron_own_runs_lost_total").increment(1);
                }
            }
        });
        *self.own.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    async fn note(&self, run: &OwnRun) -> Result<()> {
        let (schedule, timezone) = match (&run.cron, run.every_secs) {
            (Some((expression, zone)), _) => {
                (Schedule::Crontab { expression: expression.clone() }, zone.clone())
            }
            (None, Some(secs)) => {
                // More often than once a minute is watched as once a minute.
                let minutes = u32::try_from(secs.div_ceil(60)).unwrap_or(u32::MAX).max(1);
                (Schedule::Interval { value: minutes, unit: Unit::Minute }, "UTC".to_owned())
            }
            (None, None) => return Ok(()),
        };
        let mut draft = MonitorDraft::plain(run.job.to_owned(), schedule, 5.0);
        draft.name = Some(run.name.to_owned());
        draft.timezone = timezone;
        // A job is tried again before it has failed.
        draft.failure_threshold = Some(3);
        let (wanted, _) = draft.check(INTERNAL_ORG, None, "internal", run.at)?;
        let (monitor, _) = self.upsert(wanted).await?;
        let kind = match run.succeeded {
            None => Kind::Start,
            Some(ok) => Kind::End { ok },
        };
        let report = Report::new(
            monitor,
            DEFAULT_ENVIRONMENT.to_owned(),
            (RunKey::Given(run.run.0), kind),
            run.at,
            run.duration_ms,
            self.deps.clock.now(),
            Source::System,
        );
        self.submit(report).await?;
        Ok(())
    }
}
