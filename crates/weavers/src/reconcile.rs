//! Keeps pods as their rows want them, and rows as their pods are. One server of an installation does it at a
//! time; whatever it does can be done twice.

mod act;
mod create;
pub(crate) mod decide;
mod lead;
mod told;

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use loom_core::id::WeaverId;
use tokio::sync::Notify;

pub(crate) use lead::FREE;

/// Weavers that something happened to, for the one who looks after them, if that is this server.
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: Mutex<HashSet<WeaverId>>,
    pub(crate) bell: Notify,
}

impl Inbox {
    pub(crate) fn put(&self, id: WeaverId) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        self.bell.notify_one();
    }

    fn take(&self) -> HashSet<WeaverId> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
