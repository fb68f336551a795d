//! Releases on the wire and in rows.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    clock::is_storable,
    id::{OrgId, ProjectId},
    port::ReleaseRates,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::check_version;

/// Commits of a release, and files of a commit, that are kept.
pub(crate) const MAX_COMMITS: usize = 1000;
const MAX_FILES: usize = 1000;
const MAX_TEXT: usize = 1000;

/// A release of a project.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, ToSchema)]
pub(crate) struct Release {
    #[serde(skip)]
    pub id: Uuid,
    #[serde(skip)]
    pub org_id: OrgId,
    #[serde(skip)]
    pub project_id: ProjectId,
    pub version: String,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it was finalised; none: it is not out yet, or nobody has said so.
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub released_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub first_event: Option<DateTime<Utc>>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub last_event: Option<DateTime<Utc>>,
    #[serde(rename = "event_count")]
    pub events: i64,
    pub url: Option<String>,
    /// The branch, tag or commit that it was made of.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
}

/// Issues of a release.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub(crate) struct IssueCounts {
    /// First seen in it.
    #[serde(rename = "new_issues")]
    pub new: i64,
    /// Back in it.
    #[serde(rename = "regressed_issues")]
    pub regressed: i64,
    #[serde(rename = "resolved_issues")]
    pub resolved: i64,
}

/// How its sessions go.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct ReleaseHealthView {
    pub sessions: i64,
    pub users: i64,
    /// Per cent; none without data.
    pub crash_free_sessions: Option<f64>,
    pub crash_free_users: Option<f64>,
    /// Share of the project's sessions in the last 24 hours, per cent.
    pub adoption: Option<f64>,
}

impl From<&ReleaseRates> for ReleaseHealthView {
    fn from(rates: &ReleaseRates) -> Self {
        Self {
            sessions: rates.sessions,
            users: rates.users,
            crash_free_sessions: rates.crash_free_sessions,
            crash_free_users: rates.crash_free_users,
            adoption: rates.adoption,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReleaseView {
    #[serde(flatten)]
    pub release: Release,
    #[serde(flatten)]
    pub issues: IssueCounts,
    pub commit_count: i64,
    pub deploy_count: i64,
    /// None: it has had no sessions.
    pub health: Option<ReleaseHealthView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReleasePage {
    pub releases: Vec<ReleaseView>,
    pub next_cursor: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReleaseFilter {
    /// What versions begin with.
    pub query: Option<String>,
}

#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct NewRelease {
    pub version: String,
    pub url: Option<String>,
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    pub started_at: Option<DateTime<Utc>>,
    /// When it came out, if it did.
    pub released_at: Option<DateTime<Utc>>,
}

impl NewRelease {
    pub(crate) fn check(&self) -> Result<()> {
        check_version("version", &self.version)?;
        self.change().check()
    }

    pub(crate) fn change(&self) -> ReleasePatch {
        ReleasePatch {
            url: self.url.clone(),
            reference: self.reference.clone(),
            started_at: self.started_at,
            released_at: self.released_at,
        }
    }
}

/// What is absent stays as it is.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct ReleasePatch {
    pub url: Option<String>,
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    pub started_at: Option<DateTime<Utc>>,
    /// Finalises it.
    pub released_at: Option<DateTime<Utc>>,
}

impl ReleasePatch {
    pub(crate) fn check(&self) -> Result<()> {
        check_text("url", self.url.as_deref(), MAX_TEXT)?;
        check_text("ref", self.reference.as_deref(), 250)?;
        check_time("started_at", self.started_at)?;
        check_time("released_at", self.released_at)
    }
}

fn check_text(field: &str, text: Option<&str>, longest: usize) -> Result<()> {
    match text {
        Some(text) if text.len() > longest => {
            Err(Error::invalid(field, format!("has at most {longest} bytes")))
        }
        _ => Ok(()),
    }
}

fn check_time(field: &str, at: Option<DateTime<Utc>>) -> Result<()> {
    match at {
        Some(at) if !is_storable(at) => {
            Err(Error::invalid(field, "is a time from the years 1970 to 9999"))
        }
        _ => Ok(()),
    }
}

/// A commit that a release brings, and that the one before has not.
#[derive(Clone, Debug, Default, Deserialize, Serialize, sqlx::FromRow, ToSchema)]
pub(crate) struct Commit {
    pub sha: String,
    pub message: Option<String>,
    pub author_name: Option<String>,
    pub author_email: Option<String>,
    #[serde(default, serialize_with = "loom_core::clock::millis_option")]
    pub at: Option<DateTime<Utc>>,
    pub repository: Option<String>,
    /// Paths that it touched, from the root of the repository.
    #[serde(default)]
    pub files: Vec<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewCommits {
    /// The newest first; at most 1,000, what is more is left out.
    pub commits: Vec<Commit>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CommitPage {
    pub commits: Vec<Commit>,
    pub next_cursor: Option<String>,
}

/// Commits as they are stored: within bounds, each once.
///
/// # Errors
/// 422 for what is no commit.
pub(crate) fn bounded(commits: Vec<Commit>) -> Result<Vec<Commit>> {
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for (n, commit) in commits.into_iter().take(MAX_COMMITS).enumerate() {
        if commit.sha.is_empty()
            || commit.sha.len() > 64
            || !commit.sha.chars().all(|c| c.is_ascii_graphic())
        {
            return Err(Error::invalid(format!("commits[{n}].sha"), "is the name of a commit"));
        }
        check_time(&format!("commits[{n}].at"), commit.at)?;
        if seen.insert(commit.sha.clone()) {
            kept.push(cut(commit));
        }
    }
    Ok(kept)
}

fn cut(mut commit: Commit) -> Commit {
    let short = |text: Option<String>| text.map(|text| shorten(&text, MAX_TEXT));
    commit.message = short(commit.message);
    commit.author_name = short(commit.author_name);
    commit.author_email = short(commit.author_email);
    commit.repository = short(commit.repository);
    commit.files.truncate(MAX_FILES);
    for file in &mut commit.files {
        *file = shorten(file, MAX_TEXT);
    }
    commit
}

pub(crate) fn shorten(text: &str, longest: usize) -> String {
    text.chars().filter(|c| *c != '\0').take(longest).collect()
}

/// A release was brought somewhere.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, ToSchema)]
pub(crate) struct Deploy {
    pub id: Uuid,
    pub environment: String,
    pub name: Option<String>,
    pub url: Option<String>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub started_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub finished_at: DateTime<Utc>,
}

#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct NewDeploy {
    pub environment: String,
    pub name: Option<String>,
    pub url: Option<String>,
    pub started_at: Option<DateTime<Utc>>,
    /// Now when absent.
    pub finished_at: Option<DateTime<Utc>>,
}

impl NewDeploy {
    pub(crate) fn check(&self) -> Result<()> {
        let environment = self.environment.trim();
        if environment.is_empty() || environment.len() > 64 {
            return Err(Error::invalid("environment", "has 1 to 64 bytes"));
        }
        check_text("name", self.name.as_deref(), 64)?;
        check_text("url", self.url.as_deref(), MAX_TEXT)?;
        check_time("started_at", self.started_at)?;
        check_time("finished_at", self.finished_at)
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeployPage {
    pub deploys: Vec<Deploy>,
    pub next_cursor: Option<String>,
}
