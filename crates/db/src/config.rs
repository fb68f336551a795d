//! Where the database is, and how much of it the server may take.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use loom_common_secret::SecretString;
use loom_core::config::Env;

use crate::pool;

const URL: &str = "DATABASE_URL";
const DIRECT_URL: &str = "LOOM_SERVER_DATABASE_DIRECT_URL";

#[derive(Clone, Debug)]
pub struct Config {
    /// None: a private PostgreSQL in `data_dir`.
    pub url: Option<SecretString>,
    /// Past a transaction pooler, for LISTEN and migrations. Only ever set together with `url`.
    pub direct_url: Option<SecretString>,
    pub max_connections: u32,
    pub statement_timeout: Duration,
    /// How long to wait for a database that is not there yet.
    pub wait: Duration,
    /// The directory with `postgres` and `initdb`, when they are not to be searched for.
    pub pg_bin: Option<PathBuf>,
    pub data_dir: PathBuf,
}

impl Config {
    pub fn load(env: &mut Env, data_dir: &Path, production: bool) -> Self {
        let url = postgres_url(env, URL);
        let direct_url = postgres_url(env, DIRECT_URL);
        let config = Self {
            max_connections: env.number("LOOM_SERVER_DATABASE_MAX_CONNECTIONS", 20, 2, 500),
            statement_timeout: env.secs(
                "LOOM_SERVER_DATABASE_STATEMENT_TIMEOUT_SECS",
                30,
                1,
                86_400,
            ),
            wait: env.secs("LOOM_SERVER_DATABASE_WAIT_SECS", 60, 0, 86_400),
            pg_bin: env.path("LOOM_SERVER_PG_BIN"),
            data_dir: data_dir.to_owned(),
            url,
            direct_url,
        };
        let url_is_wrong = env.problems().iter().any(|problem| problem.name.starts_with(URL));
        if config.url.is_none() && !url_is_wrong {
            if production {
                env.problem(
                    URL,
                    "is needed in production: postgres://user:password@host/database \
                     (the private PostgreSQL is for trying out and for small installations)",
                );
            }
            if config.direct_url.is_some() {
                env.problem(DIRECT_URL, format!("goes with {URL}, which is not set"));
            }
        }
        config
    }

    /// What [`pool::connect`] needs to know.
    pub fn limits(&self) -> pool::Limits {
        pool::Limits {
            max_connections: self.max_connections,
            statement_timeout: self.statement_timeout,
            wait: self.wait,
        }
    }
}

fn postgres_url(env: &mut Env, name: &str) -> Option<SecretString> {
    let url = env.secret(name)?;
    if let Err(message) = pool::options(&url) {
        env.problem(name, message);
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(vars: &[(&str, &str)], production: bool) -> (Config, Vec<String>) {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut env = Env::new(vars);
        let config = Config::load(&mut env, Path::new("/data"), production);
        let problems = env.problems().iter().map(ToString::to_string).collect();
        (config, problems)
    }

    #[test]
    fn nothing_set_means_a_private_database_and_the_defaults() {
        let (config, problems) = load(&[], false);
        assert!(problems.is_empty(), "{problems:?}");
        assert!(config.url.is_none());
        assert_eq!(config.max_connections, 20);
        assert_eq!(config.statement_timeout, Duration::from_secs(30));
        assert_eq!(config.wait, Duration::from_secs(60));
    }

    #[test]
    fn production_needs_a_url() {
        let (_, problems) = load(&[], true);
        assert!(matches!(problems.as_slice(), [one] if one.starts_with("DATABASE_URL: is needed")));
        let (_, problems) = load(&[("DATABASE_URL", "postgresql://db/loom")], true);
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn a_url_that_is_none_is_told_once_and_without_its_text() {
        for wrong in ["mysql://u:hunter2@h/d", "hunter2", "postgres://u:hunter2@h:port/d"] {
            let (_, problems) = load(&[("DATABASE_URL", wrong)], true);
            assert_eq!(problems.len(), 1, "{wrong}: {problems:?}");
            assert!(!problems[0].contains("hunter2"), "{problems:?}");
        }
    }

    #[test]
    fn a_direct_url_goes_with_a_url() {
        let direct = ("LOOM_SERVER_DATABASE_DIRECT_URL", "postgres://db/loom");
        let (_, problems) = load(&[direct], false);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let (_, problems) = load(&[direct, ("DATABASE_URL", "postgres://pooler/loom")], false);
        assert!(problems.is_empty(), "{problems:?}");
    }
}
