//! A change to all of a thread but its messages. An upsert is the patch that sets everything.

use loom_core::{Result, authorize::Visibility};
use serde::{Deserialize, Deserializer};
use sqlx::types::Json;
use utoipa::ToSchema;

use crate::{
    check::Check,
    git::{Commits, GitPatch},
    model::{AgentState, Client, ThreadHead, Workspace},
    raw::{Kind, Raw},
};

const MAX_TITLE_BYTES: usize = 1000;
const MAX_TAGS: usize = 50;
const MAX_TAG_BYTES: usize = 100;
const MAX_NAME_BYTES: usize = 200;
const MAX_PATH_BYTES: usize = 1000;
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// Of `extra` and of the pending tool calls: what each write of the thread carries along.
const MAX_KEPT_BYTES: usize = 1024 * 1024;

/// What is absent stays as it is; null clears what can be absent.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct ThreadPatch {
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 1000)]
    pub title: Option<Option<String>>,
    /// Replaces the tags there are.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>, max_items = 50)]
    pub tags: Option<Option<Vec<String>>>,
    pub is_pinned: Option<bool>,
    pub visibility: Option<Visibility>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Workspace>)]
    pub workspace: Option<Option<Workspace>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Client>)]
    pub client: Option<Option<Client>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub provider: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub model: Option<Option<String>>,
    /// Member by member; null clears all but the commits, which only grow.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<GitPatch>)]
    pub git: Option<Option<GitPatch>>,
    /// Replaces the whole state.
    pub agent_state: Option<AgentState>,
    /// Replaces the whole object.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Object>)]
    pub extra: Option<Option<Raw>>,
}

/// Tells "null" from "not there": what is there, even as null, is `Some`.
pub(crate) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A patch that was found to be in order.
#[derive(Clone, Debug)]
pub(crate) struct CheckedPatch(ThreadPatch, pub(crate) Commits);

impl ThreadPatch {
    pub(crate) fn check(mut self, check: &mut Check) -> CheckedPatch {
        check.text(
            "title",
            self.title.iter().flatten().next().map(String::as_str),
            MAX_TITLE_BYTES,
        );
        if let Some(Some(tags)) = &mut self.tags {
            check_tags(check, tags);
        }
        if let Some(Some(workspace)) = &self.workspace {
            check.text("workspace.root", workspace.root.as_deref(), MAX_PATH_BYTES);
            check.text("workspace.cwd", workspace.cwd.as_deref(), MAX_PATH_BYTES);
            check.text("workspace.hostname", workspace.hostname.as_deref(), MAX_NAME_BYTES);
            check.text("workspace.platform", workspace.platform.as_deref(), MAX_NAME_BYTES);
        }
        if let Some(Some(client)) = &self.client {
            check.text("client.name", client.name.as_deref(), MAX_NAME_BYTES);
            check.text("client.version", client.version.as_deref(), MAX_NAME_BYTES);
        }
        check.text(
            "provider",
            self.provider.iter().flatten().next().map(String::as_str),
            MAX_NAME_BYTES,
        );
        check.text("model", self.model.iter().flatten().next().map(String::as_str), MAX_NAME_BYTES);
        let commits = match &mut self.git {
            Some(git) => git.get_or_insert_with(GitPatch::clear).check(check),
            None => Commits::default(),
        };
        if let Some(state) = &self.agent_state {
            check.text("agent_state.last_error", state.last_error.as_deref(), MAX_ERROR_BYTES);
            for (index, call) in state.pending_tool_calls.iter().enumerate() {
                let path = format!("agent_state.pending_tool_calls[{index}]");
                check.raw(&path, call, &[Kind::Object, Kind::String], "an object or an id");
            }
            let bytes: usize = state.pending_tool_calls.iter().map(|call| call.get().len()).sum();
            if bytes > MAX_KEPT_BYTES {
                check
                    .too_large("agent_state.pending_tool_calls: at most 1 MiB together".to_owned());
            }
        }
        if let Some(Some(extra)) = &self.extra {
            check.raw("extra", extra, &[Kind::Object], "an object");
            if extra.get().len() > MAX_KEPT_BYTES {
                check.too_large("extra: at most 1 MiB".to_owned());
            }
        }
        CheckedPatch(self, commits)
    }
}

/// Each tag once, in the order they came.
fn check_tags(check: &mut Check, tags: &mut Vec<String>) {
    for (index, tag) in tags.iter().enumerate().take(MAX_TAGS) {
        check.line(&format!("tags[{index}]"), tag, MAX_TAG_BYTES);
    }
    if tags.len() > MAX_TAGS {
        check.wrong("tags", format!("has at most {MAX_TAGS}"));
        tags.clear();
    }
    let mut once: Vec<String> = Vec::with_capacity(tags.len());
    for tag in tags.drain(..) {
        if !once.contains(&tag) {
            once.push(tag);
        }
    }
    *tags = once;
}

impl CheckedPatch {
    pub(crate) fn apply(self, head: &mut ThreadHead) {
        let patch = self.0;
        if let Some(title) = patch.title {
            head.title = title;
        }
        if let Some(tags) = patch.tags {
            head.tags = tags.unwrap_or_default();
        }
        if let Some(is_pinned) = patch.is_pinned {
            head.is_pinned = is_pinned;
        }
        if let Some(visibility) = patch.visibility {
            head.visibility = visibility;
        }
        if let Some(workspace) = patch.workspace {
            head.workspace = workspace.map(Json);
        }
        if let Some(client) = patch.client {
            head.client = client.map(Json);
        }
        if let Some(provider) = patch.provider {
            head.provider = provider;
        }
        if let Some(model) = patch.model {
            head.model = model;
        }
        if let Some(git) = patch.git {
            git.unwrap_or_else(GitPatch::clear).apply(&mut head.git);
        }
        if let Some(agent_state) = patch.agent_state {
            head.agent_state = Json(agent_state);
        }
        if let Some(extra) = patch.extra {
            head.extra = Some(Json(extra.unwrap_or_else(Raw::empty_object)));
        }
    }
}
