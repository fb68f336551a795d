//! Settings of authentication.

use loom_core::config::Env;

use crate::sign_in::SignInConfig;

#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Requests from this machine without a credential act as the built-in development user.
    pub dev_mode: bool,
    /// The URL under which users reach this server, without a slash at its end.
    pub base_url: String,
    /// Whether mail reaches people: by SMTP, or in development by the outbox.
    pub mail: bool,
    pub sign_in: SignInConfig,
}

impl Config {
    pub fn load(env: &mut Env, production: bool, base_url: &str) -> Self {
        let name = "LOOM_SERVER_AUTH_DEV_MODE";
        let dev_mode = env.flag(name, false);
        if dev_mode && production {
            env.problem(
                name,
                "must be false when LOOM_SERVER_ENV is production: it lets everybody on this machine in as an admin",
            );
        }
        Self {
            dev_mode,
            base_url: base_url.to_owned(),
            mail: !production,
            sign_in: SignInConfig::load(env),
        }
    }
}
