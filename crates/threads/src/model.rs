//! A thread as it is stored and as it is sent.

use chrono::{DateTime, Utc};
use loom_core::{
    authorize::{Ownership, Visibility},
    id::{OrgId, ThreadId, UserId},
};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::ToSchema;

use crate::{message::Message, raw::Raw};

/// All of a thread but its messages.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema, sqlx::FromRow)]
pub struct ThreadHead {
    pub id: ThreadId,
    /// 1 at creation, +1 with each change; the `ETag`.
    pub version: i64,
    /// The highest `seq` ever given to a message.
    pub last_seq: i64,
    pub message_count: i32,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub updated_at: DateTime<Utc>,
    /// When a message came in or the agent's state changed.
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub last_activity_at: DateTime<Utc>,
    pub title: Option<String>,
    pub tags: Vec<String>,
    pub is_pinned: bool,
    pub visibility: Visibility,
    pub org_id: OrgId,
    /// Null for a thread of the organisation itself.
    pub owner_user_id: Option<UserId>,
    #[schema(value_type = Option<Workspace>)]
    pub workspace: Option<Json<Workspace>>,
    #[schema(value_type = Option<Client>)]
    pub client: Option<Json<Client>>,
    pub provider: Option<String>,
    pub model: Option<String>,
    #[schema(value_type = Git)]
    pub git: Json<Git>,
    #[schema(value_type = AgentState)]
    pub agent_state: Json<AgentState>,
    /// Whatever else the client keeps with the thread. Absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub extra: Option<Json<Raw>>,
    #[serde(skip)]
    pub(crate) message_bytes: i64,
    #[serde(skip)]
    pub(crate) deleted_at: Option<DateTime<Utc>>,
}

impl ThreadHead {
    pub(crate) fn ownership(&self) -> Ownership {
        Ownership { org: self.org_id, owner: self.owner_user_id, visibility: self.visibility }
    }
}

/// A whole thread.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Thread {
    #[serde(flatten)]
    pub head: ThreadHead,
    pub messages: Vec<Message>,
}

/// Where the agent works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Workspace {
    /// The folder that the agent was started for; what `?workspace=` compares with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// The program that writes the thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Client {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The repository that the thread is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Git {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Kept as `host/owner/repo`, without credentials; null when it names no host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_branch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_dirty: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_dirty: Option<bool>,
    /// The commits made in this thread, oldest first. What is sent is added to what is known; none is
    /// ever taken away. Absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commits: Option<Vec<String>>,
}

/// What the agent is doing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct AgentState {
    pub kind: AgentStateKind,
    /// How often the current step has been tried again.
    #[serde(default)]
    pub retries: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Calls that have no result yet, as the client writes them.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub pending_tool_calls: Vec<Raw>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentStateKind {
    #[default]
    WaitingForUserInput,
    CallingLlm,
    ProcessingLlmResponse,
    ExecutingTools,
    Error,
    ShuttingDown,
}

impl AgentStateKind {
    /// Is somebody to be heard of before long?
    pub(crate) fn is_working(self) -> bool {
        matches!(self, Self::CallingLlm | Self::ProcessingLlmResponse | Self::ExecutingTools)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::WaitingForUserInput => "waiting_for_user_input",
            Self::CallingLlm => "calling_llm",
            Self::ProcessingLlmResponse => "processing_llm_response",
            Self::ExecutingTools => "executing_tools",
            Self::Error => "error",
            Self::ShuttingDown => "shutting_down",
        }
    }
}
