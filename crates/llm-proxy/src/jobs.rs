//! Background work of the LLM proxy.

use std::time::Duration;

use loom_db::partitions::Daily;
use loom_jobs::{Job, JobReport};

use crate::{LlmProxy, pool, record, usage_sums};

/// The log of requests.
const REQUESTS: Daily = Daily { table: "llm_requests", column: "started_at" };
const HOUR: Duration = Duration::from_secs(3600);
/// What is not summed yet is read row by row whenever somebody asks for usage.
const ROLL_UP_EVERY: Duration = Duration::from_secs(30);

pub(crate) fn all(proxy: &LlmProxy) -> Vec<Job> {
    let (summing, dropping) = (proxy.clone(), proxy.clone());
    vec![
        Job::new(
            "usage-rollup",
            "Usage roll-up",
            "Adds the requests to models since the last run to the sums by hour and day",
            ROLL_UP_EVERY,
            HOUR,
            move |context| {
                let proxy = summing.clone();
                async move { Ok(usage_sums::roll_up(&proxy.pool, &context.cancel).await?.into()) }
            },
        ),
        Job::partitions(
            "llm-partition-maintenance",
            "LLM request partitions",
            "Makes the partitions of the log of requests to models for the days to come",
            &proxy.pool,
            &[REQUESTS],
        ),
        Job::new(
            "llm-request-cleanup",
            "LLM request clean-up",
            "Drops days of the log of requests to models that are older than LOOM_SERVER_LLM_REQUEST_RETENTION_DAYS, and what was counted of budgets whose time is over",
            24 * HOUR,
            HOUR,
            move |context| {
                let proxy = dropping.clone();
                async move {
                    let before = context.clock.now() - proxy.retention;
                    // A row is not in the sums once it is gone.
                    usage_sums::roll_up(&proxy.pool, &context.cancel).await?;
                    let dropped = REQUESTS.drop_before(&proxy.pool, before).await?;
                    usage_sums::delete_before(&proxy.pool, before).await?;
                    let windows = proxy.limits.clean_up(context.clock.now()).await?;
                    Ok(JobReport { items_handled: dropped + windows })
                }
            },
        ),
        pool::job(proxy),
        record::job(proxy),
    ]
}
