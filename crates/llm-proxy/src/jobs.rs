//! Background work of the LLM proxy.

use std::{sync::Arc, time::Duration};

use loom_jobs::{CatchUp, Job, JobError, JobReport, Schedule};

use crate::{LlmProxy, pool, record, store};

pub(crate) fn all(of: &LlmProxy) -> Vec<Job> {
    let proxy = of.clone();
    let cleanup = Job {
        id: "llm-request-cleanup",
        name: "LLM request clean-up",
        description: "Deletes the rows of requests to models that are older than they are kept, and what was counted of budgets whose time is over.",
        schedule: Schedule::Every(Duration::from_secs(24 * 3600)),
        catch_up: CatchUp::RunOnce,
        timeout: Duration::from_secs(3600),
        run: Arc::new(move |_| {
            let proxy = proxy.clone();
            Box::pin(async move {
                let before = proxy.clock.now() - proxy.retention;
                let deleted = store::delete_requests_before(&proxy.pool, before)
                    .await
                    .map_err(JobError::Retry)?;
                let windows = proxy.limits.clean_up(proxy.clock.now());
                let windows = windows.await.map_err(JobError::Retry)?;
                Ok(JobReport { items_handled: deleted + windows })
            })
        }),
    };
    vec![cleanup, pool::job(of), record::job(of)]
}
