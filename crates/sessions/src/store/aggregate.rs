//! Adding sessions up by half hours. The sums of a half hour are made anew of its sessions, whole, in one
//! snapshot with the marks that ask for it: however often and wherever this runs, and wherever it is
//! killed, what is read is the same.

use chrono::{DateTime, Utc};
use loom_core::id::{OrgId, ProjectId};
use sqlx::{PgConnection, PgPool};

use crate::users::Users;

/// Half hours of one transaction.
const SLOTS: i64 = 500;

/// Projects of which there is something to add up.
pub(crate) async fn marked(pool: &PgPool) -> sqlx::Result<Vec<(OrgId, ProjectId)>> {
    let rows = sqlx::query!(
        r#"SELECT DISTINCT org_id AS "org_id: OrgId", project_id AS "project_id: ProjectId"
             FROM app_session_marks ORDER BY 1, 2"#
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.org_id, row.project_id)).collect())
}

/// The oldest mark: what of is not added up, and since when.
pub(crate) async fn oldest_mark(pool: &PgPool) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!("SELECT marked_at FROM app_session_marks ORDER BY id LIMIT 1")
        .fetch_optional(pool)
        .await
}

/// Adds up what is marked of a project, or a part of it; gives how many half hours that were. What began
/// before `kept_from` is not there any more in full: its sums stay as they are.
pub(crate) async fn run(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    kept_from: DateTime<Utc>,
) -> sqlx::Result<u64> {
    let mut tx = loom_db::begin(pool).await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *tx).await?;
    // Many groups of many are sorted and hashed here, by few at a time.
    sqlx::query("SET LOCAL work_mem = '64MB'").execute(&mut *tx).await?;
    sqlx::query("SET LOCAL statement_timeout = '10min'").execute(&mut *tx).await?;
    let slots: Vec<DateTime<Utc>> = sqlx::query_scalar!(
        "SELECT DISTINCT at FROM app_session_marks WHERE project_id = $1 ORDER BY at LIMIT $2",
        project.0,
        SLOTS,
    )
    .fetch_all(&mut *tx)
    .await?;
    // Of marks that were set since this began none is visible, and none is taken away.
    sqlx::query!(
        "DELETE FROM app_session_marks WHERE project_id = $1 AND at = ANY ($2)",
        project.0,
        &slots,
    )
    .execute(&mut *tx)
    .await?;
    let kept: Vec<_> = slots.iter().copied().filter(|at| *at >= kept_from).collect();
    if !kept.is_empty() {
        let mut releases = clear(&mut tx, project, &kept).await?;
        releases.extend(sum(&mut tx, org, project, &kept).await?);
        releases.sort_unstable();
        releases.dedup();
        total(&mut tx, org, project, &releases).await?;
        unite_users(&mut tx, project, &kept).await?;
    }
    tx.commit().await?;
    Ok(slots.len() as u64)
}

async fn clear(
    db: &mut PgConnection,
    project: ProjectId,
    slots: &[DateTime<Utc>],
) -> sqlx::Result<Vec<String>> {
    sqlx::query!(
        "DELETE FROM app_session_sets WHERE project_id = $1 AND at = ANY ($2)",
        project.0,
        slots,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query_scalar!(
        "WITH gone AS
             (DELETE FROM app_session_counts WHERE project_id = $1 AND at = ANY ($2) RETURNING release)
         SELECT DISTINCT release AS \"release!\" FROM gone",
        project.0,
        slots,
    )
    .fetch_all(db)
    .await
}

async fn sum(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    slots: &[DateTime<Utc>],
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"WITH sums AS MATERIALIZED (
             SELECT a.at, s.release, s.environment,
                    coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 0), 0) AS healthy,
                    coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 1), 0) AS errored,
                    coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 2), 0) AS unhandled,
                    coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 3), 0) AS abnormal,
                    coalesce(sum(s.count) FILTER (WHERE s.class = 4), 0) AS crashed,
                    coalesce(sum(CASE s.class WHEN 4 THEN 1 ELSE s.weight END)
                        FILTER (WHERE s.duration_ms IS NOT NULL), 0) AS timed,
                    coalesce(sum(s.duration_ms * CASE s.class WHEN 4 THEN 1 ELSE s.weight END), 0)
                        AS duration_ms,
                    min(s.started) AS first_started, max(s.started) AS last_started,
                    array_agg(DISTINCT s.user_hash) FILTER (WHERE s.user_hash IS NOT NULL) AS users,
                    array_agg(DISTINCT s.user_hash)
                        FILTER (WHERE s.user_hash IS NOT NULL AND s.class = 4) AS crashed_users
               FROM unnest($3::timestamptz[]) AS a (at)
               JOIN app_sessions s ON s.org_id = $1 AND s.project_id = $2
                AND s.started >= a.at AND s.started < a.at + interval '30 minutes'
              GROUP BY a.at, s.release, s.environment
           ), durations AS (
             SELECT at, release, environment, array_agg(duration_bucket ORDER BY duration_bucket) AS buckets,
                    array_agg(timed ORDER BY duration_bucket) AS counts
               FROM (SELECT a.at, s.release, s.environment, s.duration_bucket,
                            sum(CASE s.class WHEN 4 THEN 1 ELSE s.weight END) AS timed
                       FROM unnest($3::timestamptz[]) AS a (at)
                       JOIN app_sessions s ON s.org_id = $1 AND s.project_id = $2
                        AND s.started >= a.at AND s.started < a.at + interval '30 minutes'
                      WHERE s.duration_bucket IS NOT NULL
                      GROUP BY a.at, s.release, s.environment, s.duration_bucket) d
              GROUP BY at, release, environment
           ), counted AS (
             INSERT INTO app_session_counts
                 (org_id, project_id, at, release, environment, healthy, errored, unhandled, abnormal,
                  crashed, timed, duration_ms, first_started, last_started)
             SELECT $1, $2, at, release, environment, healthy, errored, unhandled, abnormal, crashed,
                    timed, duration_ms, first_started, last_started
               FROM sums
           ), kept AS (
             INSERT INTO app_session_sets
                 (org_id, project_id, at, release, environment, users, crashed_users,
                  duration_buckets, duration_counts)
             SELECT $1, $2, at, release, environment, coalesce(users, '{}'), coalesce(crashed_users, '{}'),
                    coalesce(buckets, '{}'), coalesce(counts, '{}')
               FROM sums LEFT JOIN durations USING (at, release, environment)
           )
           SELECT DISTINCT release AS "release!" FROM sums"#,
        org.0,
        project.0,
        slots,
    )
    .fetch_all(db)
    .await
}

/// Sums of releases as a whole, by environment and over all.
async fn total(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    releases: &[String],
) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH sums AS (
             SELECT release, coalesce(environment, '') AS environment,
                    sum(healthy) AS healthy, sum(errored) AS errored, sum(unhandled) AS unhandled,
                    sum(abnormal) AS abnormal, sum(crashed) AS crashed, sum(timed) AS timed,
                    sum(duration_ms) AS duration_ms, min(first_started) AS first_started,
                    max(last_started) AS last_started
               FROM app_session_counts WHERE project_id = $2 AND release = ANY ($3)
              GROUP BY GROUPING SETS ((release, environment), (release))
         ), gone AS (
             DELETE FROM app_session_releases r
              WHERE project_id = $2 AND release = ANY ($3)
                AND NOT EXISTS (SELECT FROM sums s
                                 WHERE s.release = r.release AND s.environment = r.environment)
         )
         INSERT INTO app_session_releases
             (org_id, project_id, release, environment, healthy, errored, unhandled, abnormal, crashed,
              timed, duration_ms, first_started, last_started)
         SELECT $1, $2, release, environment, healthy, errored, unhandled, abnormal, crashed,
                timed, duration_ms, first_started, last_started
           FROM sums
         ON CONFLICT (project_id, release, environment) DO UPDATE SET
             healthy = EXCLUDED.healthy, errored = EXCLUDED.errored, unhandled = EXCLUDED.unhandled,
             abnormal = EXCLUDED.abnormal, crashed = EXCLUDED.crashed, timed = EXCLUDED.timed,
             duration_ms = EXCLUDED.duration_ms, first_started = EXCLUDED.first_started,
             last_started = EXCLUDED.last_started",
        org.0,
        project.0,
        releases,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Users of releases as a whole: sketches, which take the same users any number of times.
async fn unite_users(
    db: &mut PgConnection,
    project: ProjectId,
    slots: &[DateTime<Utc>],
) -> sqlx::Result<()> {
    let groups = sqlx::query!(
        r#"SELECT release AS "release!", coalesce(environment, '') AS "environment!",
                  array_agg(DISTINCT hash) FILTER (WHERE NOT is_crash) AS users,
                  array_agg(DISTINCT hash) FILTER (WHERE is_crash) AS crashed
             FROM (SELECT release, environment, false AS is_crash, unnest(users) AS hash
                     FROM app_session_sets WHERE project_id = $1 AND at = ANY ($2)
                   UNION ALL
                   SELECT release, environment, true, unnest(crashed_users)
                     FROM app_session_sets WHERE project_id = $1 AND at = ANY ($2)) u
            GROUP BY GROUPING SETS ((release, environment), (release))"#,
        project.0,
        slots,
    )
    .fetch_all(&mut *db)
    .await?;
    for group in groups {
        let row = sqlx::query!(
            "SELECT users_sketch, crashed_sketch FROM app_session_releases
              WHERE project_id = $1 AND release = $2 AND environment = $3",
            project.0,
            group.release,
            group.environment,
        )
        .fetch_optional(&mut *db)
        .await?;
        let Some(row) = row else { continue };
        let (mut users, mut crashed) =
            (Users::from_bytes(&row.users_sketch), Users::from_bytes(&row.crashed_sketch));
        users.unite(&Users::exact(group.users.unwrap_or_default()));
        crashed.unite(&Users::exact(group.crashed.unwrap_or_default()));
        let (users, crashed) = (users.compact(), crashed.compact());
        sqlx::query!(
            "UPDATE app_session_releases
                SET users_sketch = $4, crashed_sketch = $5, users = $6, crashed_users = $7
              WHERE project_id = $1 AND release = $2 AND environment = $3",
            project.0,
            group.release,
            group.environment,
            users.to_bytes(),
            crashed.to_bytes(),
            users.count(),
            crashed.count(),
        )
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

/// A project that is no more takes what waits with it.
pub(crate) async fn forget_project(pool: &PgPool, project: ProjectId) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM app_session_marks WHERE project_id = $1", project.0)
        .execute(pool)
        .await?;
    Ok(())
}

/// Lists of users of half hours before `before` become sketches, where they are long.
pub(crate) async fn sketch(pool: &PgPool, before: DateTime<Utc>, limit: i64) -> sqlx::Result<u64> {
    let mut tx = loom_db::begin(pool).await?;
    let rows = sqlx::query!(
        "SELECT project_id, at, release, environment, users, crashed_users FROM app_session_sets
          WHERE at < $1 AND users IS NOT NULL ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED",
        before,
        limit,
    )
    .fetch_all(&mut *tx)
    .await?;
    let done = rows.len() as u64;
    for row in rows {
        let users = Users::exact(row.users.unwrap_or_default()).compact();
        let crashed = Users::exact(row.crashed_users.unwrap_or_default()).compact();
        sqlx::query!(
            "UPDATE app_session_sets
                SET users = NULL, crashed_users = NULL, users_sketch = $5, crashed_sketch = $6
              WHERE project_id = $1 AND at = $2 AND release = $3 AND environment = $4",
            row.project_id,
            row.at,
            row.release,
            row.environment,
            users.to_bytes(),
            crashed.to_bytes(),
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(done)
}

/// Removes what repeats and late updates are known by, when it is of no use any more.
pub(crate) async fn clean_up(
    pool: &PgPool,
    ids_before: DateTime<Utc>,
    batches_before: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<u64> {
    let ids = sqlx::query!(
        "DELETE FROM app_session_ids WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM app_session_ids WHERE started < $1 LIMIT $2))",
        ids_before,
        limit,
    )
    .execute(pool)
    .await?;
    let batches = sqlx::query!(
        "DELETE FROM app_session_batches WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM app_session_batches WHERE received_at < $1 LIMIT $2))",
        batches_before,
        limit,
    )
    .execute(pool)
    .await?;
    Ok(ids.rows_affected().max(batches.rows_affected()))
}
