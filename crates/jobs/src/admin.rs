//! What admins ask of the jobs: what there is, what became of it, and to run, stop or switch it.

use chrono::{DateTime, NaiveDate, Utc};
use loom_core::{Error, Result, id::RunId};

use crate::{
    JobScheduler,
    model::{JobView, RunDay, RunRecord, RunStatus},
    schedule::Schedule,
    scheduler::{Known, Run},
    store::{self, admin, history},
};

impl JobScheduler {
    pub(crate) fn job(&self, id: &str) -> Result<&Known> {
        self.0.jobs.get(id).ok_or_else(|| Error::not_found("job"))
    }

    /// All jobs, by id.
    pub async fn views(&self) -> Result<Vec<JobView>> {
        self.views_of(&self.0.jobs.values().collect::<Vec<_>>()).await
    }

    pub(crate) async fn view(&self, id: &str) -> Result<JobView> {
        let views = self.views_of(&[self.job(id)?]).await?;
        views.into_iter().next().ok_or_else(|| Error::not_found("job"))
    }

    async fn views_of(&self, jobs: &[&Known]) -> Result<Vec<JobView>> {
        let ids: Vec<String> = jobs.iter().map(|job| job.id.to_owned()).collect();
        let states = admin::states(&self.0.pool, &ids).await?;
        let mut runs = admin::newest_runs(&self.0.pool, &ids).await?;
        let now = self.0.clock.now();
        let view = |job: &&Known| {
            // One that was not looked at yet has no row.
            let state = states.iter().find(|state| state.id == job.id);
            let place = runs.iter().position(|(id, _)| id == job.id);
            let last_run = place.map(|place| job.counted(runs.swap_remove(place).1));
            let enabled = state.is_none_or(|state| state.enabled);
            let next = state.map_or_else(
                || job.slots.after(now),
                |state| {
                    let slot = job.next(state.last_slot, now);
                    state.retry_at.map_or(slot, |at| at.min(slot))
                },
            );
            let (interval_secs, schedule, timezone) = match &job.schedule {
                Schedule::Every(interval) => (Some(interval.as_secs()), None, None),
                Schedule::Cron { expression, timezone } => {
                    (None, Some(expression.clone()), Some(timezone.clone()))
                }
            };
            JobView {
                id: job.id,
                name: job.name,
                description: job.description,
                interval_secs,
                schedule,
                timezone,
                enabled,
                running: last_run.as_ref().is_some_and(|run| run.status == RunStatus::Running),
                last_run,
                next_run_at: enabled.then_some(next),
                consecutive_failures: state
                    .map(|state| state.consecutive_failures)
                    .unwrap_or_default(),
            }
        };
        Ok(jobs.iter().map(view).collect())
    }

    /// The runs of a job, newest first, from behind `after`.
    ///
    /// # Errors
    /// 404 for an unknown job.
    pub async fn history(
        &self,
        id: &str,
        after: Option<(DateTime<Utc>, RunId)>,
        limit: usize,
    ) -> Result<Vec<RunRecord>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let job = self.job(id)?;
        let runs = admin::history(&self.0.pool, job.id, after, limit).await?;
        Ok(runs.into_iter().map(|run| job.counted(run)).collect())
    }

    /// What the runs of a job that are in the history no longer came to, by day, newest first, from
    /// behind `after`.
    ///
    /// # Errors
    /// 404 for an unknown job.
    pub async fn days(
        &self,
        id: &str,
        after: Option<NaiveDate>,
        limit: usize,
    ) -> Result<Vec<RunDay>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        history::days(&self.0.pool, self.job(id)?.id, after, limit).await
    }

    /// As [`JobScheduler::request`], but not of a job that is off.
    ///
    /// # Errors
    /// Also 409 `job_disabled`.
    pub async fn request_enabled(&self, id: &str) -> Result<Run> {
        if !self.view(id).await?.enabled {
            return Err(Error::conflict("job_disabled", "this job is off; switch it on first"));
        }
        self.request(id).await
    }

    /// Tells the run of a job to stop, on whichever replica it is. A run that does not stop is dropped.
    ///
    /// # Errors
    /// 404 for an unknown job, 409 `job_not_running` when no run of it is under way.
    pub async fn cancel(&self, id: &str) -> Result<RunId> {
        let (job, now) = (self.job(id)?, self.0.clock.now());
        self.0.abandon(now).await?;
        let run = admin::request_cancel(&self.0.pool, job.id, now)
            .await?
            .ok_or_else(|| Error::conflict("job_not_running", "no run of this job is under way"))?;
        self.0.cancel(run);
        Ok(run)
    }

    /// Switches a job on or off, for all replicas; a run under way goes on. False: it was so.
    ///
    /// # Errors
    /// 404 for an unknown job.
    pub async fn switch(&self, id: &str, on: bool) -> Result<bool> {
        let job = self.job(id)?;
        let slot = job.present(self.0.clock.now());
        // It may not have been looked at yet.
        store::register(&self.0.pool, &[job.id.to_owned()], &[slot]).await?;
        let changed = if on {
            admin::enable(&self.0.pool, job.id, slot).await?
        } else {
            admin::disable(&self.0.pool, job.id).await?
        };
        self.0.plan().expire();
        Ok(changed)
    }
}
