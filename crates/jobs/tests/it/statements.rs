//! Counts the statements that are sent from this thread.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tracing::{
    Event, Metadata, Subscriber,
    span::{Attributes, Id, Record},
    subscriber::DefaultGuard,
};

pub(crate) struct Statements {
    seen: Arc<AtomicU64>,
    _guard: DefaultGuard,
}

impl Statements {
    /// Counts until dropped.
    pub(crate) fn count() -> Self {
        let seen = Arc::<AtomicU64>::default();
        let counter = Counter(Arc::clone(&seen));
        Self { seen, _guard: tracing::subscriber::set_default(counter) }
    }

    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }
}

/// sqlx tells of each statement.
struct Counter(Arc<AtomicU64>);

impl Subscriber for Counter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
