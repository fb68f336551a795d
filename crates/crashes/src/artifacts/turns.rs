//! Turns at sending files: few at a time, and no organisation has so many that others wait for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use loom_core::{Error, Result, id::OrgId};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// For how long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(30);
/// Whoever had none may come back then.
const AGAIN: Duration = Duration::from_secs(10);

pub(crate) struct Turns {
    what: &'static str,
    /// Of one organisation.
    share: usize,
    all: Arc<Semaphore>,
    shares: Mutex<HashMap<OrgId, Arc<Semaphore>>>,
}

/// It is over when this is dropped.
pub(crate) struct Turn {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Turns {
    pub(crate) fn new(what: &'static str, all: usize, share: usize) -> Self {
        Self { what, share, all: Arc::new(Semaphore::new(all)), shares: Mutex::default() }
    }

    /// # Errors
    /// 429 when there is none for a while.
    pub(crate) async fn take(&self, org: OrgId) -> Result<Turn> {
        let deadline = Instant::now() + PATIENCE;
        let wait = |slots: Arc<Semaphore>| async move {
            match timeout_at(deadline, slots.acquire_owned()).await {
                Ok(permit) => permit.map_err(Error::internal),
                Err(_) => Err(Error::overloaded(self.what).retry_after(AGAIN)),
            }
        };
        // Who has no share waits for none of all.
        let own = wait(self.share_of(org)).await?;
        let of_all = wait(Arc::clone(&self.all)).await?;
        Ok(Turn { _own: own, _of_all: of_all })
    }

    fn share_of(&self, org: OrgId) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds or waits for.
        shares.retain(|_, share| Arc::strong_count(share) > 1);
        Arc::clone(shares.entry(org).or_insert_with(|| Arc::new(Semaphore::new(self.share))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_organisation_leaves_turns_to_the_others() {
        let turns = Turns::new("the upload", 4, 2);
        let [one, other] = [OrgId(uuid::Uuid::from_u128(1)), OrgId(uuid::Uuid::from_u128(2))];
        let held = (turns.take(one).await.unwrap(), turns.take(one).await.unwrap());
        let refused = turns.take(one).await.err().unwrap();
        assert_eq!((refused.status().as_u16(), refused.code()), (429, "overloaded"));
        let theirs = (turns.take(other).await.unwrap(), turns.take(other).await.unwrap());
        drop(held);
        let again = turns.take(one).await.unwrap();
        drop((again, theirs));
        assert_eq!(turns.share_of(one).available_permits(), 2);
        assert_eq!(turns.shares.lock().unwrap().len(), 1);
    }
}
