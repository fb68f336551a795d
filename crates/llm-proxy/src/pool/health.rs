//! In what state the credentials are: for `/health`, the metrics and the admins.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError, atomic::Ordering},
};

use chrono::{DateTime, Utc};
use loom_core::{
    health::{Component, Status},
    telemetry::Metric,
};
use metrics::gauge;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{Pool, Who, member::Standing};
use crate::LlmProxy;

/// The metrics of the credentials.
pub const METRICS: &[Metric] = &[
    Metric::gauge(
        "loom_llm_credential_state",
        "1 for the state that a provider's credential is in, on this replica, 0 for the others.",
        &["provider", "credential", "state"],
    ),
    Metric::gauge(
        "loom_llm_credential_requests_in_flight",
        "Requests that use a provider's credential now, on this replica.",
        &["provider", "credential"],
    ),
];

/// How many credentials are in which state.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Counts {
    available: usize,
    cooling_down: usize,
    circuit_open: usize,
    disabled: usize,
}

impl Counts {
    pub(crate) fn of(pool: &Pool, now: DateTime<Utc>) -> Self {
        let mut counts = Self::default();
        for member in pool.members().iter().filter(|member| member.who != Who::Keyless) {
            match member.state().standing(now) {
                Standing::Available => counts.available += 1,
                Standing::Cooling(_) => counts.cooling_down += 1,
                Standing::Open(_) => counts.circuit_open += 1,
                Standing::Disabled => counts.disabled += 1,
            }
        }
        counts
    }

    fn all(self) -> usize {
        self.available + self.cooling_down + self.circuit_open + self.disabled
    }
}

/// The credentials whose gauges stand: those of one that is deleted must not stay.
#[derive(Default)]
pub(crate) struct Measured(Mutex<HashSet<(String, String)>>);

impl LlmProxy {
    pub(crate) fn component(&self) -> Component {
        self.measure_credentials();
        let now = self.clock.now();
        let mut worst = Status::Disabled;
        let mut facts = serde_json::Map::new();
        let (mut failing, mut out, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for provider in self.providers.iter() {
            let counts = Counts::of(&provider.pool, now);
            let none = counts.all() > 0 && counts.available == 0;
            let is_failing = provider.failing.load(Ordering::Relaxed);
            let status = if !provider.is_configured() {
                Status::Disabled
            } else if is_failing || none || counts.disabled_by_others(&provider.pool) {
                Status::Degraded
            } else {
                Status::Healthy
            };
            worst = worst.max(status);
            if status == Status::Degraded {
                let list = match (none, is_failing) {
                    (true, _) => &mut out,
                    (false, true) => &mut failing,
                    (false, false) => &mut refused,
                };
                list.push(provider.name.to_string());
            }
            let fact =
                json!({"status": status, "credentials": counts.all(), "credential_states": counts});
            facts.insert(provider.name.to_string(), fact);
        }
        let component = Component::new(worst).with("providers", facts);
        if !out.is_empty() {
            component
                .error("a provider has no credential that can be used now")
                .code(
                    "LLM_CREDENTIALS_UNAVAILABLE",
                    "All of its credentials are disabled, cool down after a 429, or failed several times in a \
                     row: /api/admin/llm/providers/{provider}/credentials tells of each its state, the reason, \
                     and how long it takes. Enable or renew those that are disabled, add one to share the load.",
                )
                .detail(out.join(", "))
        } else if !failing.is_empty() {
            component
                .error("the last request to a provider got no sound answer")
                .code(
                    "LLM_PROVIDER_FAILING",
                    "`loom-server llm credential test` asks each provider with each key and tells what \
                     it answers; the provider's status page tells the rest. One sound answer makes this \
                     healthy again.",
                )
                .detail(failing.join(", "))
        } else if !refused.is_empty() {
            component
                .error("a provider refuses one of its credentials; the others are in use")
                .code(
                    "LLM_CREDENTIAL_REFUSED",
                    "/api/admin/llm/providers/{provider}/credentials tells which, and the reason. Give it a new \
                     secret, enable it again, or delete it; one that an admin disabled is not told of here.",
                )
                .detail(refused.join(", "))
        } else {
            component
        }
    }

    fn measure_credentials(&self) {
        let now = self.clock.now();
        let mut standing = HashSet::new();
        for provider in self.providers.iter() {
            for member in provider.pool.members().iter().filter(|m| m.who != Who::Keyless) {
                let state = member.state().standing(now).name();
                let in_flight = member.in_flight.load(Ordering::Relaxed);
                set(&provider.name, &member.name, Some(state), in_flight);
                standing.insert((provider.name.to_string(), member.name.clone()));
            }
        }
        let mut before = self.measured.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (provider, name) in before.difference(&standing) {
            set(provider, name, None, 0);
        }
        *before = standing;
    }
}

fn set(provider: &str, name: &str, state: Option<&str>, in_flight: u32) {
    for possible in Standing::NAMES {
        gauge!("loom_llm_credential_state", "provider" => provider.to_owned(), "credential" => name.to_owned(), "state" => possible)
            .set(if state == Some(possible) { 1.0 } else { 0.0 });
    }
    gauge!("loom_llm_credential_requests_in_flight", "provider" => provider.to_owned(), "credential" => name.to_owned())
        .set(in_flight);
}

impl Counts {
    /// Is one disabled that no admin disabled?
    fn disabled_by_others(self, pool: &Pool) -> bool {
        self.disabled > 0
            && pool.members().iter().any(|member| {
                let state = member.state();
                state.disabled.is_some() && !state.by_admin
            })
    }
}
