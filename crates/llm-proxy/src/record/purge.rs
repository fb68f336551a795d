//! What is past its time goes.

use std::time::Duration;

use loom_jobs::{Job, JobReport};

use super::store;
use crate::LlmProxy;

pub(crate) fn job(proxy: &LlmProxy) -> Job {
    let proxy = proxy.clone();
    Job::new(
        "llm-record-cleanup",
        "LLM record clean-up",
        "Deletes kept replies, cached replies and captured requests that are older than they are kept.",
        Duration::from_secs(3600),
        Duration::from_secs(1800),
        move |context| {
            let proxy = proxy.clone();
            async move {
                let now = context.clock.now();
                let mut items_handled = 0;
                while !context.cancel.is_cancelled() {
                    let gone = store::purge(&proxy.pool, now).await?;
                    items_handled += gone;
                    if gone == 0 {
                        break;
                    }
                }
                Ok(JobReport { items_handled })
            }
        },
    )
}
