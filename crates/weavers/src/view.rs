//! Weavers as they are shown.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use loom_core::{
    clock::{millis, millis_option},
    id::{OrgId, UserId, WeaverId},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    model::{Event, Network, Row, Status},
    quantity,
};

/// A weaver.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct WeaverView {
    pub(crate) id: WeaverId,
    org_id: OrgId,
    /// Null when a service key made it.
    owner_user_id: Option<UserId>,
    pod_name: String,
    /// The node that it runs on.
    node: Option<String>,
    #[schema(inline)]
    pub(crate) status: Status,
    /// A stable word for why it is as it is, as `image_pull` or `out_of_memory`.
    reason_code: Option<String>,
    /// The same in plain words. While it is pending: what it waits for.
    reason: Option<String>,
    /// Of its process, once that has ended.
    exit_code: Option<i32>,
    restarts: i32,
    image: String,
    command: Vec<String>,
    args: Vec<String>,
    /// Without the values that are sealed.
    env: BTreeMap<String, String>,
    /// The names of those.
    sealed_env: Vec<String>,
    workdir: Option<String>,
    repo: Option<String>,
    branch: Option<String>,
    tags: BTreeMap<String, String>,
    resources: ResourcesView,
    #[schema(inline)]
    network: Network,
    /// What its token may be used for.
    scopes: Vec<String>,
    lifetime_hours: f64,
    age_hours: f64,
    idle_timeout_secs: Option<i32>,
    /// US dollars spent on models until now.
    llm_cost_usd: f64,
    budget_usd: Option<f64>,
    #[serde(serialize_with = "millis")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "millis_option")]
    started_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "millis_option")]
    ready_at: Option<DateTime<Utc>>,
    /// When nothing was left of it in the cluster.
    #[serde(serialize_with = "millis_option")]
    ended_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "millis")]
    expires_at: DateTime<Utc>,
    /// Counts its changes.
    version: i64,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = WeaverResourcesView)]
struct ResourcesView {
    cpu: String,
    memory: String,
    ephemeral_storage: String,
}

/// A page of weavers, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WeaverPage {
    pub(crate) weavers: Vec<WeaverView>,
    /// Null at the end.
    pub(crate) next_cursor: Option<String>,
}

/// What happened to a weaver, in order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WeaverTimeline)]
pub(crate) struct Timeline {
    weaver_id: WeaverId,
    #[schema(inline)]
    status: Status,
    events: Vec<Step>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WeaverStep)]
struct Step {
    #[serde(flatten)]
    event: Event,
    /// Until the next phase, or until now while it lasts.
    duration_ms: Option<i64>,
}

pub(crate) fn usd(nano: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 in any sum that is shown")]
    let nano = nano as f64;
    nano / 1e9
}

impl WeaverView {
    pub(crate) fn of(row: Row, spent_nanousd: i64, now: DateTime<Utc>) -> Self {
        let until = row.ended_at.unwrap_or(now);
        #[expect(clippy::cast_precision_loss, reason = "some days")]
        let age_hours = (until - row.created_at).num_milliseconds().max(0) as f64 / 3_600_000.0;
        let waits_for = row.trouble.filter(|_| row.reason.is_none());
        let (code, words) = waits_for.map(|trouble| (trouble.code, trouble.message)).unzip();
        let spec = row.spec;
        Self {
            id: row.id,
            org_id: row.org_id,
            owner_user_id: row.owner_id,
            pod_name: row.pod_name,
            node: row.node,
            status: row.status,
            reason_code: row.reason_code.or(code),
            reason: row.reason.or(words),
            exit_code: row.exit_code,
            restarts: row.restarts,
            image: spec.image,
            command: spec.command,
            args: spec.args,
            env: spec.env,
            sealed_env: spec.sealed,
            workdir: spec.workdir,
            repo: spec.repo,
            branch: spec.branch,
            tags: row.tags,
            resources: ResourcesView {
                cpu: quantity::cores(row.cpu_millis),
                memory: quantity::bytes(row.memory_bytes),
                ephemeral_storage: quantity::bytes(row.ephemeral_bytes),
            },
            network: row.network,
            scopes: spec.scopes,
            lifetime_hours: spec.lifetime_hours,
            age_hours,
            idle_timeout_secs: row.idle_timeout_secs,
            llm_cost_usd: usd(spent_nanousd),
            budget_usd: row.budget_nanousd.map(usd),
            created_at: row.created_at,
            started_at: row.started_at,
            ready_at: row.ready_at,
            ended_at: row.ended_at,
            expires_at: row.expires_at,
            version: row.version,
        }
    }
}

impl Timeline {
    pub(crate) fn of(row: &Row, events: Vec<Event>, now: DateTime<Utc>) -> Self {
        let is_phase = |event: &Event| event.phase != "warning";
        let starts: Vec<DateTime<Utc>> =
            events.iter().filter(|event| is_phase(event)).map(|event| event.at).collect();
        let mut next = starts.into_iter().skip(1).chain(row.ended_at.is_none().then_some(now));
        let steps = events.into_iter().map(|event| {
            let until = if is_phase(&event) { next.next() } else { None };
            let duration_ms = until.map(|until| (until - event.at).num_milliseconds().max(0));
            Step { event, duration_ms }
        });
        Self { weaver_id: row.id, status: row.status, events: steps.collect() }
    }
}
