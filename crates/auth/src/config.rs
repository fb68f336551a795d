//! Settings of authentication.

use loom_core::config::Env;

use crate::sign_in::SignInConfig;

#[derive(Clone, Debug)]
pub struct Config {
    /// Requests from this machine without a credential act as the built-in development user.
    pub dev_mode: bool,
    /// The URL under which users reach this server, without a slash at its end.
    pub base_url: String,
    /// Whole months of the audit log that are older are dropped.
    pub audit_retention_days: u32,
    /// What one network may ask of `/auth` in a minute.
    pub requests_per_minute: u32,
    /// Whether mail reaches people: by SMTP, or in development by the outbox.
    pub mail: bool,
    pub sign_in: SignInConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dev_mode: false,
            base_url: String::new(),
            audit_retention_days: 400,
            requests_per_minute: 600,
            mail: false,
            sign_in: SignInConfig::default(),
        }
    }
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
        let usual = Self::default();
        Self {
            dev_mode,
            base_url: base_url.to_owned(),
            audit_retention_days: env.number(
                "LOOM_SERVER_AUDIT_RETENTION_DAYS",
                usual.audit_retention_days,
                1,
                36_500,
            ),
            requests_per_minute: env.number(
                "LOOM_SERVER_AUTH_REQUESTS_PER_MINUTE",
                usual.requests_per_minute,
                1,
                1_000_000,
            ),
            mail: !production,
            sign_in: SignInConfig::load(env),
        }
    }
}
