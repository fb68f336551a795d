//! Rows kept in memory: those that are there, and for a while those that are not. Whoever loads while
//! something is said to have changed does not keep what it has read.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use loom_core::Result;
use moka::future::Cache;

/// A change is told at once; this is for when the telling got lost.
const MAX_AGE: Duration = Duration::from_secs(30);
const ABSENT_AGE: Duration = Duration::from_secs(10);

pub(super) struct Cached<K, V> {
    there: Cache<K, Arc<V>>,
    /// In a cache of its own: who makes names up drives nobody else's out.
    absent: Cache<K, ()>,
    changes: AtomicU64,
}

impl<K, V> Cached<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(super) fn new(most: u64, most_absent: u64) -> Self {
        Self {
            there: Cache::builder().max_capacity(most).time_to_live(MAX_AGE).build(),
            absent: Cache::builder().max_capacity(most_absent).time_to_live(ABSENT_AGE).build(),
            changes: AtomicU64::new(0),
        }
    }

    pub(super) async fn get<F, L>(&self, key: K, load: L) -> Result<Option<Arc<V>>>
    where
        L: FnOnce(K) -> F,
        F: Future<Output = Result<Option<V>>>,
    {
        if let Some(found) = self.there.get(&key).await {
            return Ok(Some(found));
        }
        if self.absent.contains_key(&key) {
            return Ok(None);
        }
        let before = self.changes.load(Ordering::SeqCst);
        let found = load(key.clone()).await?.map(Arc::new);
        match &found {
            Some(value) => self.there.insert(key.clone(), Arc::clone(value)).await,
            None => self.absent.insert(key.clone(), ()).await,
        }
        if self.changes.load(Ordering::SeqCst) != before {
            self.there.invalidate(&key).await;
            self.absent.invalidate(&key).await;
        }
        Ok(found)
    }

    pub(super) fn forget(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.there.invalidate_all();
        self.absent.invalidate_all();
    }
}
