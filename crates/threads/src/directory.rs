//! Threads for other features: by commits, by trace, by id; only those that the viewer may see.

use std::collections::HashMap;

use loom_core::{
    Principal, Result,
    id::ThreadId,
    port::{BoxFuture, ThreadDirectory, ThreadRef},
};

use crate::{Threads, store};

impl ThreadDirectory for Threads {
    fn with_commits<'a>(
        &'a self,
        viewer: &'a Principal,
        commits: &'a [String],
    ) -> BoxFuture<'a, Result<HashMap<String, Vec<ThreadRef>>>> {
        Box::pin(async move {
            let mut found: HashMap<String, Vec<ThreadRef>> = HashMap::new();
            for (commit, thread) in store::refs::with_commits(&self.pool, viewer, commits).await? {
                found.entry(commit).or_default().push(thread);
            }
            Ok(found)
        })
    }

    fn of_trace<'a>(
        &'a self,
        viewer: &'a Principal,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ThreadRef>>> {
        Box::pin(async move { store::refs::of_trace(&self.pool, viewer, trace_id).await })
    }

    fn by_ids<'a>(
        &'a self,
        viewer: &'a Principal,
        ids: &'a [ThreadId],
    ) -> BoxFuture<'a, Result<Vec<ThreadRef>>> {
        Box::pin(async move { store::refs::by_ids(&self.pool, viewer, ids).await })
    }
}
