//! `issues list`, `resolve`, `mute`, `unresolve` of sentry-cli. Issues are known to it by their number.

use axum::{
    Json,
    extract::{RawQuery, State},
    response::Response,
};
use loom_core::{
    Error, Path, Principal, Result,
    id::{OrgId, ProjectId},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::releases::paged;
use crate::{
    Crashes,
    issues::{actions, store},
};

const PAGE: i64 = 100;
/// Issues that one command changes.
const MAX_IDS: usize = 1000;
const MOST: i64 = 10_000;
/// Of one transaction.
const BATCH: usize = 100;

/// Which issues a command means.
#[derive(Debug, Default)]
struct Selection {
    numbers: Vec<i64>,
    /// Those of this status; none: of all.
    statuses: Option<Vec<String>>,
    /// Below this number.
    before: Option<i64>,
}

impl Selection {
    /// `?id=1&id=2`, `?status=resolved`, `?query=is:unresolved`, `?cursor=…`
    fn parse(query: Option<&str>) -> Result<Self> {
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query.unwrap_or_default())
            .map_err(|_| {
                Error::malformed("invalid_query", "the query is not one of names and values")
            })?;
        let mut selection = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "id" => {
                    let number = value.parse();
                    selection
                        .numbers
                        .push(number.map_err(|_| Error::invalid("id", "is a number"))?);
                }
                "status" => selection.statuses = Some(status(&value)?),
                "query" => {
                    for word in value.split_whitespace() {
                        let word = word.strip_prefix("is:").ok_or_else(|| {
                            Error::invalid(
                                "query",
                                "`is:unresolved`, `is:resolved` and `is:ignored` are known here",
                            )
                        })?;
                        selection.statuses = Some(status(word)?);
                    }
                }
                "cursor" if !value.is_empty() => {
                    selection.before = Some(value.parse().map_err(|_| {
                        Error::malformed("invalid_cursor", "`cursor` is not one of ours")
                    })?);
                }
                _ => {}
            }
        }
        if selection.numbers.len() > MAX_IDS {
            return Err(Error::invalid("id", format!("at most {MAX_IDS} at once")));
        }
        Ok(selection)
    }
}

/// Its words for states, in ours.
fn status(word: &str) -> Result<Vec<String>> {
    let ours: &[&str] = match word {
        "unresolved" => &["unresolved", "regressed"],
        "resolved" => &["resolved"],
        "muted" | "ignored" | "archived" => &["ignored"],
        _ => {
            return Err(Error::invalid("status", "is `unresolved`, `resolved` or `muted`"));
        }
    };
    Ok(ours.iter().map(|word| (*word).to_owned()).collect())
}

pub(super) async fn list(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((org, project)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    let acting = crashes.reader(&principal, &org).await?;
    let project = crashes.project(&acting, &project).await?;
    let selection = Selection::parse(query.as_deref())?;
    let rows = find(&crashes.deps.pool, acting.org, project.id, &selection, PAGE + 1).await?;
    let page = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let next = (rows.len() > page).then(|| rows.get(page - 1).map(|row| row.number)).flatten();
    let told: Vec<_> = rows.iter().take(page).map(Row::describe).collect();
    Ok(paged(Value::Array(told), next.map(|number| number.to_string()).as_deref()))
}

#[derive(Deserialize)]
pub(super) struct Change {
    status: Option<String>,
}

pub(super) async fn change(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((org, project)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    loom_core::Json(change): loom_core::Json<Change>,
) -> Result<Json<Value>> {
    let acting = crashes.writer(&principal, &org).await?;
    let selection = Selection::parse(query.as_deref())?;
    let Some(word) = change.status else { return Ok(Json(json!({}))) };
    let change = match word.as_str() {
        "unresolved" => actions::Change::Unresolve,
        "resolved" => actions::Change::Resolve { in_release: None, after_release: None },
        "muted" | "ignored" | "archived" => actions::Change::Ignore { until: None },
        _ => return Err(Error::invalid("status", "is `unresolved`, `resolved` or `muted`")),
    };
    crashes.change_selected(&acting, &project, &selection, &change).await?;
    Ok(Json(json!({"status": word})))
}

struct Row {
    number: i64,
    short_prefix: String,
    title: String,
    culprit: Option<String>,
    status: String,
    level: String,
    event_count: i64,
    user_count: i64,
    first_seen: chrono::DateTime<chrono::Utc>,
    last_seen: chrono::DateTime<chrono::Utc>,
}

impl Row {
    fn describe(&self) -> Value {
        let status = match self.status.as_str() {
            "regressed" => "unresolved",
            other => other,
        };
        json!({
            "id": self.number.to_string(),
            "shortId": format!("{}-{}", self.short_prefix, self.number),
            "title": self.title, "culprit": self.culprit, "status": status, "level": self.level,
            "count": self.event_count.to_string(), "userCount": self.user_count,
            "firstSeen": self.first_seen.to_rfc3339(), "lastSeen": self.last_seen.to_rfc3339(),
        })
    }
}

/// The newest first.
async fn find(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    selection: &Selection,
    limit: i64,
) -> Result<Vec<Row>> {
    Ok(sqlx::query_as!(
        Row,
        "SELECT i.number, p.short_prefix, i.title, i.culprit, i.status, i.level, i.event_count, i.user_count,
                i.first_seen, i.last_seen
           FROM crash_issues i JOIN crash_projects p ON p.org_id = i.org_id AND p.id = i.project_id
          WHERE i.org_id = $1 AND i.project_id = $2 AND i.merged_into IS NULL
            AND ($3::bigint[] = '{}' OR i.number = ANY($3))
            AND ($4::text[] IS NULL OR i.status = ANY($4))
            AND ($5::bigint IS NULL OR i.number < $5)
          ORDER BY i.number DESC LIMIT $6",
        org.0,
        project.0,
        &selection.numbers,
        selection.statuses.as_deref(),
        selection.before,
        limit
    )
    .fetch_all(pool)
    .await?)
}

/// Those of the selection, in the order in which they are locked.
async fn ids(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    selection: &Selection,
) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar!(
        "SELECT id FROM crash_issues
          WHERE org_id = $1 AND project_id = $2 AND merged_into IS NULL
            AND ($3::bigint[] = '{}' OR number = ANY($3))
            AND ($4::text[] IS NULL OR status = ANY($4))
          ORDER BY id LIMIT $5",
        org.0,
        project.0,
        &selection.numbers,
        selection.statuses.as_deref(),
        MOST
    )
    .fetch_all(pool)
    .await?)
}

impl Crashes {
    /// As on the native route: written down, and told to who watches.
    async fn change_selected(
        &self,
        principal: &Principal,
        project: &str,
        selection: &Selection,
        change: &actions::Change,
    ) -> Result<()> {
        let pool = &self.deps.pool;
        let head = self.project_head(principal, project).await?;
        let ids = ids(pool, principal.org, head.id, selection).await?;
        for batch in ids.chunks(BATCH) {
            let mut tx = loom_db::begin(pool).await?;
            let mut locked = store::lock_all(&mut tx, principal.org, head.id, batch).await?;
            locked.retain(|issue| issue.merged_into.is_none());
            if !locked.is_empty() {
                self.change(&mut tx, principal, &head, &locked, change).await?;
            }
            tx.commit().await?;
            self.tell_change(principal, &head, &locked, change);
        }
        Ok(())
    }
}
