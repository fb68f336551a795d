//! Changes to what a thread knows of its repository.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::{check::Check, model::Git, patch::given, remote};

const MAX_BRANCH_BYTES: usize = 1000;
const MAX_COMMITS: usize = 10_000;

/// What is absent stays as it is; null clears; commits are added.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct GitPatch {
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub branch: Option<Option<String>>,
    /// Any way to write a remote.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub remote_url: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub initial_branch: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub initial_commit: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub current_commit: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<bool>)]
    pub start_dirty: Option<Option<bool>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<bool>)]
    pub end_dirty: Option<Option<bool>>,
    pub commits: Option<Vec<String>>,
}

/// Commits to remember, in lower case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commits {
    /// Those of `git.commits`.
    pub(crate) listed: Vec<String>,
    /// Those that the thread began or stood at: found by `?commit=`, not listed.
    pub(crate) passed: Vec<String>,
}

impl From<Git> for GitPatch {
    /// Sets every member.
    fn from(git: Git) -> Self {
        Self {
            branch: Some(git.branch),
            remote_url: Some(git.remote_url),
            initial_branch: Some(git.initial_branch),
            initial_commit: Some(git.initial_commit),
            current_commit: Some(git.current_commit),
            start_dirty: Some(git.start_dirty),
            end_dirty: Some(git.end_dirty),
            commits: git.commits,
        }
    }
}

impl GitPatch {
    /// Takes every member away.
    pub(crate) fn clear() -> Self {
        Git::default().into()
    }

    /// Checks and normalises what is given.
    pub(crate) fn check(&mut self, check: &mut Check) -> Commits {
        for (path, branch) in
            [("git.branch", &self.branch), ("git.initial_branch", &self.initial_branch)]
        {
            check.text(path, branch.iter().flatten().next().map(String::as_str), MAX_BRANCH_BYTES);
        }
        if let Some(remote_url) = &mut self.remote_url {
            *remote_url = remote_url.as_deref().and_then(remote::normalise);
        }
        let mut commits = Commits::default();
        for (path, commit) in [
            ("git.initial_commit", &mut self.initial_commit),
            ("git.current_commit", &mut self.current_commit),
        ] {
            if let Some(Some(sha)) = commit {
                check_sha(check, path, sha);
                commits.passed.push(sha.clone());
            }
        }
        commits.listed = self.commits.take().unwrap_or_default();
        if commits.listed.len() > MAX_COMMITS {
            check.wrong("git.commits", format!("has at most {MAX_COMMITS} in one request"));
            commits.listed.clear();
        }
        for (index, sha) in commits.listed.iter_mut().enumerate() {
            check_sha(check, &format!("git.commits[{index}]"), sha);
        }
        commits
    }

    pub(crate) fn apply(self, git: &mut Git) {
        fn set<T>(value: Option<Option<T>>, field: &mut Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(self.branch, &mut git.branch);
        set(self.remote_url, &mut git.remote_url);
        set(self.initial_branch, &mut git.initial_branch);
        set(self.initial_commit, &mut git.initial_commit);
        set(self.current_commit, &mut git.current_commit);
        set(self.start_dirty, &mut git.start_dirty);
        set(self.end_dirty, &mut git.end_dirty);
    }
}

/// 4 to 64 hex digits, in lower case from here on.
fn check_sha(check: &mut Check, path: &str, sha: &mut str) {
    if !(4..=64).contains(&sha.len()) || !sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        check.wrong(path, "is a commit: 4 to 64 hex digits");
    }
    sha.make_ascii_lowercase();
}
