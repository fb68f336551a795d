//! Full-text search: what is looked for in a thread, and how it is found and shown.

pub(crate) mod content;
pub(crate) mod fold;
pub(crate) mod lexemes;
pub(crate) mod page;
pub(crate) mod query;
pub(crate) mod rank;
pub(crate) mod snippet;
pub(crate) mod text;
pub(crate) mod typo;

use loom_core::config::Env;
use tokio::sync::Semaphore;

/// Raised when text is taken apart in another way: the threads are then indexed anew, by and by.
pub(crate) const PREPARATION: i16 = 1;
/// Of the text of a message, so many characters can be found.
pub(crate) const MAX_TEXT: usize = 200_000;
/// The newest matches that are ranked.
pub(crate) const MAX_CANDIDATES: i64 = 2_000;

#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Searches under way at once.
    concurrency: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { concurrency: 4 }
    }
}

impl Config {
    pub(crate) fn load(env: &mut Env) -> Self {
        Self { concurrency: env.number("LOOM_SERVER_THREADS_SEARCHES", 4, 1, 100) }
    }

    /// What lets searches in, so that they leave connections to others.
    pub(crate) fn gate(self) -> Semaphore {
        Semaphore::new(self.concurrency)
    }
}
