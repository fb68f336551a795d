//! Repositories and their maintenance, as they are stored and as they are sent.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Principal, Result,
    authorize::{Ownership, Visibility},
    error::FieldError,
    id::{OrgId, RepositoryId, UserId},
    principal::OrgRole,
    text,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::name::{is_branch_name, is_repository_name};

const MAX_DESCRIPTION: usize = 1000;

/// A repository.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Repository {
    pub id: RepositoryId,
    pub org_id: OrgId,
    /// Null for a repository of the organisation itself.
    pub owner_user_id: Option<UserId>,
    /// Unique in its organisation, whatever the case.
    pub name: String,
    pub description: String,
    /// What a clone checks out.
    pub default_branch: String,
    pub visibility: Visibility,
    /// On the server's disk, as of the last push or maintenance.
    pub size_bytes: i64,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub updated_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub pushed_at: Option<DateTime<Utc>>,
    /// When the last maintenance began.
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub maintained_at: Option<DateTime<Utc>>,
}

impl Repository {
    pub(crate) fn ownership(&self) -> Ownership {
        Ownership { org: self.org_id, owner: self.owner_user_id, visibility: self.visibility }
    }

    /// May push? Whoever may change it, and all members of its organisation when they see it.
    pub(crate) fn require_push(&self, principal: &Principal) -> Result<()> {
        let ownership = self.ownership();
        if ownership.visible_to(principal) && self.org_id == principal.org {
            return Ok(());
        }
        ownership.require_change(principal, "repository")
    }
}

/// A repository with where to clone it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RepositoryView {
    #[serde(flatten)]
    pub repository: Repository,
    /// `git clone` takes it; so does the same with the ids in place of the names, which stays as it is when
    /// the repository is renamed.
    pub clone_url: String,
}

/// A page of repositories, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct RepositoryPage {
    pub repositories: Vec<RepositoryView>,
    /// Null at the end.
    pub next_cursor: Option<String>,
}

/// A repository to create.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct NewRepository {
    /// Letters, digits, `.`, `_` and `-`, not with `.` or `-` first, not ending in `.git` or `.lock`.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    /// `main` when absent.
    pub default_branch: Option<String>,
    /// `private` when absent.
    pub visibility: Option<Visibility>,
}

impl NewRepository {
    pub(crate) fn into_patch(self) -> RepositoryPatch {
        RepositoryPatch {
            name: Some(self.name),
            description: Some(self.description),
            default_branch: Some(self.default_branch.unwrap_or_else(|| "main".to_owned())),
            visibility: Some(self.visibility.unwrap_or_default()),
        }
    }
}

/// What of a repository is to change.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct RepositoryPatch {
    #[schema(min_length = 1, max_length = 100)]
    pub name: Option<String>,
    #[schema(max_length = 1000)]
    pub description: Option<String>,
    /// It need not be there yet.
    pub default_branch: Option<String>,
    pub visibility: Option<Visibility>,
}

impl RepositoryPatch {
    pub(crate) fn check(&self) -> Result<()> {
        let mut errors = Vec::new();
        let mut wrong = |path: &str, message: &str| {
            errors.push(FieldError { path: path.to_owned(), message: message.to_owned() });
        };
        if self.name.as_deref().is_some_and(|name| !is_repository_name(name)) {
            wrong(
                "name",
                "is 1 to 100 letters (a-z), digits, `.`, `_` and `-`, without `.` or `-` at its start, \
                 without `..`, `.git` or `.lock` at its end, and not a UUID",
            );
        }
        if self.default_branch.as_deref().is_some_and(|branch| !is_branch_name(branch)) {
            wrong("default_branch", "is the name of a branch, as `main` or `release/1.0`");
        }
        let is_text = |text: &str| text.is_empty() || text::is_plain_line(text, MAX_DESCRIPTION);
        if self.description.as_deref().is_some_and(|text| !is_text(text)) {
            wrong("description", "is one line of at most 1000 bytes");
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::invalid_fields(errors)) }
    }

    pub(crate) fn apply(self, repository: &mut Repository) {
        let Self { name, description, default_branch, visibility } = self;
        if let Some(name) = name {
            repository.name = name;
        }
        if let Some(description) = description {
            repository.description = description;
        }
        if let Some(branch) = default_branch {
            repository.default_branch = branch;
        }
        if let Some(visibility) = visibility {
            repository.visibility = visibility;
        }
    }
}

/// Why a maintenance was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum MaintenanceTrigger {
    Schedule,
    Manual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum MaintenanceStatus {
    Running,
    Succeeded,
    Failed,
    /// Its server went away without a word.
    Abandoned,
}

impl MaintenanceStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// What was done to one repository, and what came of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Maintenance {
    pub id: Uuid,
    pub repository_id: RepositoryId,
    pub trigger: MaintenanceTrigger,
    pub status: MaintenanceStatus,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub started_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub finished_at: Option<DateTime<Utc>>,
    pub duration_ms: Option<i64>,
    pub packs_before: Option<i32>,
    pub packs_after: Option<i32>,
    pub bytes_before: Option<i64>,
    pub bytes_after: Option<i64>,
    /// Everything was packed anew, and objects that nothing had referred to for two weeks were removed.
    /// Not while a push is under way.
    pub reclaimed: bool,
    pub error: Option<String>,
}

/// The maintenance of a repository, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct MaintenancePage {
    pub runs: Vec<Maintenance>,
    /// Null at the end.
    pub next_cursor: Option<String>,
}

/// Is it a change of the organisation's own things by one of its keys or admins?
pub(crate) fn sees_unowned(principal: &Principal) -> bool {
    principal.user_id().is_none() || principal.role >= OrgRole::Admin
}
