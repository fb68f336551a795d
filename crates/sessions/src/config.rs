//! Settings of release health.

use std::time::Duration;

use chrono::TimeDelta;
use loom_core::config::Env;

#[derive(Clone, Debug)]
pub struct Config {
    /// Where people reach this server: links to the dashboard begin with it.
    pub(crate) base_url: String,
    /// How long single sessions are kept.
    pub(crate) retention: TimeDelta,
    /// The share of sessions that is kept, beside all that crashed.
    pub(crate) sample_rate: f64,
    pub(crate) aggregation_interval: Duration,
    /// Releases and environments, in pairs, that may be new to a project in a day; more are `(other)`.
    pub(crate) new_names_per_day: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            retention: TimeDelta::days(30),
            sample_rate: 1.0,
            aggregation_interval: Duration::from_secs(3600),
            new_names_per_day: 1000,
        }
    }
}

impl Config {
    pub fn load(env: &mut Env, base_url: &str) -> Self {
        // Longer than a session may be updated: sums of what is gone are never made anew.
        let days = env.number("LOOM_SERVER_SESSIONS_RETENTION_DAYS", 30, 7, 3650);
        Self {
            base_url: base_url.to_owned(),
            retention: TimeDelta::days(days),
            sample_rate: env.number("LOOM_SERVER_SESSIONS_SAMPLE_RATE", 1.0, 0.0001, 1.0),
            aggregation_interval: env.secs(
                "LOOM_SERVER_SESSIONS_AGGREGATION_INTERVAL_SECS",
                3600,
                60,
                3600,
            ),
            new_names_per_day: env.number(
                "LOOM_SERVER_SESSIONS_NEW_RELEASES_PER_DAY",
                1000,
                1,
                1_000_000,
            ),
        }
    }
}
