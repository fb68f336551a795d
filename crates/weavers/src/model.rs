//! Weavers as they are kept and shown.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use loom_core::id::{OrgId, UserId, WeaverId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a weaver stands. The last five are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[schema(as = WeaverStatus)]
pub enum Status {
    Pending,
    Running,
    /// Its pod is being taken down.
    Terminating,
    Succeeded,
    Failed,
    Expired,
    Deleted,
    /// Its pod is gone, and nobody here took it away.
    Lost,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Terminating => "terminating",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Deleted => "deleted",
            Self::Lost => "lost",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        [
            Self::Pending,
            Self::Running,
            Self::Terminating,
            Self::Succeeded,
            Self::Failed,
            Self::Expired,
            Self::Deleted,
            Self::Lost,
        ]
        .into_iter()
        .find(|status| status.as_str() == word)
    }

    pub fn is_over(self) -> bool {
        !matches!(self, Self::Pending | Self::Running | Self::Terminating)
    }
}

/// What a weaver may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "kebab-case")]
#[sqlx(type_name = "text", rename_all = "kebab-case")]
#[schema(as = WeaverNetwork)]
pub enum Network {
    /// Nothing.
    Off,
    /// This server and nothing else.
    LoomOnly,
    /// This server and public addresses.
    Internet,
    /// Whatever the cluster lets it.
    Open,
}

impl Network {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::LoomOnly => "loom-only",
            Self::Internet => "internet",
            Self::Open => "open",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Off, Self::LoomOnly, Self::Internet, Self::Open]
            .into_iter()
            .find(|network| network.as_str() == word)
    }
}

/// What was asked for, as it is kept; what must not lie open is sealed beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) image: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) env: BTreeMap<String, String>,
    /// Names of env whose values are sealed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sealed: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workdir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) repo: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) branch: Option<String>,
    pub(crate) lifetime_hours: f64,
    /// Of its token: what its maker may do themselves, at most.
    #[serde(default)]
    pub(crate) scopes: Vec<String>,
}

/// A weaver as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: WeaverId,
    pub(crate) org_id: OrgId,
    pub(crate) owner_id: Option<UserId>,
    pub(crate) installation: String,
    pub(crate) spec: Spec,
    pub(crate) sealed_env: Option<Vec<u8>>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) network: Network,
    pub(crate) cpu_millis: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) ephemeral_bytes: i64,
    pub(crate) budget_nanousd: Option<i64>,
    pub(crate) idle_timeout_secs: Option<i32>,
    pub(crate) status: Status,
    pub(crate) reason_code: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) ending: Option<Status>,
    pub(crate) pod_name: String,
    pub(crate) pod_uid: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) trouble: Option<Trouble>,
    pub(crate) restarts: i32,
    pub(crate) exit_code: Option<i32>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) scheduled_at: Option<DateTime<Utc>>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) ready_at: Option<DateTime<Utc>>,
    pub(crate) exited_at: Option<DateTime<Utc>>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) warned_at: Option<DateTime<Utc>>,
    pub(crate) active_at: DateTime<Utc>,
    pub(crate) version: i64,
}

/// What is to be different in a row: what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Change {
    pub(crate) status: Option<Status>,
    /// The code and the words.
    pub(crate) reason: Option<(String, String)>,
    pub(crate) ending: Option<Status>,
    pub(crate) pod_uid: Option<String>,
    pub(crate) node: Option<String>,
    /// `Some(None)`: it has passed.
    pub(crate) trouble: Option<Option<Trouble>>,
    pub(crate) restarts: Option<i32>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) scheduled_at: Option<DateTime<Utc>>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) ready_at: Option<DateTime<Utc>>,
    pub(crate) exited_at: Option<DateTime<Utc>>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    pub(crate) warned_at: Option<DateTime<Utc>>,
    pub(crate) erase_sealed: bool,
    pub(crate) events: Vec<Event>,
}

impl Change {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Something wrong that may still pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// As `image_pull`.
    pub(crate) code: String,
    /// The first message: what the cluster says later is often only that it waits.
    pub(crate) message: String,
    pub(crate) since: DateTime<Utc>,
}

/// A step in the life of a weaver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = WeaverEvent)]
pub struct Event {
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub at: DateTime<Utc>,
    /// `queued`, `scheduled`, `pulling`, `started`, `ready`, `exit`, `ended`; `warning` in between.
    pub phase: String,
    /// A stable word for the cause, as `image_pull`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// In plain words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Event {
    pub(crate) fn new(at: DateTime<Utc>, phase: &str) -> Self {
        Self { at, phase: phase.to_owned(), code: None, message: None }
    }

    pub(crate) fn because(self, code: &str, message: impl Into<String>) -> Self {
        Self { code: Some(code.to_owned()), message: Some(message.into()), ..self }
    }
}

/// `weaver-<id>`: a repeated creation makes no second pod.
pub(crate) fn pod_name(id: WeaverId) -> String {
    format!("weaver-{id}")
}
