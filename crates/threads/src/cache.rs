//! Whole threads as they were sent last. An entry is the answer for one version, and each reader asks the
//! database for the version first: nothing that is out of date can be given out, on any server.

use std::sync::Arc;

use bytes::Bytes;
use loom_core::id::ThreadId;
use metrics::{counter, gauge};
use moka::future::Cache;

#[derive(Clone)]
pub(crate) struct ThreadCache(Option<Cache<ThreadId, Arc<Entry>>>);

struct Entry {
    version: i64,
    body: Bytes,
}

impl ThreadCache {
    /// Of this many bytes; 0 keeps nothing.
    pub(crate) fn new(bytes: u64) -> Self {
        let cache = (bytes > 0).then(|| {
            Cache::builder()
                .max_capacity(bytes)
                .weigher(|_, entry: &Arc<Entry>| {
                    u32::try_from(entry.body.len() + size_of::<Entry>() + 128).unwrap_or(u32::MAX)
                })
                .build()
        });
        Self(cache)
    }

    pub(crate) async fn get(&self, id: ThreadId, version: i64) -> Option<Bytes> {
        let entry = self.0.as_ref()?.get(&id).await.filter(|entry| entry.version == version);
        let result = if entry.is_some() { "hit" } else { "miss" };
        counter!("loom_thread_cache_requests_total", "result" => result).increment(1);
        entry.map(|entry| entry.body.clone())
    }

    pub(crate) async fn put(&self, id: ThreadId, version: i64, body: Bytes) {
        if let Some(cache) = &self.0 {
            cache.insert(id, Arc::new(Entry { version, body })).await;
            // What was inserted is weighed in later else.
            cache.run_pending_tasks().await;
            gauge!("loom_thread_cache_bytes").set(cache.weighted_size() as f64);
        }
    }

    pub(crate) async fn forget(&self, id: ThreadId) {
        if let Some(cache) = &self.0 {
            cache.invalidate(&id).await;
        }
    }
}
