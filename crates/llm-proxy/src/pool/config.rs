//! Settings of the credential pool.

use std::time::Duration;

use loom_core::config::Env;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// A credential that got a 429 without a time in it rests so long.
    pub(crate) cooldown: Duration,
    /// One whose quota is used up rests so long.
    pub(crate) quota_cooldown: Duration,
    /// So many failures in a row open a credential's circuit …
    pub(crate) circuit_failures: u32,
    /// … for so long; then one request tries again.
    pub(crate) circuit_open: Duration,
    /// Between two looks for tokens that end soon.
    pub(crate) refresh_interval: Duration,
}

impl Config {
    pub(crate) fn load(env: &mut Env) -> Self {
        Self {
            cooldown: env.secs("LOOM_SERVER_LLM_COOLDOWN_SECS", 60, 1, 86_400),
            quota_cooldown: env.secs("LOOM_SERVER_LLM_QUOTA_COOLDOWN_SECS", 3_600, 1, 604_800),
            circuit_failures: env.number("LOOM_SERVER_LLM_CIRCUIT_FAILURES", 5, 1, 1_000),
            circuit_open: env.secs("LOOM_SERVER_LLM_CIRCUIT_OPEN_SECS", 10, 1, 3_600),
            refresh_interval: env.secs(
                "LOOM_SERVER_LLM_TOKEN_REFRESH_INTERVAL_SECS",
                300,
                10,
                3_600,
            ),
        }
    }
}
