//! The SQL of events.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{EventId, IssueId, OrgId, ProjectId},
};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

/// Where an event is: when it came, and its id.
pub(crate) type Place = (DateTime<Utc>, Uuid);

/// An event, as it was processed.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct EventRow {
    pub(crate) event_id: EventId,
    pub(crate) received_at: DateTime<Utc>,
    pub(crate) issue_id: IssueId,
    pub(crate) hash: Vec<u8>,
    pub(crate) at: DateTime<Utc>,
    pub(crate) level: String,
    pub(crate) title: String,
    pub(crate) release: Option<String>,
    pub(crate) dist: Option<String>,
    pub(crate) environment: Option<String>,
    pub(crate) platform: Option<String>,
    pub(crate) transaction: Option<String>,
    pub(crate) user_label: Option<String>,
    pub(crate) trace_id: Option<String>,
    pub(crate) session_id: Option<String>,
    pub(crate) thread_id: Option<Uuid>,
    pub(crate) tags: serde_json::Value,
    /// Zstandard of JSON; empty in lists.
    pub(crate) processed: Vec<u8>,
}

/// Which rows are an issue's: its own, but for those that are still to go elsewhere, and those elsewhere
/// that are still to come.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) issue: Uuid,
    /// It, and where what is still to come is.
    pub(crate) places: Vec<Uuid>,
    pub(crate) leaving: Vec<Vec<u8>>,
    pub(crate) coming: Vec<Vec<u8>>,
}

pub(crate) async fn held(db: &mut PgConnection, org: OrgId, issue: IssueId) -> Result<Held> {
    let moves = sqlx::query!(
        "SELECT from_issue, to_issue, hash FROM crash_event_moves
          WHERE org_id = $1 AND (from_issue = $2 OR to_issue = $2)",
        org.0,
        issue.0,
    )
    .fetch_all(db)
    .await?;
    let mut held =
        Held { issue: issue.0, places: vec![issue.0], leaving: Vec::new(), coming: Vec::new() };
    for row in moves {
        if row.to_issue == Some(issue.0) {
            if !held.places.contains(&row.from_issue) {
                held.places.push(row.from_issue);
            }
            held.coming.push(row.hash);
        } else {
            held.leaving.push(row.hash);
        }
    }
    Ok(held)
}

/// Events of an issue, the newest first, behind `after`. Its own and those that are still to come apart: each
/// is read in order from the index of its day, as one condition for both would not be.
pub(crate) async fn list(
    db: &mut PgConnection,
    org: OrgId,
    held: &Held,
    after: Option<Place>,
    limit: i64,
) -> Result<Vec<EventRow>> {
    let (at, id) = after.unzip();
    let found = sqlx::query_as!(
        EventRow,
        r#"SELECT event_id AS "event_id!: EventId", received_at AS "received_at!",
                  issue_id AS "issue_id!: IssueId", hash AS "hash!", at AS "at!", level AS "level!",
                  title AS "title!", release, dist, environment, platform, transaction, user_label, trace_id,
                  session_id, thread_id, tags AS "tags!", ''::bytea AS "processed!"
             FROM ((SELECT event_id, received_at, issue_id, hash, at, level, title, release, dist, environment,
                     platform, transaction, user_label, trace_id, session_id, thread_id, tags
                     FROM crash_events
                    WHERE org_id = $1 AND issue_id = $3 AND hash <> ALL($4)
                      AND ($6::timestamptz IS NULL OR (received_at, event_id) < ($6, $7))
                    ORDER BY received_at DESC, event_id DESC LIMIT $8)
                  UNION ALL
                  (SELECT event_id, received_at, issue_id, hash, at, level, title, release, dist, environment,
                     platform, transaction, user_label, trace_id, session_id, thread_id, tags
                     FROM crash_events
                    WHERE org_id = $1 AND issue_id = ANY($2) AND issue_id <> $3 AND hash = ANY($5)
                      AND ($6::timestamptz IS NULL OR (received_at, event_id) < ($6, $7))
                    ORDER BY received_at DESC, event_id DESC LIMIT $8)) found
            ORDER BY received_at DESC, event_id DESC LIMIT $8"#,
        org.0,
        &held.places,
        held.issue,
        &held.leaving,
        &held.coming,
        at,
        id,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(found)
}

/// The next event of an issue on one side of `from`; without it, the first from that end.
pub(crate) async fn beside(
    db: &mut PgConnection,
    org: OrgId,
    held: &Held,
    from: Option<Place>,
    newer: bool,
) -> Result<Option<EventId>> {
    let (at, id) = from.unzip();
    let found = if newer {
        sqlx::query_scalar!(
            r#"SELECT event_id AS "id!: EventId"
                 FROM ((SELECT received_at, event_id FROM crash_events
                        WHERE org_id = $1 AND issue_id = $3 AND hash <> ALL($4)
                          AND ($6::timestamptz IS NULL OR (received_at, event_id) > ($6, $7))
                        ORDER BY received_at, event_id LIMIT 1)
                      UNION ALL
                      (SELECT received_at, event_id FROM crash_events
                        WHERE org_id = $1 AND issue_id = ANY($2) AND issue_id <> $3 AND hash = ANY($5)
                          AND ($6::timestamptz IS NULL OR (received_at, event_id) > ($6, $7))
                        ORDER BY received_at, event_id LIMIT 1)) found
                ORDER BY received_at, event_id LIMIT 1"#,
            org.0,
            &held.places,
            held.issue,
            &held.leaving,
            &held.coming,
            at,
            id,
        )
        .fetch_optional(db)
        .await?
    } else {
        sqlx::query_scalar!(
            r#"SELECT event_id AS "id!: EventId"
                 FROM ((SELECT received_at, event_id FROM crash_events
                        WHERE org_id = $1 AND issue_id = $3 AND hash <> ALL($4)
                          AND ($6::timestamptz IS NULL OR (received_at, event_id) < ($6, $7))
                        ORDER BY received_at DESC, event_id DESC LIMIT 1)
                      UNION ALL
                      (SELECT received_at, event_id FROM crash_events
                        WHERE org_id = $1 AND issue_id = ANY($2) AND issue_id <> $3 AND hash = ANY($5)
                          AND ($6::timestamptz IS NULL OR (received_at, event_id) < ($6, $7))
                        ORDER BY received_at DESC, event_id DESC LIMIT 1)) found
                ORDER BY received_at DESC, event_id DESC LIMIT 1"#,
            org.0,
            &held.places,
            held.issue,
            &held.leaving,
            &held.coming,
            at,
            id,
        )
        .fetch_optional(db)
        .await?
    };
    Ok(found)
}

/// An event of a project.
pub(crate) async fn get(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    id: EventId,
) -> Result<Option<EventRow>> {
    let found = sqlx::query_as!(
        EventRow,
        r#"SELECT event_id AS "event_id: EventId", received_at,
                  coalesce(m.to_issue, e.issue_id) AS "issue_id!: IssueId", e.hash, at,
                  level, title, release, dist, environment, platform, transaction, user_label, trace_id,
                  session_id, thread_id, tags, processed
             FROM crash_events e
             LEFT JOIN crash_event_moves m
               ON m.org_id = e.org_id AND m.from_issue = e.issue_id AND m.hash = e.hash
            WHERE e.org_id = $1 AND e.project_id = $2 AND e.event_id = $3
            ORDER BY e.received_at DESC, m.id DESC NULLS LAST LIMIT 1"#,
        org.0,
        project.0,
        id.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(found)
}

/// What came: the payload, and what surrounded it.
pub(crate) async fn raw(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    event: &EventRow,
) -> Result<Option<(Vec<u8>, serde_json::Value)>> {
    let found = sqlx::query!(
        "SELECT payload, delivery FROM crash_raw
          WHERE org_id = $1 AND project_id = $2 AND event_id = $3 AND received_at = $4",
        org.0,
        project.0,
        event.event_id.0,
        event.received_at,
    )
    .fetch_optional(db)
    .await?;
    Ok(found.map(|row| (row.payload, row.delivery)))
}
