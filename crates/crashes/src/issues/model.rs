//! Issues, as they are stored and shown.

use chrono::{DateTime, Utc};
use loom_core::{
    clock::{millis, millis_option},
    id::{IssueId, ProjectId, UserId},
};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, Row, postgres::PgRow};
use utoipa::ToSchema;
use uuid::Uuid;

/// How an issue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[schema(as = IssueStatus)]
pub(crate) enum Status {
    /// Open.
    Unresolved,
    /// Done; an event of a release that should have it brings it back as `regressed`.
    Resolved,
    /// Not to be told of, until a time or for ever.
    Ignored,
    /// Open: it was resolved, and happened again.
    Regressed,
}

impl Status {
    pub(crate) const ALL: [Self; 4] =
        [Self::Unresolved, Self::Resolved, Self::Ignored, Self::Regressed];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::Resolved => "resolved",
            Self::Ignored => "ignored",
            Self::Regressed => "regressed",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[schema(as = IssuePriority)]
pub(crate) enum Priority {
    High,
    Medium,
    Low,
}

impl Priority {
    pub(crate) const ALL: [Self; 3] = [Self::High, Self::Medium, Self::Low];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// A person, as others see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = IssueAssignee)]
pub(crate) struct Person {
    pub(crate) id: UserId,
    pub(crate) email: String,
    pub(crate) name: String,
}

/// The project of an issue.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = IssueProject)]
pub(crate) struct ProjectRef {
    pub(crate) id: ProjectId,
    pub(crate) slug: String,
}

/// Events that are the same fault.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Issue {
    pub(crate) id: IssueId,
    /// As `PROJ-123`.
    pub(crate) short_id: String,
    pub(crate) project: ProjectRef,
    pub(crate) title: String,
    pub(crate) culprit: Option<String>,
    /// The exception's type.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// The exception's value.
    pub(crate) value: Option<String>,
    /// `fatal`, `error`, `warning`, `info`, `debug`.
    pub(crate) level: String,
    pub(crate) platform: Option<String>,
    pub(crate) status: Status,
    pub(crate) priority: Priority,
    #[serde(serialize_with = "millis")]
    pub(crate) first_seen: DateTime<Utc>,
    #[serde(serialize_with = "millis")]
    pub(crate) last_seen: DateTime<Utc>,
    pub(crate) first_release: Option<String>,
    pub(crate) last_release: Option<String>,
    pub(crate) event_count: i64,
    /// Distinct users; counted exactly while they are few, else within two per cent.
    pub(crate) user_count: i64,
    pub(crate) times_regressed: i32,
    #[serde(serialize_with = "millis_option")]
    pub(crate) regressed_at: Option<DateTime<Utc>>,
    pub(crate) regressed_in_release: Option<String>,
    #[serde(serialize_with = "millis_option")]
    pub(crate) resolved_at: Option<DateTime<Utc>>,
    pub(crate) resolved_by: Option<UserId>,
    pub(crate) resolved_in_release: Option<String>,
    /// It is resolved in the release that comes after this one.
    pub(crate) resolved_after_release: Option<String>,
    /// Null on an ignored issue: for ever.
    #[serde(serialize_with = "millis_option")]
    pub(crate) ignored_until: Option<DateTime<Utc>>,
    pub(crate) assigned_to: Option<Person>,
    /// The issue that its events went to.
    pub(crate) merged_into: Option<IssueId>,
}

/// What [`Issue`] is read from: crash_issues as `i`, crash_projects as `p`, users as `u`.
pub(crate) const COLUMNS: &str = "i.id, i.project_id, p.slug, p.short_prefix, i.number, \
     i.title, i.culprit, i.kind, i.value, i.level, i.platform, i.status, i.priority, i.first_seen, \
     i.last_seen, i.first_release, i.last_release, i.event_count, i.user_count, i.times_regressed, \
     i.regressed_at, i.regressed_in_release, i.resolved_at, i.resolved_by, i.resolved_in_release, \
     i.resolved_after_release, i.ignored_until, i.assigned_to, u.email AS assigned_email, \
     u.name AS assigned_name, i.merged_into";

impl FromRow<'_, PgRow> for Issue {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let assigned: Option<Uuid> = row.try_get("assigned_to")?;
        let assigned_to = match assigned {
            None => None,
            Some(id) => Some(Person {
                id: UserId(id),
                email: row.try_get::<Option<_>, _>("assigned_email")?.unwrap_or_default(),
                name: row.try_get::<Option<_>, _>("assigned_name")?.unwrap_or_default(),
            }),
        };
        Ok(Self {
            id: row.try_get("id")?,
            short_id: short_id(
                row.try_get::<&str, _>("short_prefix")?,
                row.try_get::<i64, _>("number")?,
            ),
            project: ProjectRef { id: row.try_get("project_id")?, slug: row.try_get("slug")? },
            title: row.try_get("title")?,
            culprit: row.try_get("culprit")?,
            kind: row.try_get("kind")?,
            value: row.try_get("value")?,
            level: row.try_get("level")?,
            platform: row.try_get("platform")?,
            status: row.try_get("status")?,
            priority: row.try_get("priority")?,
            first_seen: row.try_get("first_seen")?,
            last_seen: row.try_get("last_seen")?,
            first_release: row.try_get("first_release")?,
            last_release: row.try_get("last_release")?,
            event_count: row.try_get("event_count")?,
            user_count: row.try_get("user_count")?,
            times_regressed: row.try_get("times_regressed")?,
            regressed_at: row.try_get("regressed_at")?,
            regressed_in_release: row.try_get("regressed_in_release")?,
            resolved_at: row.try_get("resolved_at")?,
            resolved_by: row.try_get("resolved_by")?,
            resolved_in_release: row.try_get("resolved_in_release")?,
            resolved_after_release: row.try_get("resolved_after_release")?,
            ignored_until: row.try_get("ignored_until")?,
            assigned_to,
            merged_into: row.try_get("merged_into")?,
        })
    }
}

/// As `PROJ-123`.
pub(crate) fn short_id(prefix: &str, number: i64) -> String {
    format!("{prefix}-{number}")
}

/// A page of issues.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IssuePage {
    pub(crate) issues: Vec<Issue>,
    /// Null at the end.
    pub(crate) next_cursor: Option<String>,
}

/// The project that a path names.
#[derive(Clone, Debug)]
pub(crate) struct ProjectHead {
    pub(crate) id: ProjectId,
    pub(crate) slug: String,
    pub(crate) short_prefix: String,
}

/// Why events are in an issue: what was hashed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GroupingHash {
    /// Hexadecimal.
    pub(crate) hash: String,
    /// As `loom-1`.
    pub(crate) algorithm: String,
    /// The parts that were hashed.
    #[schema(value_type = Object)]
    pub(crate) components: serde_json::Value,
    /// The issue that it made; another one than this when the two were merged.
    pub(crate) own_issue_id: IssueId,
    #[serde(serialize_with = "millis")]
    pub(crate) created_at: DateTime<Utc>,
}

/// Events in an hour or a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = IssuePoint)]
pub(crate) struct Point {
    /// Where it begins.
    #[serde(serialize_with = "millis")]
    pub(crate) at: DateTime<Utc>,
    pub(crate) events: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IssueTagValue)]
pub(crate) struct TagValue {
    pub(crate) value: String,
    pub(crate) events: i64,
    /// Of the events that have this tag, per cent.
    pub(crate) share: f64,
    #[serde(serialize_with = "millis")]
    pub(crate) last_seen: DateTime<Utc>,
}

/// A tag of an issue's events with its most frequent values.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IssueTag)]
pub(crate) struct Tag {
    pub(crate) key: String,
    /// Events that have it.
    pub(crate) events: i64,
    /// How many values there are.
    pub(crate) values_count: i64,
    pub(crate) values: Vec<TagValue>,
}

/// An issue that was merged into another.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MergedIssue {
    pub(crate) id: IssueId,
    pub(crate) short_id: String,
    pub(crate) title: String,
}

/// An issue with what explains it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IssueDetail {
    #[serde(flatten)]
    pub(crate) issue: Issue,
    /// At most 100, the newest first.
    pub(crate) grouping: Vec<GroupingHash>,
    /// Events of the last 24 hours by the hour, the running one last.
    pub(crate) last_24_hours: Vec<Point>,
    /// Events of the last 30 days by the day of UTC, the running one last.
    pub(crate) last_30_days: Vec<Point>,
    /// The most frequent values of each tag.
    pub(crate) tags: Vec<Tag>,
    /// What was merged into it; at most 100.
    pub(crate) merged: Vec<MergedIssue>,
}

/// What somebody, or the server, did to an issue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IssueActivity)]
pub(crate) struct Activity {
    /// Later ones are greater.
    pub(crate) id: i64,
    #[serde(serialize_with = "millis")]
    pub(crate) at: DateTime<Utc>,
    /// `resolved`, `unresolved`, `ignored`, `assigned`, `unassigned`, `priority`, `merged`, `unmerged`,
    /// `regressed`, `comment`.
    pub(crate) action: String,
    /// Null: the server itself.
    pub(crate) actor: Option<ActorRef>,
    #[schema(value_type = Object)]
    pub(crate) details: serde_json::Value,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IssueActor)]
pub(crate) struct ActorRef {
    /// Of a user, a service key or a weaver.
    pub(crate) id: Uuid,
    pub(crate) name: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IssueActivityPage)]
pub(crate) struct ActivityPage {
    pub(crate) activity: Vec<Activity>,
    /// Null at the end.
    pub(crate) next_cursor: Option<String>,
}
