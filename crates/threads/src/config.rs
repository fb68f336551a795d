//! Settings of the threads.

use loom_core::config::Env;

use crate::search;

#[derive(Clone, Debug, Default)]
pub struct Config {
    pub(crate) search: search::Config,
}

impl Config {
    pub fn load(env: &mut Env) -> Self {
        Self { search: search::Config::load(env) }
    }
}
