//! Settings of cron monitoring.

use loom_core::config::Env;

#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where what pings reaches this server, without a slash at the end.
    pub base_url: String,
}

impl Config {
    pub fn load(_env: &mut Env, base_url: &str) -> Self {
        Self { base_url: base_url.to_owned() }
    }
}
