//! Settings of release health.

use loom_core::config::Env;

#[derive(Clone, Debug, Default)]
pub struct Config {}

impl Config {
    pub fn load(_env: &mut Env) -> Self {
        Self {}
    }
}
