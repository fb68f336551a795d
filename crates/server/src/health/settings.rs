//! When a part counts as not well, where operators may want it otherwise; and the configuration itself
//! as a component.

use std::time::Duration;

use loom_core::{
    config::Env,
    health::{Check, Component, Status},
};

use crate::config;

#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Free space of the data directory's file system.
    pub disk_free_percent: u8,
    pub disk_free_mib: u64,
    pub memory_percent: u8,
    pub transaction: Duration,
}

impl Config {
    pub(crate) fn load(env: &mut Env) -> Self {
        Self {
            disk_free_percent: env.number("LOOM_SERVER_HEALTH_DISK_FREE_PERCENT", 10, 0, 99),
            disk_free_mib: env.number("LOOM_SERVER_HEALTH_DISK_FREE_MIB", 1024, 0, 1 << 40),
            memory_percent: env.number("LOOM_SERVER_HEALTH_MEMORY_PERCENT", 90, 1, 100),
            transaction: env.secs("LOOM_SERVER_HEALTH_TRANSACTION_SECS", 300, 1, 86_400),
        }
    }
}

/// What is allowed and yet unwise. It does not change while the server runs.
pub fn configuration(config: &config::Config) -> Check {
    let component = judge(config);
    Check::new("configuration", move || {
        let component = component.clone();
        async move { component }
    })
}

pub(crate) fn judge(config: &config::Config) -> Component {
    let http = &config.http;
    let mut found = Vec::new();
    let local = ["http://localhost", "http://127.", "http://[::1]"];
    let is_local = local.iter().any(|local| http.base_url.starts_with(local));
    if config.production && is_local {
        found.push("LOOM_SERVER_BASE_URL names this machine itself: links in mails lead nowhere");
    } else if config.production && http.base_url.starts_with("http://") {
        found.push("LOOM_SERVER_BASE_URL is not https: cookies and keys travel in the clear");
    }
    if config.auth.dev_mode && !http.host.is_loopback() {
        found.push("development mode is on, on an address that others reach");
    }
    if found.is_empty() {
        return Component::new(Status::Healthy);
    }
    Component::new(Status::Degraded)
        .error("the configuration is allowed and unwise")
        .code("CONFIG_UNWISE", "Change the settings that the detail names, and restart the server.")
        .detail(found.join("; "))
}
