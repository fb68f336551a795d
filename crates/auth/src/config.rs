//! Settings of authentication.

use loom_core::config::Env;

#[derive(Clone, Debug)]
pub struct Config {
    /// Requests from this machine without a credential act as the built-in development user.
    pub dev_mode: bool,
}

impl Config {
    pub fn load(env: &mut Env, production: bool) -> Self {
        let name = "LOOM_SERVER_AUTH_DEV_MODE";
        let dev_mode = env.flag(name, false);
        if dev_mode && production {
            env.problem(
                name,
                "must be false when LOOM_SERVER_ENV is production: it lets everybody on this machine in as an admin",
            );
        }
        Self { dev_mode }
    }
}
