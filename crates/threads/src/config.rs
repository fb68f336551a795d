//! Settings of the threads.

use loom_core::config::Env;

use crate::search;

#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where users reach this server, without a slash at the end: links begin with it.
    pub base_url: String,
    /// Of whole threads that are kept at hand; 0 is off.
    pub cache_bytes: u64,
    pub(crate) search: search::Config,
}

impl Config {
    pub fn load(env: &mut Env, base_url: &str) -> Self {
        let cache_bytes = env.number("LOOM_SERVER_THREADS_CACHE_BYTES", 32 << 20, 0, 64_u64 << 30);
        let search = search::Config::load(env);
        Self { base_url: base_url.to_owned(), cache_bytes, search }
    }
}
