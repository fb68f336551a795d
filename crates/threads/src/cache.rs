//! Whole threads as they were sent last. An entry is the answer for one version, and each reader asks the
//! database for the version first: nothing that is out of date can be given out, on any server.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use loom_core::id::ThreadId;
use metrics::{counter, gauge};
use moka::future::Cache;

use crate::model::ThreadHead;

#[derive(Clone)]
pub(crate) struct ThreadCache(Option<Cache<ThreadId, Arc<Entry>>>);

struct Entry {
    version: i64,
    /// A thread may be purged and its id made anew, and that one has the same versions again.
    updated_at: DateTime<Utc>,
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

    pub(crate) async fn get(&self, head: &ThreadHead) -> Option<Bytes> {
        let of = (head.version, head.updated_at);
        let entry = self.0.as_ref()?.get(&head.id).await;
        let entry = entry.filter(|entry| (entry.version, entry.updated_at) == of);
        let result = if entry.is_some() { "hit" } else { "miss" };
        counter!("loom_thread_cache_requests_total", "result" => result).increment(1);
        entry.map(|entry| entry.body.clone())
    }

    pub(crate) async fn put(&self, head: &ThreadHead, body: Bytes) {
        if let Some(cache) = &self.0 {
            let entry = Entry { version: head.version, updated_at: head.updated_at, body };
            cache.insert(head.id, Arc::new(entry)).await;
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
