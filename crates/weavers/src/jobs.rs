//! Background work of weavers.

use std::time::Duration;

use chrono::TimeDelta;
use loom_core::{Error, Result};
use loom_jobs::{Job, JobContext, JobError, JobReport};
use metrics::counter;

use crate::{Weavers, canary, store};

const MINUTE: Duration = Duration::from_secs(60);
/// Rows of one statement: their logs go with them.
const BATCH: i64 = 100;

pub(crate) fn all(weavers: &Weavers) -> Vec<Job> {
    let (cleanup, retention) = (weavers.clone(), weavers.clone());
    let (spending, canary) = (weavers.clone(), weavers.clone());
    vec![
        Job::new(
            "weaver-cleanup",
            "Weaver clean-up",
            "Ends weavers whose time is over, or that have done nothing for as long as they may, and keeps their network policies",
            weavers.config.cleanup_interval,
            MINUTE * 5,
            move |context| clean_up(cleanup.clone(), context),
        ),
        Job::new(
            "weaver-retention",
            "Weaver records",
            "Deletes weavers that ended longer ago than LOOM_SERVER_WEAVER_RETENTION_DAYS, with their logs",
            MINUTE * 60 * 24,
            MINUTE * 60,
            move |context| forget(retention.clone(), context),
        ),
        Job::new(
            "weaver-spending",
            "Weaver spending",
            "Ends weavers whose budget is spent, and takes requests to models for signs of life",
            MINUTE / 2,
            MINUTE * 5,
            move |_| {
                let weavers = spending.clone();
                async move {
                    let ended =
                        if weavers.config.enabled { weavers.look_at_spending().await? } else { 0 };
                    Ok(JobReport { items_handled: ended })
                }
            },
        ),
        Job::new(
            "weaver-network-canary",
            "Network canary",
            "Tries out whether the cluster holds weavers to their network class, with LOOM_SERVER_WEAVER_CANARY_IMAGE",
            MINUTE * 15,
            MINUTE * 5,
            move |context| canary::run(canary.clone(), context),
        ),
    ]
}

async fn clean_up(weavers: Weavers, _: JobContext) -> Result<JobReport, JobError> {
    let ended = weavers.end_those_due().await?;
    // Somebody may have taken away what holds those that run, and this server may have moved.
    if weavers.config.enabled
        && let Err(error) = weavers.put_policies().await
    {
        tracing::warn!(%error, "the network policies of weavers cannot be kept as they are to be");
    }
    let handled = i64::try_from(ended.len()).unwrap_or(i64::MAX);
    Ok(JobReport { items_handled: handled.unsigned_abs() })
}

async fn forget(weavers: Weavers, context: JobContext) -> Result<JobReport, JobError> {
    let before = context.clock.now() - TimeDelta::days(weavers.config.retention_days);
    let mut handled = 0;
    while !context.cancel.is_cancelled() {
        let gone = store::forget(&weavers.deps.pool, before, BATCH).await?;
        handled += gone;
        if gone == 0 {
            break;
        }
    }
    Ok(JobReport { items_handled: handled })
}

impl Weavers {
    /// Has everything end whose time is over: the rows say so when this returns, and the pods go.
    pub(crate) async fn end_those_due(&self) -> Result<Vec<loom_core::id::WeaverId>> {
        if !self.config.enabled {
            return Ok(Vec::new());
        }
        counter!("loom_weavers_cleanup_total").increment(1);
        let now = self.deps.clock.now();
        let mut ended = Vec::new();
        for row in store::due(&self.deps.pool, &self.installation, now).await? {
            let Some(change) = crate::reconcile::decide::out_of_time(&row, now) else { continue };
            let mut transaction = loom_db::begin(&self.deps.pool).await?;
            let written = store::change(&mut transaction, &row, &change, None).await?;
            transaction.commit().await.map_err(Error::from)?;
            if let Some(written) = written {
                self.announce(&written);
                self.look_at(written.id);
                ended.push(written.id);
            }
        }
        counter!("loom_weavers_cleanup_deleted_total").increment(ended.len() as u64);
        Ok(ended)
    }
}
