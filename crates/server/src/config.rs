//! The whole configuration: environment over `.env` over defaults, composed of each crate's own.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use http::HeaderValue;
use loom_common_secret::SecretString;
use loom_core::config::{Env, Problem, Setting};
use reqwest::Url;

use crate::client_address::Proxies;

/// Where the data is kept when nothing else is said; as root it is `/var/lib/loom`, because the
/// private PostgreSQL runs as another user and must be able to enter.
const DATA_DIR: &str = "./.loom";
const DATA_DIR_AS_ROOT: &str = "/var/lib/loom";

#[derive(Clone, Debug)]
pub struct Config {
    pub http: Http,
    pub log: Log,
    pub production: bool,
    pub health: crate::health::Config,
    /// Errors of the server become events of its own project.
    pub self_monitoring: bool,
    pub otlp: crate::otlp::Config,
    pub data_dir: PathBuf,
    pub database: loom_db::Config,
    pub vault: loom_vault::Config,
    pub auth: loom_auth::Config,
    pub llm: loom_llm_proxy::Config,
    pub notify: loom_notify::Config,
    pub threads: loom_threads::Config,
    pub scm: loom_scm::Config,
    pub ingest: loom_ingest::Config,
    pub crashes: loom_crashes::Config,
    pub crons: loom_crons::Config,
    pub sessions: loom_sessions::Config,
    pub weavers: loom_weavers::Config,
    pub jobs: loom_jobs::Config,
    pub logs: loom_logs::Config,
    /// Every secret of the environment, to be masked wherever it turns up.
    pub secrets: Vec<SecretString>,
}

impl Config {
    /// With the port that the system chose, where the URL for users was left to follow it.
    pub(crate) fn reached_at(mut self, port: u16) -> Self {
        if self.http.base_url == "http://localhost:0" {
            self.http.base_url = format!("http://localhost:{port}");
            self.auth.base_url.clone_from(&self.http.base_url);
            self.threads.base_url.clone_from(&self.http.base_url);
            self.crashes.base_url.clone_from(&self.http.base_url);
            self.crons.base_url.clone_from(&self.http.base_url);
            if self.weavers.server_url == "http://localhost:0" {
                self.weavers.server_url.clone_from(&self.http.base_url);
            }
        }
        self
    }
}

#[derive(Clone, Debug)]
pub struct Http {
    pub host: IpAddr,
    pub port: u16,
    /// Without a slash at its end.
    pub base_url: String,
    pub cors: Cors,
    pub request_timeout: Duration,
    /// Between being told to end and the end of accepting.
    pub shutdown_delay: Duration,
    pub shutdown_grace: Duration,
    pub max_connections: usize,
    pub proxies: Proxies,
}

#[derive(Clone, Debug)]
pub enum Cors {
    Any,
    /// May be empty: then no page of another origin gets in.
    Listed(Vec<HeaderValue>),
}

#[derive(Clone, Debug)]
pub struct Log {
    /// In the form of `RUST_LOG`.
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Pretty,
    Json,
}

/// The configuration, or everything that is wrong with it.
pub struct Loaded {
    pub config: Config,
    pub settings: Vec<Setting>,
    pub problems: Vec<Problem>,
    /// Variables that look like ours and that nothing reads.
    pub unknown: Vec<String>,
}

/// How the start is asked for on the command line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overrides {
    /// Development mode on 127.0.0.1 and the built-in provider.
    pub demo: bool,
    pub stdout_is_terminal: bool,
}

/// The variables of the process and of `.env` in the working directory.
///
/// # Errors
/// When there is a `.env` that cannot be read as one.
pub fn variables() -> Result<BTreeMap<String, String>, String> {
    let mut vars = BTreeMap::new();
    match dotenvy::from_path_iter(Path::new(".env")) {
        Ok(pairs) => {
            for pair in pairs {
                let (name, value) = pair.map_err(|error| format!(".env: {error}"))?;
                vars.insert(name, value);
            }
        }
        Err(error) if error.not_found() => {}
        Err(error) => return Err(format!(".env: {error}")),
    }
    // An empty variable is an absent one, also where `.env` has it.
    vars.extend(std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
            .filter(|(_, value)| !value.trim().is_empty())
    }));
    Ok(vars)
}

/// Reads everything; problems are collected, not thrown.
pub fn load(vars: BTreeMap<String, String>, overrides: Overrides) -> Loaded {
    let env = &mut Env::new(vars);
    let production = env
        .choice("LOOM_SERVER_ENV", "development", &[("development", false), ("production", true)])
        .unwrap_or(true);
    let data_dir = {
        let text = env.get("LOOM_SERVER_DATA_DIR", DATA_DIR.to_owned(), "a path");
        let as_root = text == DATA_DIR && nix::unistd::geteuid().is_root();
        PathBuf::from(if as_root { DATA_DIR_AS_ROOT.to_owned() } else { text })
    };
    let mut http = load_http(env, production);
    let log = load_log(env, overrides.stdout_is_terminal);
    let health = crate::health::Config::load(env);
    let otlp = crate::otlp::Config::load(env);
    let self_monitoring = env.flag("LOOM_SERVER_SELF_MONITORING", true);
    let database = loom_db::Config::load(env, &data_dir, production);
    let vault = loom_vault::Config::load(env);
    let mut auth = loom_auth::Config::load(env, production, &http.base_url);
    let mut llm = loom_llm_proxy::Config::load(env);
    let notify = loom_notify::Config::load(env, &data_dir, production, &http.base_url);
    let threads = loom_threads::Config::load(env, &http.base_url);
    let scm = loom_scm::Config::load(env, &data_dir, &http.base_url);
    let ingest = loom_ingest::Config::load(env);
    let crashes = loom_crashes::Config::load(env, &data_dir, &http.base_url);
    let crons = loom_crons::Config::load(env, &http.base_url);
    let sessions = loom_sessions::Config::load(env, &http.base_url);
    let weavers = loom_weavers::Config::load(env, &http.base_url);
    let jobs = loom_jobs::Config::load(env);
    let logs = loom_logs::Config::load(env);
    auth.mail = notify.smtp.is_some() || !production;
    if overrides.demo {
        if production {
            env.problem(
                "LOOM_SERVER_ENV",
                "must not be production with --demo, which lets everybody on this machine in",
            );
        }
        http.host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        auth.dev_mode = true;
        llm.demo = true;
    }
    Loaded {
        settings: env.settings().to_vec(),
        problems: env.problems().to_vec(),
        unknown: env.unknown(&["LOOM_SERVER_"]),
        config: Config {
            http,
            log,
            production,
            health,
            self_monitoring,
            otlp,
            data_dir,
            database,
            vault,
            auth,
            llm,
            notify,
            threads,
            scm,
            ingest,
            crashes,
            crons,
            sessions,
            weavers,
            jobs,
            logs,
            secrets: env.secrets().to_vec(),
        },
    }
}

fn load_http(env: &mut Env, production: bool) -> Http {
    let host = env.get(
        "LOOM_SERVER_HOST",
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "an IP address to listen on",
    );
    let port = env.number("LOOM_SERVER_PORT", 8080, 0, u16::MAX);
    let base = "LOOM_SERVER_BASE_URL";
    let base_url = env.get(
        base,
        format!("http://localhost:{port}"),
        "the URL under which users reach this server",
    );
    if !base_url
        .parse::<Url>()
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    {
        env.problem(base, "must be the http(s) URL under which users reach this server");
    }
    let name = "LOOM_SERVER_CORS_ORIGINS";
    let listed = env.list(name);
    let mut origins = Vec::new();
    for origin in &listed {
        match HeaderValue::from_str(origin) {
            Ok(value) if origin.starts_with("http://") || origin.starts_with("https://") => {
                origins.push(value);
            }
            _ => env
                .problem(name, format!("`{origin}` is not an origin, as https://app.example.com")),
        }
    }
    let cors = if listed.is_empty() && !production { Cors::Any } else { Cors::Listed(origins) };
    Http {
        host,
        port,
        base_url: base_url.trim_end_matches('/').to_owned(),
        cors,
        request_timeout: env.secs("LOOM_SERVER_REQUEST_TIMEOUT_SECS", 30, 1, 3600),
        shutdown_delay: env.secs("LOOM_SERVER_SHUTDOWN_DELAY_SECS", 0, 0, 600),
        shutdown_grace: env.secs("LOOM_SERVER_SHUTDOWN_GRACE_SECS", 30, 0, 3600),
        max_connections: env.number("LOOM_SERVER_MAX_CONNECTIONS", 16_384, 1, 1_000_000),
        proxies: Proxies::load(env),
    }
}

fn load_log(env: &mut Env, stdout_is_terminal: bool) -> Log {
    let level = env
        .choice(
            "LOOM_SERVER_LOG_LEVEL",
            "info",
            &[
                ("error", "error"),
                ("warn", "warn"),
                ("info", "info"),
                ("debug", "debug"),
                ("trace", "trace"),
            ],
        )
        .unwrap_or("info");
    // RUST_LOG is not ours, and wins.
    let filter = env
        .optional::<tracing_subscriber::filter::targets::Targets>(
            "RUST_LOG",
            "a list of filters, as info,loom=debug",
        )
        .map_or_else(|| format!("warn,loom={level}"), |targets| targets.to_string());
    let format = env
        .choice(
            "LOOM_SERVER_LOG_FORMAT",
            "auto",
            &[("auto", None), ("pretty", Some(LogFormat::Pretty)), ("json", Some(LogFormat::Json))],
        )
        .flatten();
    let auto = if stdout_is_terminal { LogFormat::Pretty } else { LogFormat::Json };
    Log { filter, format: format.unwrap_or(auto) }
}
