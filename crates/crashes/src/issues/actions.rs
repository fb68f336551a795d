//! What people do with issues: checked, carried out, written down, told.

use chrono::{DateTime, SecondsFormat, Utc};
use loom_core::{
    Error, Principal, Result,
    clock::is_storable,
    id::{IssueId, OrgId},
    text::is_plain_line,
};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Told, activity,
    model::{Issue, Person, Priority, ProjectHead},
    store,
};
use crate::Crashes;

const LONGEST_RELEASE: usize = 250;

/// A change of an issue, found to be in order.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Resolve { in_release: Option<String>, after_release: Option<String> },
    Unresolve,
    Ignore { until: Option<DateTime<Utc>> },
    Assign(Option<Person>),
    Prioritise(Priority),
    Delete,
}

impl Change {
    /// As the activity says it.
    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolved",
            Self::Unresolve => "unresolved",
            Self::Ignore { .. } => "ignored",
            Self::Assign(Some(_)) => "assigned",
            Self::Assign(None) => "unassigned",
            Self::Prioritise(_) => "priority",
            Self::Delete => "deleted",
        }
    }

    /// As watchers are told.
    fn event(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "issue.resolved",
            Self::Unresolve => "issue.unresolved",
            Self::Ignore { .. } => "issue.ignored",
            Self::Assign(_) => "issue.assigned",
            Self::Prioritise(_) => "issue.priority",
            Self::Delete => "issue.deleted",
        }
    }

    fn details(&self) -> Value {
        match self {
            Self::Resolve { in_release, after_release } => {
                json!({ "in_release": in_release, "after_release": after_release })
            }
            Self::Ignore { until } => json!({ "until": until }),
            Self::Assign(person) => json!({ "assigned_to": person }),
            Self::Prioritise(priority) => json!({ "priority": priority }),
            Self::Unresolve | Self::Delete => json!({}),
        }
    }
}

/// How an issue is resolved.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = IssueResolve)]
pub(crate) struct Resolve {
    /// The release that has the fix, or `next` for the one after the newest: events of older ones do not
    /// bring the issue back. Absent: any event does.
    #[schema(max_length = 250)]
    pub(crate) in_release: Option<String>,
}

/// How long an issue is ignored.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = IssueIgnore)]
pub(crate) struct Ignore {
    /// Absent: for ever.
    pub(crate) until: Option<DateTime<Utc>>,
}

/// Who is to look after an issue.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = IssueAssign)]
pub(crate) struct Assign {
    /// A member of the organisation by id or e-mail address, `me`, or null for nobody.
    // To be there: a misspelt name must not take issues from whoever has them.
    #[serde(deserialize_with = "Option::deserialize")]
    pub(crate) assigned_to: Option<String>,
}

impl Crashes {
    /// Looks up what a resolution names.
    pub(super) async fn resolution(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        project: &ProjectHead,
        resolve: &Resolve,
    ) -> Result<Change> {
        let (in_release, after_release) = match resolve.in_release.as_deref() {
            None => (None, None),
            Some("next") => {
                let newest = store::change::newest_release(db, org, project.id).await?;
                let newest = newest.ok_or_else(|| {
                    Error::invalid(
                        "in_release",
                        "`next`: this project has no release yet that another could follow",
                    )
                })?;
                (None, Some(newest))
            }
            Some(version) if is_plain_line(version, LONGEST_RELEASE) => {
                (Some(version.to_owned()), None)
            }
            Some(_) => {
                let message = format!(
                    "is `next` or a release: 1 to {LONGEST_RELEASE} bytes without control characters"
                );
                return Err(Error::invalid("in_release", message));
            }
        };
        Ok(Change::Resolve { in_release, after_release })
    }

    pub(super) fn ignoring(&self, ignore: &Ignore) -> Result<Change> {
        if let Some(until) = ignore.until {
            if !is_storable(until) {
                return Err(Error::invalid("until", "is a time from the year 1970 to 9999"));
            }
            if until <= self.deps.clock.now() {
                return Err(Error::invalid(
                    "until",
                    "is over already; name a time to come, or none for ever",
                ));
            }
        }
        Ok(Change::Ignore { until: ignore.until })
    }

    pub(super) async fn assignment(
        &self,
        db: &mut PgConnection,
        principal: &Principal,
        assign: &Assign,
    ) -> Result<Change> {
        let named = match assign.assigned_to.as_deref() {
            None | Some("none") => return Ok(Change::Assign(None)),
            Some("me") => match principal.user_id() {
                Some(me) => me.to_string(),
                None => {
                    let message = "`me` is no user: this credential belongs to none";
                    return Err(Error::invalid("assigned_to", message));
                }
            },
            Some(named) => named.to_owned(),
        };
        let person = store::change::member(db, principal.org, &named).await?.ok_or_else(|| {
            Error::invalid(
                "assigned_to",
                "is no member of this organisation, by id or e-mail address",
            )
        })?;
        Ok(Change::Assign(Some(person)))
    }

    /// Carries a change out on issues that are locked, and writes it down.
    pub(crate) async fn change(
        &self,
        db: &mut PgConnection,
        principal: &Principal,
        project: &ProjectHead,
        issues: &[Issue],
        change: &Change,
    ) -> Result<()> {
        let now = self.deps.clock.now();
        let ids: Vec<Uuid> = issues.iter().map(|issue| issue.id.0).collect();
        let org = principal.org;
        store::change::apply(db, org, project.id, &ids, change, principal.user_id(), now).await?;
        if !matches!(change, Change::Delete) {
            let details = change.details();
            activity::record(db, org, &ids, Some(principal), change.action(), &details, now)
                .await?;
        }
        Ok(())
    }

    /// Tells watchers of a change, after the commit.
    pub(crate) fn tell_change(
        &self,
        principal: &Principal,
        project: &ProjectHead,
        issues: &[Issue],
        change: &Change,
    ) {
        for issue in issues {
            let mut data = json!({
                "issue_id": issue.id, "short_id": issue.short_id,
                "title": loom_core::text::cut(&issue.title, 200), "by": principal.name.as_ref(),
                "timestamp": self.deps.clock.now().to_rfc3339_opts(SecondsFormat::Millis, true),
            });
            if let (Value::Object(data), Value::Object(more)) = (&mut data, change.details()) {
                data.extend(more);
            }
            self.tell_watchers(&Told::new(principal.org, project.id, change.event(), data));
        }
    }

    /// The issue of a project, locked for a change. One that was merged is changed where it went.
    ///
    /// # Errors
    /// 404, or 409 `issue_merged`.
    pub(super) async fn lock_issue(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        project: &ProjectHead,
        named: &str,
    ) -> Result<Issue> {
        let issue = store::find(db, org, project, named, true).await?;
        let issue = issue.ok_or_else(|| Error::not_found("issue"))?;
        match issue.merged_into {
            None => Ok(issue),
            Some(into) => Err(merged(into)),
        }
    }
}

/// 409: the issue lives on in another.
pub(super) fn merged(into: IssueId) -> Error {
    Error::conflict(
        "issue_merged",
        format!("this issue was merged into {into}; change that one, or unmerge it first"),
    )
    .with("merged_into", into.to_string())
}
