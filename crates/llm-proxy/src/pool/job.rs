//! The job `token-refresh`: tokens that end soon are renewed before anybody has to wait for it, and
//! what a provider refused is asked again.

use std::{sync::Arc, time::Duration};

use futures::stream::{self, StreamExt};
use loom_core::Result;
use loom_jobs::{Job, JobContext, JobError, JobReport};

use super::{Member, store};
use crate::{LlmProxy, provider::Provider};

/// What ends within this time is renewed.
const AHEAD: Duration = Duration::from_secs(15 * 60);
const AT_ONCE: usize = 8;

pub(crate) fn job(proxy: &LlmProxy) -> Job {
    let proxy = proxy.clone();
    Job::new(
        "token-refresh",
        "Token refresh",
        "Renews access tokens of provider credentials that end within 15 minutes, and asks providers again \
         about credentials that they refused",
        proxy.pool_config.refresh_interval,
        Duration::from_secs(280),
        move |context| {
            let proxy = proxy.clone();
            async move { proxy.refresh_tokens(&context).await.map_err(JobError::Retry) }
        },
    )
}

impl LlmProxy {
    async fn refresh_tokens(&self, context: &JobContext) -> Result<JobReport> {
        let ending = store::ending(&self.pool, self.clock.now() + AHEAD).await?;
        let members = ending.into_iter().filter_map(|id| self.stored_credential(id));
        let renewals = members.map(|(_, member)| async move {
            match self.keeper.renew(&member, AHEAD).await {
                Ok(_) => 1,
                Err(error) => {
                    tracing::warn!(credential = member.name, %error, "its token was not renewed");
                    0
                }
            }
        });
        let renewed = stream::iter(renewals).buffer_unordered(AT_ONCE);
        let renewed = renewed.take_until(context.cancel.cancelled()).fold(0, async |a, b| a + b);
        let renewed: u64 = renewed.await;
        let recovered = self.ask_refused_again(context).await?;
        Ok(JobReport { items_handled: renewed + recovered })
    }

    /// Providers refuse for a while, too: when a bill is not paid, or by their own mistake.
    async fn ask_refused_again(&self, context: &JobContext) -> Result<u64> {
        let mut recovered = 0;
        for row in store::read(&self.pool, None).await? {
            if row.disabled_by.as_deref() != Some("provider") || context.cancel.is_cancelled() {
                continue;
            }
            let Some((provider, member)) = self.stored_credential(row.id) else { continue };
            if self.test(&provider, &member).await.ok
                && store::enable(&self.pool, row.id, self.clock.now()).await?
            {
                tracing::info!(credential = row.name, "the provider takes this credential again");
                // Here at once; the others hear of it.
                self.read_credential(row.id).await?;
                recovered += 1;
            }
        }
        Ok(recovered)
    }

    pub(crate) fn stored_credential(
        &self,
        id: loom_core::id::CredentialId,
    ) -> Option<(Arc<Provider>, Arc<Member>)> {
        self.providers.iter().find_map(|provider| {
            provider.pool.stored_one(id).map(|member| (Arc::clone(provider), member))
        })
    }
}
