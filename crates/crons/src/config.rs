//! Settings of cron monitoring.

use loom_core::config::Env;

#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where what pings reaches this server, without a slash at the end.
    pub base_url: String,
    /// Bytes of output that are kept of a run.
    pub body_limit: usize,
    pub retention_days: u32,
    /// Of one organisation.
    pub max_monitors: i64,
}

impl Config {
    pub fn load(env: &mut Env, base_url: &str) -> Self {
        Self {
            base_url: base_url.to_owned(),
            body_limit: env.number("LOOM_SERVER_CRONS_BODY_LIMIT", 10_000, 1, 100_000),
            retention_days: env.number("LOOM_SERVER_CRONS_RETENTION_DAYS", 90, 1, 3650),
            max_monitors: env.number("LOOM_SERVER_CRONS_MAX_MONITORS", 10_000, 1, 10_000_000),
        }
    }
}
