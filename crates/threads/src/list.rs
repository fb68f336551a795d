//! What a list is asked for.

use chrono::{DateTime, Utc};
use loom_core::{Principal, Result, id::UserId, text::is_plain_line};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};

use crate::{
    check::Check,
    model::{AgentStateKind, ThreadHead},
    remote,
};

const MAX_BYTES: usize = 1000;

/// Filters; a thread must pass all that are given.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// The workspace's root.
    workspace: Option<String>,
    /// The repository: `host/owner/repo`, or any way to write its remote.
    repo: Option<String>,
    branch: Option<String>,
    /// The first 7 or more hex digits of a commit that the thread made, began or stood at.
    #[param(pattern = "^[0-9a-fA-F]{7,64}$")]
    commit: Option<String>,
    state: Option<AgentStateKind>,
    tag: Option<String>,
    /// A user's id, or `me`.
    owner: Option<String>,
    pinned: Option<bool>,
    /// Changed after this time.
    updated_after: Option<DateTime<Utc>>,
    /// `true`: those that were deleted in the last 30 days, which can be restored.
    deleted: Option<bool>,
}

/// A query that was found to be in order. Serialised, it tells one list from another.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Filter {
    pub(crate) workspace: Option<String>,
    pub(crate) repo: Option<String>,
    pub(crate) branch: Option<String>,
    pub(crate) commit: Option<String>,
    pub(crate) state: Option<AgentStateKind>,
    pub(crate) tag: Option<String>,
    pub(crate) owner: Option<UserId>,
    pub(crate) pinned: Option<bool>,
    pub(crate) updated_after: Option<DateTime<Utc>>,
    pub(crate) deleted: bool,
}

impl ListQuery {
    pub(crate) fn check(self, principal: &Principal) -> Result<Filter> {
        let mut check = Check::default();
        let texts = [
            ("workspace", &self.workspace),
            ("repo", &self.repo),
            ("branch", &self.branch),
            ("tag", &self.tag),
        ];
        for (name, text) in texts {
            if text.as_deref().is_some_and(|text| !is_plain_line(text, MAX_BYTES)) {
                check.wrong(name, format!("is 1 to {MAX_BYTES} bytes without control characters"));
            }
        }
        let commit = self.commit.map(|commit| commit.to_ascii_lowercase());
        let is_sha = |text: &str| {
            (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if commit.as_deref().is_some_and(|commit| !is_sha(commit)) {
            check.wrong("commit", "is 7 to 64 hex digits");
        }
        let owner = match self.owner.as_deref() {
            None => None,
            Some("me") => {
                if principal.user_id().is_none() {
                    check.wrong("owner", "`me` is no user: this credential belongs to none");
                }
                principal.user_id()
            }
            Some(text) => {
                let id = text.parse().ok();
                if id.is_none() {
                    check.wrong("owner", "is a user's id or `me`");
                }
                id
            }
        };
        if self.updated_after.is_some_and(|at| !loom_core::clock::is_storable(at)) {
            check.wrong("updated_after", "is a time from the year 1970 to 9999");
        }
        check.finish(Filter {
            workspace: self.workspace,
            // What names no repository is found nowhere, rather than everywhere.
            repo: self.repo.map(|repo| remote::normalise(&repo).unwrap_or(repo)),
            branch: self.branch,
            commit,
            state: self.state,
            tag: self.tag,
            owner,
            pinned: self.pinned,
            updated_after: self.updated_after,
            deleted: self.deleted.unwrap_or_default(),
        })
    }
}

impl Filter {
    /// The name of this list, which its cursors carry.
    pub(crate) fn kind(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let digest = Sha256::digest(&json);
        let short: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("threads:{short}")
    }
}

/// A page of threads, newest activity first.
#[derive(Debug, Serialize, ToSchema)]
pub struct ThreadPage {
    pub threads: Vec<ThreadHead>,
    /// Null at the end.
    pub next_cursor: Option<String>,
}
