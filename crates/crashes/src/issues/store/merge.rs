//! The SQL of merging issues, and of taking them apart again.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{IssueId, OrgId, ProjectId},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    event::OWN_TAGS,
    pipeline::{MAX_KEYS, MAX_VALUES, OTHER},
    users::{self, Users},
};

/// Whose issues.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) org: OrgId,
    pub(crate) project: ProjectId,
    pub(crate) now: DateTime<Utc>,
}

/// Moves hashes from where they are to `to`, and has their events follow; their number.
async fn rehash(
    db: &mut PgConnection,
    place: Place,
    hashes: &[Vec<u8>],
    to: IssueId,
) -> Result<u64> {
    // Those that are still on the way somewhere else go here directly, or stay where they are.
    sqlx::query!(
        "UPDATE crash_event_moves SET to_issue = $4
          WHERE org_id = $1 AND project_id = $2 AND hash = ANY($3) AND to_issue IS NOT NULL",
        place.org.0,
        place.project.0,
        hashes,
        to.0,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "DELETE FROM crash_event_moves
          WHERE org_id = $1 AND project_id = $2 AND hash = ANY($3) AND from_issue = to_issue",
        place.org.0,
        place.project.0,
        hashes,
    )
    .execute(&mut *db)
    .await?;
    let moved = sqlx::query!(
        "WITH old AS (
             SELECT hash, issue_id FROM crash_grouping_hashes
              WHERE org_id = $1 AND project_id = $2 AND hash = ANY($3) ORDER BY hash FOR UPDATE
         ), moved AS (
             UPDATE crash_grouping_hashes h SET issue_id = $4 FROM old
              WHERE h.org_id = $1 AND h.project_id = $2 AND h.hash = old.hash
         )
         INSERT INTO crash_event_moves (org_id, project_id, from_issue, to_issue, hash, created_at)
         SELECT $1, $2, issue_id, $4, hash, $5 FROM old",
        place.org.0,
        place.project.0,
        hashes,
        to.0,
        place.now,
    )
    .execute(db)
    .await?;
    Ok(moved.rows_affected())
}

/// Gives all that `sources` have to `target`. All of them are locked.
pub(crate) async fn merge(
    db: &mut PgConnection,
    place: Place,
    target: IssueId,
    sources: &[Uuid],
) -> Result<()> {
    let Place { org, project, now } = place;
    let hashes = sqlx::query_scalar!(
        "SELECT hash FROM crash_grouping_hashes
          WHERE org_id = $1 AND project_id = $2 AND issue_id = ANY($3)",
        org.0,
        project.0,
        sources,
    )
    .fetch_all(&mut *db)
    .await?;
    rehash(db, place, &hashes, target).await?;
    sqlx::query!(
        "INSERT INTO crash_issue_hours (org_id, project_id, issue_id, hour, environment, events)
         SELECT $1, $2, $3, hour, environment, sum(events)::bigint FROM crash_issue_hours
          WHERE org_id = $1 AND issue_id = ANY($4) GROUP BY hour, environment ORDER BY hour, environment
         ON CONFLICT (issue_id, hour, environment)
         DO UPDATE SET events = crash_issue_hours.events + EXCLUDED.events",
        org.0,
        project.0,
        target.0,
        sources,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "INSERT INTO crash_issue_tags (org_id, project_id, issue_id, key, value, events, last_seen)
         SELECT $1, $2, $3, key, value, sum(events)::bigint, max(last_seen) FROM crash_issue_tags
          WHERE org_id = $1 AND issue_id = ANY($4) GROUP BY key, value ORDER BY key, value
         ON CONFLICT (issue_id, key, value)
         DO UPDATE SET events = crash_issue_tags.events + EXCLUDED.events,
                       last_seen = greatest(crash_issue_tags.last_seen, EXCLUDED.last_seen)",
        org.0,
        project.0,
        target.0,
        sources,
    )
    .execute(&mut *db)
    .await?;
    bound_tags(db, org, target).await?;
    clear(db, org, sources).await?;
    lack_too(db, place, target, sources).await?;

    let sketches = sqlx::query_scalar!(
        "SELECT users FROM crash_issues WHERE org_id = $1 AND (id = $2 OR id = ANY($3))",
        org.0,
        target.0,
        sources,
    )
    .fetch_all(&mut *db)
    .await?;
    let mut all = Users::default();
    for sketch in sketches {
        all.merge(&Users::from_bytes(&sketch));
    }
    sqlx::query!(
        "UPDATE crash_issues i
            SET event_count = i.event_count + s.events, first_seen = least(i.first_seen, s.first_seen),
                last_seen = greatest(i.last_seen, s.last_seen),
                first_release = CASE WHEN s.first_seen < i.first_seen THEN coalesce(s.first_release, i.first_release)
                                     ELSE coalesce(i.first_release, s.first_release) END,
                last_release = CASE WHEN s.last_seen > i.last_seen THEN coalesce(s.last_release, i.last_release)
                                    ELSE coalesce(i.last_release, s.last_release) END,
                users = $4, user_count = $5, updated_at = $6
           FROM (SELECT sum(event_count)::bigint AS events, min(first_seen) AS first_seen,
                        max(last_seen) AS last_seen,
                        (array_agg(first_release ORDER BY first_seen))[1] AS first_release,
                        (array_agg(last_release ORDER BY last_seen DESC))[1] AS last_release
                   FROM crash_issues WHERE org_id = $1 AND id = ANY($3)) s
          WHERE i.org_id = $1 AND i.id = $2",
        org.0,
        target.0,
        sources,
        all.to_bytes(),
        all.count(),
        now,
    )
    .execute(&mut *db)
    .await?;
    // Also what had been merged into them before.
    sqlx::query!(
        "UPDATE crash_issues SET merged_into = $2, event_count = 0, user_count = 0, users = '', updated_at = $4
          WHERE org_id = $1 AND (id = ANY($3) OR merged_into = ANY($3))",
        org.0,
        target.0,
        sources,
        now,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What came together may be more than is counted by itself.
async fn bound_tags(db: &mut PgConnection, org: OrgId, issue: IssueId) -> Result<()> {
    sqlx::query!(
        "WITH ranked AS (
             SELECT key, value, row_number() OVER (PARTITION BY key ORDER BY events DESC, value) AS place
               FROM crash_issue_tags WHERE org_id = $1 AND issue_id = $2 AND value <> $4
         ), surplus AS (
             DELETE FROM crash_issue_tags t USING ranked r
              WHERE t.org_id = $1 AND t.issue_id = $2 AND t.key = r.key AND t.value = r.value AND r.place > $3
          RETURNING t.project_id, t.key, t.events, t.last_seen
         )
         INSERT INTO crash_issue_tags (org_id, project_id, issue_id, key, value, events, last_seen)
         SELECT $1, project_id, $2, key, $4, sum(events)::bigint, max(last_seen) FROM surplus GROUP BY project_id, key
         ON CONFLICT (issue_id, key, value)
         DO UPDATE SET events = crash_issue_tags.events + EXCLUDED.events,
                       last_seen = greatest(crash_issue_tags.last_seen, EXCLUDED.last_seen)",
        org.0,
        issue.0,
        MAX_VALUES,
        OTHER,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "DELETE FROM crash_issue_tags WHERE org_id = $1 AND issue_id = $2 AND key IN (
             SELECT key FROM crash_issue_tags WHERE org_id = $1 AND issue_id = $2 AND key <> ALL ($4)
              GROUP BY key ORDER BY sum(events) DESC, key OFFSET $3)",
        org.0,
        issue.0,
        MAX_KEYS,
        OWN_TAGS as _,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What events of the others lack, they lack wherever they are: a file that comes late has all of this issue
/// processed again.
async fn lack_too(
    db: &mut PgConnection,
    place: Place,
    issue: IssueId,
    others: &[Uuid],
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO crash_missing_files (org_id, project_id, wanted, issue_id, last_seen)
         SELECT $1, $2, wanted, $3, max(last_seen) FROM crash_missing_files
          WHERE org_id = $1 AND project_id = $2 AND issue_id = ANY($4) GROUP BY wanted ORDER BY wanted
         ON CONFLICT (project_id, wanted, issue_id)
         DO UPDATE SET last_seen = greatest(crash_missing_files.last_seen, EXCLUDED.last_seen)",
        place.org.0,
        place.project.0,
        issue.0,
        others,
    )
    .execute(db)
    .await?;
    Ok(())
}

async fn clear(db: &mut PgConnection, org: OrgId, issues: &[Uuid]) -> Result<()> {
    sqlx::query!(
        "DELETE FROM crash_issue_hours WHERE org_id = $1 AND issue_id = ANY($2)",
        org.0,
        issues,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "DELETE FROM crash_issue_tags WHERE org_id = $1 AND issue_id = ANY($2)",
        org.0,
        issues,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Hashes of an issue that another issue made, with that one: these, or all that these issues made.
pub(crate) async fn foreign_hashes(
    db: &mut PgConnection,
    place: Place,
    issue: IssueId,
    hashes: &[Vec<u8>],
    owners: &[Uuid],
) -> Result<Vec<(Vec<u8>, Uuid)>> {
    let found = sqlx::query!(
        "SELECT hash, own_issue_id FROM crash_grouping_hashes
          WHERE org_id = $1 AND project_id = $2 AND issue_id = $3 AND own_issue_id <> $3
            AND (hash = ANY($4) OR own_issue_id = ANY($5))",
        place.org.0,
        place.project.0,
        issue.0,
        hashes,
        owners,
    )
    .fetch_all(db)
    .await?;
    Ok(found.into_iter().map(|row| (row.hash, row.own_issue_id)).collect())
}

/// Gives hashes of `from` back to `owner`, with what their events count for.
pub(crate) async fn unmerge(
    db: &mut PgConnection,
    place: Place,
    from: IssueId,
    owner: IssueId,
    hashes: &[Vec<u8>],
) -> Result<()> {
    let Place { org, project, now } = place;
    // Where events of these hashes may be just now.
    let mut places = sqlx::query_scalar!(
        "SELECT from_issue FROM crash_event_moves WHERE org_id = $1 AND project_id = $2 AND hash = ANY($3)",
        org.0,
        project.0,
        hashes,
    )
    .fetch_all(&mut *db)
    .await?;
    places.extend([from.0, owner.0]);
    rehash(db, place, hashes, owner).await?;

    sqlx::query!(
        // As they were counted there: by their environment, or with others.
        "WITH named AS (
             SELECT date_trunc('hour', at, 'UTC') AS hour, coalesce(environment, '') AS environment,
                    count(*) AS events
               FROM crash_events WHERE org_id = $1 AND issue_id = ANY($3) AND hash = ANY($4) GROUP BY 1, 2
         ), counted AS (
             SELECT n.hour, coalesce(h.environment, $7) AS environment, sum(n.events)::bigint AS events
               FROM named n LEFT JOIN crash_issue_hours h
                 ON h.issue_id = $5 AND h.hour = n.hour AND h.environment = n.environment
              GROUP BY 1, 2
         ), less AS (
             UPDATE crash_issue_hours h SET events = greatest(h.events - c.events, 0) FROM counted c
              WHERE h.org_id = $1 AND h.issue_id = $5 AND h.hour = c.hour AND h.environment = c.environment
         )
         INSERT INTO crash_issue_hours (org_id, project_id, issue_id, hour, environment, events)
         SELECT $1, $2, $6, hour, environment, events FROM counted ORDER BY hour, environment
         ON CONFLICT (issue_id, hour, environment)
         DO UPDATE SET events = crash_issue_hours.events + EXCLUDED.events",
        org.0,
        project.0,
        &places,
        hashes,
        from.0,
        owner.0,
        OTHER,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "WITH counted AS (
             SELECT t.key, t.value, count(*) AS events, max(e.at) AS last_seen
               FROM crash_events e, jsonb_each_text(e.tags) t
              WHERE e.org_id = $1 AND e.issue_id = ANY($3) AND e.hash = ANY($4)
                AND jsonb_typeof(e.tags) = 'object' GROUP BY 1, 2
         ), less AS (
             UPDATE crash_issue_tags t SET events = greatest(t.events - c.events, 0) FROM counted c
              WHERE t.org_id = $1 AND t.issue_id = $5 AND t.key = c.key AND t.value = c.value
         ), others AS (
             UPDATE crash_issue_tags t SET events = greatest(t.events - c.events, 0)
               FROM (SELECT key, sum(events)::bigint AS events FROM counted n
                      WHERE NOT EXISTS (SELECT FROM crash_issue_tags o
                                         WHERE o.issue_id = $5 AND o.key = n.key AND o.value = n.value)
                      GROUP BY key) c
              WHERE t.org_id = $1 AND t.issue_id = $5 AND t.key = c.key AND t.value = $7
         )
         INSERT INTO crash_issue_tags (org_id, project_id, issue_id, key, value, events, last_seen)
         SELECT $1, $2, $6, key, value, events, last_seen FROM counted ORDER BY key, value
         ON CONFLICT (issue_id, key, value)
         DO UPDATE SET events = crash_issue_tags.events + EXCLUDED.events,
                       last_seen = greatest(crash_issue_tags.last_seen, EXCLUDED.last_seen)",
        org.0,
        project.0,
        &places,
        hashes,
        from.0,
        owner.0,
        OTHER,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "WITH hours AS (DELETE FROM crash_issue_hours WHERE org_id = $1 AND issue_id = $2 AND events = 0)
         DELETE FROM crash_issue_tags WHERE org_id = $1 AND issue_id = $2 AND events = 0",
        org.0,
        from.0,
    )
    .execute(&mut *db)
    .await?;

    bound_tags(db, org, owner).await?;
    lack_too(db, place, owner, &[from.0]).await?;

    let theirs = users_of(db, org, &places, hashes, true).await?;
    let rest = users_of(db, org, &[from.0], hashes, false).await?;
    sqlx::query!(
        "WITH counted AS (
             SELECT count(*) AS events, min(at) AS first_seen, max(at) AS last_seen,
                    (array_agg(release ORDER BY at) FILTER (WHERE release IS NOT NULL))[1] AS first_release,
                    (array_agg(release ORDER BY at DESC) FILTER (WHERE release IS NOT NULL))[1] AS last_release
               FROM crash_events WHERE org_id = $1 AND issue_id = ANY($2) AND hash = ANY($3)
         ), less AS (
             UPDATE crash_issues SET event_count = greatest(event_count - counted.events, 0), users = $6,
                    user_count = $7, updated_at = $10
               FROM counted WHERE org_id = $1 AND id = $4
         )
         UPDATE crash_issues i
            SET merged_into = NULL, event_count = i.event_count + counted.events,
                first_seen = least(i.first_seen, counted.first_seen),
                last_seen = greatest(i.last_seen, counted.last_seen),
                first_release = coalesce(i.first_release, counted.first_release),
                last_release = coalesce(counted.last_release, i.last_release),
                users = $8, user_count = $9, updated_at = $10
           FROM counted WHERE i.org_id = $1 AND i.id = $5",
        org.0,
        &places,
        hashes,
        from.0,
        owner.0,
        rest.to_bytes(),
        rest.count(),
        theirs.to_bytes(),
        theirs.count(),
        now,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Users of events that are kept, of these hashes or of all others.
async fn users_of(
    db: &mut PgConnection,
    org: OrgId,
    places: &[Uuid],
    hashes: &[Vec<u8>],
    of_these: bool,
) -> Result<Users> {
    let labels = sqlx::query_scalar!(
        r#"SELECT DISTINCT user_label AS "label!" FROM crash_events
            WHERE org_id = $1 AND issue_id = ANY($2) AND (hash = ANY($3)) = $4 AND user_label IS NOT NULL"#,
        org.0,
        places,
        hashes,
        of_these,
    )
    .fetch_all(db)
    .await?;
    let mut all = Users::default();
    for label in labels {
        all.add(users::hash(&label));
    }
    Ok(all)
}
