//! Keeping one repository in order, so that no push is ever lost to it.
//!
//! Packing (`repack --geometric`, `pack-refs`, `commit-graph`) goes on beside clones and pushes: it only
//! gathers small packs into larger ones, keeps objects that nothing refers to, and deletes a pack after
//! all that is in it is in another. A push adds a pack that the run does not know of, and leaves alone.
//!
//! Removing objects that nothing refers to (`repack --cruft --cruft-expiration`) could take from a push
//! what it counts on: the tip of a branch that was deleted a moment ago. Git hopes that a grace of two
//! weeks will do; here it is impossible on top of that, as removal and pushes exclude each other, over all
//! replicas, by rows: removal begins only when no push is under way, and a push that comes meanwhile waits.
//! One that was told of a branch before and comes after is checked by git against what is there then.

use std::{path::Path, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::{Error, Result, id::new_uuid};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    Scm,
    disk::measure,
    git::{self, Failure},
    model::{Maintenance, MaintenanceStatus, MaintenanceTrigger, Repository},
    store::maintenance::{self as store, Target},
};

/// How long a repository belongs to a run without a word from it.
const LEASE: TimeDelta = TimeDelta::seconds(90);
const RENEW_EVERY: Duration = Duration::from_secs(20);
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// Objects that nothing refers to are kept this long.
const GRACE: &str = "2.weeks.ago";
/// By then the garbage of a push may go: the grace, and a week until it was told from the rest.
pub(crate) const GARBAGE_AFTER: TimeDelta = TimeDelta::days(22);
/// Everything is packed anew at most so often by the schedule.
const RECLAIM_EVERY: TimeDelta = TimeDelta::days(7);
const MAX_ERROR: usize = 2000;

impl Scm {
    /// Begins the maintenance of a repository and answers at once.
    pub(crate) async fn maintain_by_hand(&self, repository: &Repository) -> Result<Maintenance> {
        self.directory(repository)?;
        let permit = std::sync::Arc::clone(&self.by_hand).try_acquire_owned().map_err(|_| {
            Error::unavailable("other repositories are being looked after just now; try again")
                .retry_after(Duration::from_secs(30))
        })?;
        let target = Target { id: repository.id, org: repository.org_id, reclaimed_at: None };
        let run = self.claim(&target, MaintenanceTrigger::Manual).await?.ok_or_else(|| {
            Error::conflict("maintenance_running", "this repository is being looked after already")
        })?;
        let (scm, begun) = (self.clone(), run.clone());
        self.tasks.spawn(async move {
            let cancel = scm.stop.clone();
            scm.maintain(&target, begun, true, &cancel).await;
            drop(permit);
        });
        Ok(run)
    }

    /// Looks after a repository whose turn it is; None when another server does.
    pub(crate) async fn maintain_by_schedule(
        &self,
        target: &Target,
        cancel: &CancellationToken,
    ) -> Result<Option<Maintenance>> {
        let Some(run) = self.claim(target, MaintenanceTrigger::Schedule).await? else {
            return Ok(None);
        };
        let now = self.clock.now();
        let reclaim = target.reclaimed_at.is_none_or(|at| at <= now - RECLAIM_EVERY);
        Ok(Some(self.maintain(target, run, reclaim, cancel).await))
    }

    async fn claim(
        &self,
        target: &Target,
        trigger: MaintenanceTrigger,
    ) -> Result<Option<Maintenance>> {
        let now = self.clock.now();
        let run = Maintenance {
            id: new_uuid(now),
            repository_id: target.id,
            trigger,
            status: MaintenanceStatus::Running,
            started_at: now,
            finished_at: None,
            duration_ms: None,
            packs_before: None,
            packs_after: None,
            bytes_before: None,
            bytes_after: None,
            reclaimed: false,
            error: None,
        };
        let mut tx = loom_db::begin(&self.pool).await?;
        if !store::claim(&mut tx, target, run.id, trigger, now, now + LEASE).await? {
            return Ok(None);
        }
        tx.commit().await?;
        Ok(Some(run))
    }

    /// Does it and records what came of it; never fails as a whole.
    async fn maintain(
        &self,
        target: &Target,
        mut run: Maintenance,
        reclaim: bool,
        cancel: &CancellationToken,
    ) -> Maintenance {
        let started = Instant::now();
        let path = self.disk.path(target.org, target.id);
        let before = measure(path.clone()).await;
        // Also when the lease is lost: then it is another's.
        let stop = cancel.child_token();
        let done = {
            let work = self.work(target, &run, &path, started, reclaim, &stop);
            tokio::pin!(work);
            tokio::select! {
                done = &mut work => done,
                () = self.keep_lease(target, &run) => {
                    stop.cancel();
                    let _ = work.await;
                    Err(Failure::Failed("the lease on the repository was lost".to_owned()))
                }
            }
        };
        let after = measure(path).await;
        run.finished_at = Some(self.clock.now());
        run.duration_ms = i64::try_from(started.elapsed().as_millis()).ok();
        (run.packs_before, run.packs_after) = (Some(before.packs), Some(after.packs));
        (run.bytes_before, run.bytes_after) = (Some(before.bytes), Some(after.bytes));
        run.status = MaintenanceStatus::Succeeded;
        match done {
            Ok(reclaimed) => run.reclaimed = reclaimed,
            Err(failure) => {
                run.status = MaintenanceStatus::Failed;
                let text = failure.to_string();
                run.error = Some(loom_core::text::cut(&text, MAX_ERROR).to_owned());
                tracing::warn!(repository = %target.id, error = text, "the maintenance of a repository failed");
            }
        }
        metrics::counter!("loom_git_maintenance_total", "status" => run.status.as_str())
            .increment(1);
        metrics::histogram!("loom_git_maintenance_seconds").record(started.elapsed().as_secs_f64());
        if let Err(error) = self.record_end(target, &run).await {
            tracing::error!(?error, repository = %target.id, "the end of a maintenance was not recorded");
        }
        run
    }

    /// True when garbage was removed as well.
    async fn work(
        &self,
        target: &Target,
        run: &Maintenance,
        path: &Path,
        started: Instant,
        reclaim: bool,
        stop: &CancellationToken,
    ) -> Result<bool, Failure> {
        let until = started + self.config.maintenance_timeout;
        step(path, &["pack-refs", "--all", "--prune"], until, stop).await?;
        let reclaimed = reclaim && self.begin_reclaim(target, run).await;
        if reclaimed {
            // Instead of `gather`, which would make the garbage look young.
            let done = remove_garbage(path, until, stop).await;
            if let Err(error) = store::end_reclaim(&self.pool, target, run.id).await {
                tracing::warn!(?error, repository = %target.id, "pushes stay locked out until the lease ends");
            }
            done?;
        } else {
            gather(path, until, stop).await?;
        }
        step(path, &["commit-graph", "write", "--reachable", "--no-progress"], until, stop).await?;
        Ok(reclaimed)
    }

    async fn record_end(&self, target: &Target, run: &Maintenance) -> Result<()> {
        let mut tx = loom_db::begin(&self.pool).await?;
        store::finish(&mut tx, target.org, run, self.clock.now()).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn begin_reclaim(&self, target: &Target, run: &Maintenance) -> bool {
        let begin = async {
            let now = self.clock.now();
            let mut tx = loom_db::begin(&self.pool).await?;
            let begun = store::begin_reclaim(&mut tx, target, run.id, now, now + LEASE).await?;
            tx.commit().await?;
            Ok::<_, Error>(begun)
        };
        begin.await.unwrap_or_else(|error| {
            tracing::warn!(?error, repository = %target.id, "nothing is removed this time");
            false
        })
    }

    /// Resolves when the repository is ours no longer, or may soon be.
    async fn keep_lease(&self, target: &Target, run: &Maintenance) {
        let mut until: DateTime<Utc> = run.started_at + LEASE;
        loop {
            sleep(RENEW_EVERY).await;
            let now = self.clock.now();
            let renew = store::renew(&self.pool, target, run.id, now, now + LEASE);
            match tokio::time::timeout(RENEW_WITHIN, renew).await {
                Ok(Ok(true)) => until = now + LEASE,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(?error, "the lease on a repository was not renewed");
                }
                Err(_) => tracing::warn!("the lease on a repository was not renewed in time"),
            }
            if self.clock.now() + TimeDelta::seconds(45) >= until {
                return;
            }
        }
    }
}

async fn step(
    path: &Path,
    arguments: &[&str],
    until: Instant,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut command = git::command(path);
    // Beside clones and pushes, not before them.
    command.args(["-c", "pack.threads=1"]).args(arguments);
    git::run(command, until.saturating_duration_since(Instant::now()), stop).await?;
    Ok(())
}

/// Makes large packs of small ones and of loose objects, and loses nothing.
async fn gather(path: &Path, until: Instant, stop: &CancellationToken) -> Result<(), Failure> {
    let repack = ["repack", "-d", "-l", "-q", "--geometric=2", "--no-write-bitmap-index"];
    step(path, &repack, until, stop).await
}

/// One pack of all that something refers to, one of the rest, without what has been in it for long; and
/// what pushes that broke off have left.
async fn remove_garbage(
    path: &Path,
    until: Instant,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let expiry = format!("--cruft-expiration={GRACE}");
    let repack = ["repack", "-d", "-l", "-q", "--cruft", &expiry, "--write-bitmap-index"];
    step(path, &repack, until, stop).await?;
    step(path, &["prune", "--expire", GRACE], until, stop).await
}
