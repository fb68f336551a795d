//! What a client sends to write messages: a whole thread, or an addition to one.

use chrono::{DateTime, Utc};
use loom_core::{Result, authorize::Visibility, id::ThreadId};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    check::Check,
    git::GitPatch,
    message::{CheckedMessage, MessageDraft, check_all},
    model::{AgentState, Client, Git, Workspace},
    patch::{CheckedPatch, ThreadPatch, given},
    raw::Raw,
};

/// A whole thread. Only `messages` must be there; what else is absent is cleared.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ThreadDraft {
    /// If there, the same as in the path.
    pub id: Option<ThreadId>,
    #[schema(max_length = 1000)]
    pub title: Option<String>,
    #[schema(max_items = 50)]
    pub tags: Option<Vec<String>>,
    pub is_pinned: Option<bool>,
    pub visibility: Option<Visibility>,
    pub workspace: Option<Workspace>,
    pub client: Option<Client>,
    pub provider: Option<String>,
    pub model: Option<String>,
    pub git: Option<Git>,
    pub agent_state: Option<AgentState>,
    #[schema(max_items = 100_000)]
    pub messages: Vec<MessageDraft>,
    #[schema(value_type = Option<Object>)]
    pub extra: Option<Raw>,
    /// When a thread that was begun elsewhere began; counts at its creation here only.
    pub created_at: Option<DateTime<Utc>>,
}

/// A thread draft that was found to be in order.
pub(crate) struct CheckedThread {
    pub(crate) patch: CheckedPatch,
    pub(crate) messages: Vec<CheckedMessage>,
    pub(crate) created_at: Option<DateTime<Utc>>,
}

impl ThreadDraft {
    pub(crate) fn check(self, id: ThreadId) -> Result<CheckedThread> {
        let mut check = Check::default();
        if self.id.is_some_and(|given| given != id) {
            check.wrong("id", format!("is another than the path's, {id}"));
        }
        let created_at = check.time("created_at", self.created_at);
        let patch = ThreadPatch {
            title: Some(self.title),
            tags: Some(self.tags),
            is_pinned: Some(self.is_pinned.unwrap_or_default()),
            visibility: Some(self.visibility.unwrap_or_default()),
            workspace: Some(self.workspace),
            client: Some(self.client),
            provider: Some(self.provider),
            model: Some(self.model),
            git: Some(self.git.map(GitPatch::from)),
            agent_state: Some(self.agent_state.unwrap_or_default()),
            extra: Some(self.extra),
        };
        let patch = patch.check(&mut check);
        let messages = check_all(&mut check, self.messages);
        check.finish(CheckedThread { patch, messages, created_at })
    }
}

/// Messages to add, and what changes with them.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct Append {
    pub messages: Vec<MessageDraft>,
    /// Add only if this is the thread's `last_seq`.
    pub expected_last_seq: Option<i64>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub title: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    pub tags: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<GitPatch>)]
    pub git: Option<Option<GitPatch>>,
    pub agent_state: Option<AgentState>,
    #[serde(default, deserialize_with = "given", alias = "metadata")]
    #[schema(value_type = Option<Object>)]
    pub extra: Option<Option<Raw>>,
}

/// An append that was found to be in order.
pub(crate) struct CheckedAppend {
    pub(crate) patch: CheckedPatch,
    pub(crate) messages: Vec<CheckedMessage>,
    pub(crate) expected_last_seq: Option<i64>,
}

impl Append {
    pub(crate) fn check(self) -> Result<CheckedAppend> {
        let mut check = Check::default();
        let patch = ThreadPatch {
            title: self.title,
            tags: self.tags,
            git: self.git,
            agent_state: self.agent_state,
            extra: self.extra,
            ..ThreadPatch::default()
        };
        let patch = patch.check(&mut check);
        let messages = check_all(&mut check, self.messages);
        let expected_last_seq = self.expected_last_seq;
        check.finish(CheckedAppend { patch, messages, expected_last_seq })
    }
}
