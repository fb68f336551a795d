//! Settings of the threads.

use loom_core::config::Env;

#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where users reach this server, without a slash at the end: links begin with it.
    pub base_url: String,
}

impl Config {
    pub fn load(_env: &mut Env, base_url: &str) -> Self {
        Self { base_url: base_url.to_owned() }
    }
}
