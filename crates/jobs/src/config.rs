//! Settings of the scheduler.

use std::time::Duration;

use loom_core::config::Env;

#[derive(Clone, Debug)]
pub struct Config {
    /// How long a run belongs to its server without a word from it.
    pub lease: Duration,
}

impl Config {
    pub fn load(env: &mut Env) -> Self {
        Self { lease: env.secs("LOOM_SERVER_JOBS_LEASE_SECS", 30, 3, 600) }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { lease: Duration::from_secs(30) }
    }
}
