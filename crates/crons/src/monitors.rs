//! Making and changing monitors, whoever wants it: the API, a ping, an SDK, our own jobs.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    id::{OrgId, ProjectId},
};
use sqlx::PgConnection;

use crate::{
    Crons,
    model::{EnvironmentState, Monitor},
    store,
    work::Place,
};

fn plural_limit(most: i64) -> Error {
    Error::conflict(
        "too_many_monitors",
        format!(
            "there are {most} monitors already, which is the most; delete one that is not needed"
        ),
    )
}

impl Crons {
    /// Makes a monitor with environments that are judged from now on. False: there is one of this slug.
    pub(crate) async fn make(
        &self,
        db: &mut PgConnection,
        monitor: &Monitor,
        environments: &[String],
    ) -> Result<bool> {
        let most = self.config.max_monitors;
        if store::monitors::count(db, monitor.org).await? >= most {
            return Err(plural_limit(most));
        }
        if !store::monitors::insert(db, monitor).await? {
            return Ok(false);
        }
        self.make_environments(db, monitor, environments, monitor.created_at).await?;
        Ok(true)
    }

    pub(crate) async fn make_environments(
        &self,
        db: &mut PgConnection,
        monitor: &Monitor,
        names: &[String],
        now: DateTime<Utc>,
    ) -> Result<()> {
        let places: Vec<Place> = names.iter().map(|name| (monitor.id, name.clone())).collect();
        let expected = monitor.plan.after(now);
        let due = monitor.due(expected);
        store::states::make(db, &places, &vec![expected; names.len()], &vec![due; names.len()])
            .await
    }

    /// Waits anew for what the monitor now is; of the environments that stay.
    pub(crate) async fn expect_anew(
        &self,
        db: &mut PgConnection,
        monitor: &Monitor,
        states: &[EnvironmentState],
        now: DateTime<Utc>,
    ) -> Result<()> {
        let expected = monitor.plan.after(now);
        let due = monitor.due(expected);
        for state in states {
            store::states::expect(db, monitor.org, monitor.id, &state.name, expected, due).await?;
        }
        Ok(())
    }

    /// The one of this slug, as `wanted` says it is to be: made, or changed when it differs in what `wanted`
    /// says. For what configures itself: what somebody else made stays as it is, whoever reports of it.
    pub(crate) async fn upsert(&self, wanted: Monitor) -> Result<(Arc<Monitor>, bool)> {
        if let Some(known) = self.engine.by_slug(wanted.org, &wanted.slug).await?
            && (known.made_by != wanted.made_by || is_same(&known, &wanted))
        {
            return Ok((known, false));
        }
        let now = self.deps.clock.now();
        let mut tx = loom_db::begin(&self.deps.pool).await?;
        let (org, slug) = (wanted.org, wanted.slug.clone());
        let mut made = false;
        let mut found = store::monitors::lock(&mut tx, org, &slug).await?;
        if found.is_none() {
            made = self.make(&mut tx, &wanted, &[]).await?;
            found = store::monitors::lock(&mut tx, org, &slug).await?;
        }
        let Some(mut monitor) = found else { return Err(Error::not_found("monitor")) };
        if !made && monitor.made_by == wanted.made_by && !is_same(&monitor, &wanted) {
            let waits_anew =
                monitor.schedule != wanted.schedule || monitor.timezone != wanted.timezone;
            take_over(&mut monitor, wanted, now);
            store::monitors::update(&mut tx, &monitor).await?;
            let states = store::states::lock_all(&mut tx, monitor.org, monitor.id).await?;
            if waits_anew {
                self.expect_anew(&mut tx, &monitor, &states, now).await?;
            }
        }
        tx.commit().await?;
        self.engine.changed(Some(monitor.id)).await;
        let monitor = self.engine.by_slug(org, &slug).await?;
        Ok((monitor.ok_or_else(|| Error::not_found("monitor"))?, made))
    }

    /// The project of this id, number or slug.
    ///
    /// # Errors
    /// 422 when there is none that the caller may see.
    pub(crate) async fn project(&self, org: OrgId, project: &str) -> Result<ProjectId> {
        let found = self.deps.projects.find(org, project).await?;
        let found = found
            .ok_or_else(|| Error::invalid("project_id", "is no project of this organisation"))?;
        Ok(found.id)
    }
}

/// Is all that an SDK says of it as it is?
fn is_same(known: &Monitor, wanted: &Monitor) -> bool {
    known.schedule == wanted.schedule
        && known.timezone == wanted.timezone
        && known.margin_secs == wanted.margin_secs
        && known.max_runtime_secs == wanted.max_runtime_secs
        && known.failure_threshold == wanted.failure_threshold
        && known.recovery_threshold == wanted.recovery_threshold
}

fn take_over(monitor: &mut Monitor, wanted: Monitor, now: DateTime<Utc>) {
    monitor.schedule = wanted.schedule;
    monitor.timezone = wanted.timezone;
    monitor.plan = wanted.plan;
    monitor.margin_secs = wanted.margin_secs;
    monitor.max_runtime_secs = wanted.max_runtime_secs;
    monitor.failure_threshold = wanted.failure_threshold;
    monitor.recovery_threshold = wanted.recovery_threshold;
    monitor.project = monitor.project.or(wanted.project);
    monitor.updated_at = now;
}
