//! The SQL of what is known of one issue, and of series.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use loom_core::{
    Result,
    id::{IssueId, OrgId, ProjectId},
};
use sqlx::PgConnection;

use super::super::model::{GroupingHash, MergedIssue, Point, Tag, TagValue, short_id};

const HASHES: i64 = 100;
const MERGED: i64 = 100;
const KEYS: i64 = 100;

pub(crate) async fn hashes(
    db: &mut PgConnection,
    org: OrgId,
    issue: IssueId,
) -> Result<Vec<GroupingHash>> {
    let found = sqlx::query!(
        r#"SELECT hash, algorithm, components, own_issue_id AS "own: IssueId", created_at
             FROM crash_grouping_hashes WHERE org_id = $1 AND issue_id = $2
            ORDER BY created_at DESC, hash LIMIT $3"#,
        org.0,
        issue.0,
        HASHES,
    )
    .fetch_all(db)
    .await?;
    let shown = found.into_iter().map(|row| GroupingHash {
        hash: hex::encode(row.hash),
        algorithm: row.algorithm,
        components: row.components,
        own_issue_id: row.own,
        created_at: row.created_at,
    });
    Ok(shown.collect())
}

pub(crate) async fn merged(
    db: &mut PgConnection,
    org: OrgId,
    issue: IssueId,
) -> Result<Vec<MergedIssue>> {
    let found = sqlx::query!(
        r#"SELECT i.id AS "id: IssueId", i.number, i.title, p.short_prefix
             FROM crash_issues i JOIN crash_projects p ON p.id = i.project_id
            WHERE i.org_id = $1 AND i.merged_into = $2 ORDER BY i.number LIMIT $3"#,
        org.0,
        issue.0,
        MERGED,
    )
    .fetch_all(db)
    .await?;
    let shown = found.into_iter().map(|row| MergedIssue {
        id: row.id,
        short_id: short_id(&row.short_prefix, row.number),
        title: row.title,
    });
    Ok(shown.collect())
}

/// Tags with their `values` most frequent values; of one key, or of all.
pub(crate) async fn tags(
    db: &mut PgConnection,
    org: OrgId,
    issue: IssueId,
    key: Option<&str>,
    values: i64,
) -> Result<Vec<Tag>> {
    let found = sqlx::query!(
        r#"SELECT key, value, events, last_seen, total AS "total!", values_count AS "values_count!" FROM (
               SELECT key, value, events, last_seen,
                      (sum(events) OVER (PARTITION BY key))::bigint AS total,
                      count(*) OVER (PARTITION BY key) AS values_count,
                      row_number() OVER (PARTITION BY key ORDER BY events DESC, last_seen DESC, value) AS place
                 FROM crash_issue_tags
                WHERE org_id = $1 AND issue_id = $2 AND ($3::text IS NULL OR key = $3)
           ) ranked WHERE place <= $4 ORDER BY key, place LIMIT $5"#,
        org.0,
        issue.0,
        key,
        values,
        KEYS * values.max(1),
    )
    .fetch_all(db)
    .await?;
    let mut tags: Vec<Tag> = Vec::new();
    for row in found {
        if tags.last().is_none_or(|tag| tag.key != row.key) {
            tags.push(Tag {
                key: row.key,
                events: row.total,
                values_count: row.values_count,
                values: Vec::new(),
            });
        }
        let Some(tag) = tags.last_mut() else { continue };
        let share = if row.total > 0 { row.events as f64 / row.total as f64 } else { 0.0 };
        tag.values.push(TagValue {
            value: row.value,
            events: row.events,
            share: (share * 10_000.0).round() / 100.0,
            last_seen: row.last_seen,
        });
    }
    Ok(tags)
}

/// What a series is of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of {
    Issue(IssueId),
    Project(ProjectId),
    /// All projects of the organisation that are not deleted.
    All,
}

/// Events by the hour or by the day, every one of them, from the one that `from` is in to the one that
/// ends with `to`.
pub(crate) async fn series(
    db: &mut PgConnection,
    org: OrgId,
    of: Of,
    environment: Option<&str>,
    step: TimeDelta,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<Point>> {
    let from = from.duration_trunc(step).unwrap_or(from);
    let seconds = step.num_seconds() as f64;
    // Counted by the hour of UTC, of which a day of UTC has 24. All hours are read once, not once for each
    // point.
    let points = match of {
        Of::Issue(issue) => {
            sqlx::query_as!(
                Point,
                r#"SELECT at AS "at!", coalesce(sums.events, 0) AS "events!"
                     FROM generate_series($3::timestamptz, $4::timestamptz - interval '1 microsecond',
                                          make_interval(secs => $5)) AS at
                     LEFT JOIN (SELECT date_bin(make_interval(secs => $5), hour, $3) AS bin,
                                       sum(events)::bigint AS events
                                  FROM crash_issue_hours
                                 WHERE org_id = $1 AND issue_id = $2 AND hour >= $3
                                   AND hour < $4::timestamptz + make_interval(secs => $5)
                                   AND ($6::text IS NULL OR environment = $6)
                                 GROUP BY bin) sums ON sums.bin = at
                    ORDER BY at"#,
                org.0,
                issue.0,
                from,
                to,
                seconds,
                environment,
            )
            .fetch_all(db)
            .await?
        }
        Of::All => {
            sqlx::query_as!(
                Point,
                r#"SELECT at AS "at!", coalesce(sums.events, 0) AS "events!"
                     FROM generate_series($2::timestamptz, $3::timestamptz - interval '1 microsecond',
                                          make_interval(secs => $4)) AS at
                     LEFT JOIN (SELECT date_bin(make_interval(secs => $4), hour, $2) AS bin,
                                       sum(events)::bigint AS events
                                  FROM crash_projects p
                                  JOIN crash_issue_hours h ON h.org_id = p.org_id AND h.project_id = p.id
                                 WHERE p.org_id = $1 AND p.deleted_at IS NULL AND hour >= $2
                                   AND hour < $3::timestamptz + make_interval(secs => $4)
                                   AND ($5::text IS NULL OR environment = $5)
                                 GROUP BY bin) sums ON sums.bin = at
                    ORDER BY at"#,
                org.0,
                from,
                to,
                seconds,
                environment,
            )
            .fetch_all(db)
            .await?
        }
        Of::Project(project) => {
            sqlx::query_as!(
                Point,
                r#"SELECT at AS "at!", coalesce(sums.events, 0) AS "events!"
                     FROM generate_series($3::timestamptz, $4::timestamptz - interval '1 microsecond',
                                          make_interval(secs => $5)) AS at
                     LEFT JOIN (SELECT date_bin(make_interval(secs => $5), hour, $3) AS bin,
                                       sum(events)::bigint AS events
                                  FROM crash_issue_hours
                                 WHERE org_id = $1 AND project_id = $2 AND hour >= $3
                                   AND hour < $4::timestamptz + make_interval(secs => $5)
                                   AND ($6::text IS NULL OR environment = $6)
                                 GROUP BY bin) sums ON sums.bin = at
                    ORDER BY at"#,
                org.0,
                project.0,
                from,
                to,
                seconds,
                environment,
            )
            .fetch_all(db)
            .await?
        }
    };
    Ok(points)
}

/// Open issues, of a project or of all.
pub(crate) async fn open(
    pool: &sqlx::PgPool,
    org: OrgId,
    project: Option<ProjectId>,
) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM crash_issues
            WHERE org_id = $1 AND ($2::uuid IS NULL OR project_id = $2)
              AND merged_into IS NULL AND status IN ('unresolved', 'regressed')"#,
        org.0,
        project.map(|project| project.0),
    )
    .fetch_one(pool)
    .await?;
    Ok(count)
}
