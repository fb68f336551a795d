//! Settings of weavers.

mod cluster;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1::Toleration;
use loom_core::config::Env;

use crate::model::Network;

#[derive(Clone, Debug)]
pub struct Config {
    pub enabled: bool,
    /// Where its pods reach this server, without a slash at the end.
    pub server_url: String,
    pub namespace: String,
    /// Of the cluster; none: the pod's own account, else the user's kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    pub cleanup_interval: Duration,
    pub default_hours: f64,
    pub max_hours: f64,
    pub max_total: i64,
    pub max_per_user: i64,
    pub max_per_org: i64,
    /// Cores of all weavers of one organisation together; none: as many as there are.
    pub max_cpu: Option<i64>,
    pub max_memory_gib: Option<i64>,
    pub ready_timeout: Duration,
    /// What may run: prefixes of images that end at `/`, `:` or `@`, or whole names; empty: all.
    pub images: Vec<String>,
    pub image_pull_secrets: Vec<String>,
    pub runtime_class: Option<String>,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    pub network: Network,
    /// Ranges that `internet` does not reach beside the private ones.
    pub network_except: Vec<String>,
    /// Tries out whether the cluster holds weavers to their class; none: nobody does.
    pub canary_image: Option<String>,
    /// Runs `git clone` before the agent starts; empty: the weaver's own image does.
    pub git_image: Option<String>,
    pub retention_days: i64,
    /// What is kept of each log.
    pub log_mib: i64,
    /// A terminal in which nothing happens for so long is closed.
    pub attach_idle: Duration,
}

impl Config {
    pub fn load(env: &mut Env, base_url: &str) -> Self {
        let max_hours: f64 = env.number("LOOM_SERVER_WEAVER_MAX_TTL_HOURS", 48.0, 0.1, 720.0);
        Self {
            enabled: env.flag("LOOM_SERVER_WEAVER_ENABLED", false),
            server_url: cluster::server_url(env)
                .unwrap_or_else(|| base_url.to_owned())
                .trim_end_matches('/')
                .to_owned(),
            namespace: cluster::namespace(env),
            kubeconfig: env.path("LOOM_SERVER_WEAVER_KUBECONFIG"),
            cleanup_interval: env.secs("LOOM_SERVER_WEAVER_CLEANUP_INTERVAL_SECS", 60, 1, 3600),
            default_hours: env
                .number("LOOM_SERVER_WEAVER_DEFAULT_TTL_HOURS", 4.0_f64, 0.01, 720.0)
                .min(max_hours),
            max_hours,
            max_total: env.number("LOOM_SERVER_WEAVER_MAX_CONCURRENT", 64, 1, 10_000),
            max_per_user: env.number("LOOM_SERVER_WEAVER_MAX_PER_USER", 16, 1, 10_000),
            max_per_org: env.number("LOOM_SERVER_WEAVER_MAX_PER_ORG", 64, 1, 10_000),
            max_cpu: positive(env.number("LOOM_SERVER_WEAVER_MAX_CPU", 0, 0, 1_000_000)),
            max_memory_gib: positive(env.number(
                "LOOM_SERVER_WEAVER_MAX_MEMORY_GIB",
                0,
                0,
                1_000_000,
            )),
            ready_timeout: env.secs("LOOM_SERVER_WEAVER_READY_TIMEOUT_SECS", 60, 1, 3600),
            images: cluster::images(env),
            image_pull_secrets: cluster::pull_secrets(env),
            runtime_class: cluster::runtime_class(env),
            node_selector: cluster::node_selector(env),
            tolerations: cluster::tolerations(env),
            network: env
                .choice(
                    "LOOM_SERVER_WEAVER_NETWORK",
                    "internet",
                    &[Network::Off, Network::LoomOnly, Network::Internet, Network::Open]
                        .map(|network| (network.as_str(), network)),
                )
                .unwrap_or(Network::Internet),
            network_except: cluster::ranges(env),
            canary_image: cluster::one_image(env, "LOOM_SERVER_WEAVER_CANARY_IMAGE"),
            git_image: cluster::one_image(env, "LOOM_SERVER_WEAVER_GIT_IMAGE"),
            retention_days: env.number("LOOM_SERVER_WEAVER_RETENTION_DAYS", 30, 1, 3650),
            log_mib: env.number("LOOM_SERVER_WEAVER_LOG_MIB", 20, 1, 1024),
            attach_idle: env.secs("LOOM_SERVER_WEAVER_ATTACH_IDLE_SECS", 1800, 1, 86_400),
        }
    }
}

fn positive(number: i64) -> Option<i64> {
    (number > 0).then_some(number)
}
