//! What is kept in memory of the organisations, and read again when another replica says that it has
//! changed.

use std::{future::Future, time::Duration};

use loom_core::{Result, id::OrgId};
use loom_db::{Signal, Subscription};
use sqlx::PgPool;

/// Before what could not be read is read again.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads what words on the channel are about that are `word` and an organisation's id; all of it when words
/// may have been missed. Tried until it can be read: what was changed must not stay in force here. Ends with
/// the pool.
pub(crate) async fn follow<F>(
    mut heard: Subscription,
    pool: &PgPool,
    word: &'static str,
    read: impl Fn(Option<OrgId>) -> F,
) where
    F: Future<Output = Result<()>>,
{
    while let Some(signal) = heard.next().await {
        let org = match &signal {
            Signal::ReadAgain => None,
            Signal::Said(said) => match said.split_once(' ') {
                Some((said, org)) if said == word => org.parse().ok(),
                _ => continue,
            },
        };
        while let Err(error) = read(org).await {
            if pool.is_closed() {
                return;
            }
            tracing::warn!(?error, "the {word} of organisations could not be read; trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
