//! Adding sessions up by half hours. The sums of a half hour are made anew of its sessions, whole, in one
//! snapshot with the marks that ask for it: however often and wherever this runs, and wherever it is
//! killed, what is read is the same.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use loom_core::id::{OrgId, ProjectId};
use sqlx::{PgConnection, PgPool};

use super::sums::{self, Sum};
use crate::users::Users;

/// Half hours of one transaction, at the most.
const SLOTS: i64 = 1000;
/// Half hours of one statement, at the most, and of the first, before it is known how many sessions one has.
/// Of more groups the database would write some to disk.
const MOST: usize = 250;
const FIRST: usize = 48;
/// About so many sessions are read by one statement.
const AT_ONCE: usize = 40_000;
/// After so many a transaction ends.
const IN_ALL: usize = 200_000;

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
    // Many groups are hashed here, by few at a time. Sorting them, names first, takes longer.
    sqlx::raw_sql("SET LOCAL work_mem = '64MB'; SET LOCAL enable_sort = off; SET LOCAL statement_timeout = '10min'")
        .execute(&mut *tx)
        .await?;
    let slots: Vec<DateTime<Utc>> = sqlx::query_scalar!(
        "SELECT DISTINCT at FROM app_session_marks WHERE project_id = $1 ORDER BY at LIMIT $2",
        project.0,
        SLOTS,
    )
    .fetch_all(&mut *tx)
    .await?;
    let kept = slots.partition_point(|at| *at < kept_from);
    let mut done = kept;
    let mut releases = BTreeSet::new();
    let mut users: HashMap<(String, String), (Users, Users)> = HashMap::new();
    let (mut sessions, mut next) = (0, FIRST);
    while let Some(part) = slots.get(done..).filter(|rest| !rest.is_empty() && sessions < IN_ALL) {
        let part = part.get(..next).unwrap_or(part);
        releases.extend(clear(&mut tx, project, part).await?);
        let sums = sums::of(&mut tx, org, project, part).await?;
        sums::put(&mut tx, org, project, &sums).await?;
        for sum in sums {
            sessions += sum.rows;
            gather(&mut users, sum);
        }
        done += part.len();
        let each = (sessions / (done - kept)).max(1);
        next = (AT_ONCE / each).clamp(1, MOST);
    }
    // Of marks that were set since this began none is visible, and none is taken away.
    sqlx::query!(
        "DELETE FROM app_session_marks WHERE project_id = $1 AND at = ANY ($2)",
        project.0,
        slots.get(..done).unwrap_or(&slots),
    )
    .execute(&mut *tx)
    .await?;
    releases.extend(users.keys().map(|(release, _)| release.clone()));
    let releases: Vec<String> = releases.into_iter().collect();
    if !releases.is_empty() {
        total(&mut tx, org, project, &releases).await?;
        unite_users(&mut tx, project, &releases, users).await?;
    }
    tx.commit().await?;
    Ok(done as u64)
}

/// Users by release and environment, and over all environments.
fn gather(all: &mut HashMap<(String, String), (Users, Users)>, sum: Sum) {
    let (users, crashed) = (Users::Listed(sum.users), Users::Listed(sum.crashed_users));
    for environment in [sum.environment, String::new()] {
        let place = all.entry((sum.release.clone(), environment)).or_default();
        place.0.unite(&users);
        place.1.unite(&crashed);
        for users in [&mut place.0, &mut place.1] {
            *users = std::mem::take(users).compact();
        }
    }
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
    releases: &[String],
    mut fresh: HashMap<(String, String), (Users, Users)>,
) -> sqlx::Result<()> {
    let rows = sqlx::query!(
        "SELECT release, environment, users_sketch, crashed_sketch FROM app_session_releases
          WHERE project_id = $1 AND release = ANY ($2)",
        project.0,
        releases,
    )
    .fetch_all(&mut *db)
    .await?;
    let (mut names, mut environments) = (Vec::new(), Vec::new());
    let (mut sketches, mut crashed_sketches) = (Vec::new(), Vec::new());
    let (mut counts, mut crashed_counts) = (Vec::new(), Vec::new());
    for row in rows {
        let key = (row.release, row.environment);
        let Some((new, new_crashed)) = fresh.remove(&key) else { continue };
        let (mut users, mut crashed) =
            (Users::from_bytes(&row.users_sketch), Users::from_bytes(&row.crashed_sketch));
        users.unite(&new);
        crashed.unite(&new_crashed);
        let (users, crashed) = (users.compact(), crashed.compact());
        sketches.push(users.to_bytes());
        crashed_sketches.push(crashed.to_bytes());
        counts.push(users.count());
        crashed_counts.push(crashed.count());
        names.push(key.0);
        environments.push(key.1);
    }
    sqlx::query!(
        "UPDATE app_session_releases r
            SET users_sketch = n.users_sketch, crashed_sketch = n.crashed_sketch, users = n.users,
                crashed_users = n.crashed_users
           FROM unnest($2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::bigint[], $7::bigint[])
                AS n (release, environment, users_sketch, crashed_sketch, users, crashed_users)
          WHERE r.project_id = $1 AND r.release = n.release AND r.environment = n.environment",
        project.0,
        &names,
        &environments,
        &sketches,
        &crashed_sketches,
        &counts,
        &crashed_counts,
    )
    .execute(db)
    .await?;
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
