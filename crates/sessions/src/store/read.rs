//! Reading sums. Half hours that are marked are read from the sessions themselves, in the same statement
//! and so in the same snapshot: what is read is right to the second.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use loom_core::{
    Result,
    id::{OrgId, ProjectId},
};
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::session::{Class, slot};

/// Of what is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter<'a> {
    pub(crate) org: OrgId,
    pub(crate) project: ProjectId,
    pub(crate) release: Option<&'a str>,
    pub(crate) environment: Option<&'a str>,
}

/// Sessions by how they went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = AppSessionCounts)]
pub(crate) struct Counts {
    pub(crate) healthy: i64,
    pub(crate) errored: i64,
    pub(crate) unhandled: i64,
    pub(crate) abnormal: i64,
    pub(crate) crashed: i64,
}

impl Counts {
    pub(crate) fn total(&self) -> i64 {
        self.healthy + self.errored + self.unhandled + self.abnormal + self.crashed
    }
}

/// What a bucket of a series comes to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    /// From 1.
    pub(crate) number: i32,
    pub(crate) counts: Counts,
    pub(crate) timed: f64,
    pub(crate) duration_ms: f64,
}

/// Counts between `edges`, which are half hours in ascending order.
pub(crate) async fn series(
    pool: &PgPool,
    filter: Filter<'_>,
    edges: &[DateTime<Utc>],
) -> Result<Vec<Bucket>> {
    let (Some(from), Some(to)) = (edges.first(), edges.last()) else { return Ok(Vec::new()) };
    let rows = sqlx::query!(
        r#"WITH dirty AS MATERIALIZED (
             SELECT DISTINCT at FROM app_session_marks
              WHERE project_id = $2 AND at >= $5 AND at < $6
           ), sums AS (
             SELECT at, healthy, errored, unhandled, abnormal, crashed, timed, duration_ms
               FROM app_session_counts c
              WHERE org_id = $1 AND project_id = $2 AND at >= $5 AND at < $6
                AND ($3::text IS NULL OR release = $3) AND ($4::text IS NULL OR environment = $4)
                AND NOT EXISTS (SELECT FROM dirty d WHERE d.at = c.at)
             UNION ALL
             SELECT d.at,
                    coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 0), 0),
                    coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 1), 0),
                    coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 2), 0),
                    coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 3), 0),
                    coalesce(sum(s.count) FILTER (WHERE s.class = 4), 0),
                    coalesce(sum(CASE s.class WHEN 4 THEN 1 ELSE s.weight END)
                        FILTER (WHERE s.duration_ms IS NOT NULL), 0),
                    coalesce(sum(s.duration_ms * CASE s.class WHEN 4 THEN 1 ELSE s.weight END), 0)
               FROM dirty d
               JOIN app_sessions s ON s.org_id = $1 AND s.project_id = $2
                AND s.started >= d.at AND s.started < d.at + interval '30 minutes'
              WHERE ($3::text IS NULL OR s.release = $3) AND ($4::text IS NULL OR s.environment = $4)
              GROUP BY d.at
           )
           SELECT width_bucket(at, $7::timestamptz[]) AS "number!",
                  round(sum(healthy))::bigint AS "healthy!", round(sum(errored))::bigint AS "errored!",
                  round(sum(unhandled))::bigint AS "unhandled!", round(sum(abnormal))::bigint AS "abnormal!",
                  round(sum(crashed))::bigint AS "crashed!", sum(timed) AS "timed!",
                  sum(duration_ms) AS "duration_ms!"
             FROM sums GROUP BY 1 ORDER BY 1"#,
        filter.org.0,
        filter.project.0,
        filter.release,
        filter.environment,
        from,
        to,
        edges,
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Bucket {
            number: row.number,
            counts: Counts {
                healthy: row.healthy,
                errored: row.errored,
                unhandled: row.unhandled,
                abnormal: row.abnormal,
                crashed: row.crashed,
            },
            timed: row.timed,
            duration_ms: row.duration_ms,
        })
        .collect())
}

/// Users and durations of a half hour and release.
pub(crate) struct Set {
    pub(crate) at: DateTime<Utc>,
    pub(crate) users: Vec<i64>,
    pub(crate) crashed_users: Vec<i64>,
    pub(crate) users_sketch: Option<Vec<u8>>,
    pub(crate) crashed_sketch: Option<Vec<u8>>,
    pub(crate) buckets: Vec<i16>,
    pub(crate) counts: Vec<f64>,
}

/// Sets from one half hour to another, one after the other; `durations`: with them, or with the users.
pub(crate) async fn sets(
    pool: &PgPool,
    filter: Filter<'_>,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    durations: bool,
    mut take: impl FnMut(Set),
) -> Result<()> {
    let mut rows = sqlx::query!(
        r#"WITH dirty AS MATERIALIZED (
             SELECT DISTINCT at FROM app_session_marks
              WHERE project_id = $2 AND at >= $5 AND at < $6
           )
           SELECT at AS "at!",
                  CASE WHEN $7 THEN NULL ELSE users END AS users,
                  CASE WHEN $7 THEN NULL ELSE crashed_users END AS crashed_users,
                  CASE WHEN $7 THEN NULL ELSE users_sketch END AS users_sketch,
                  CASE WHEN $7 THEN NULL ELSE crashed_sketch END AS crashed_sketch,
                  CASE WHEN $7 THEN duration_buckets END AS buckets,
                  CASE WHEN $7 THEN duration_counts END AS counts
             FROM app_session_sets c
            WHERE org_id = $1 AND project_id = $2 AND at >= $5 AND at < $6
              AND ($3::text IS NULL OR release = $3) AND ($4::text IS NULL OR environment = $4)
              AND NOT EXISTS (SELECT FROM dirty d WHERE d.at = c.at)
           UNION ALL
           SELECT d.at,
                  array_agg(s.user_hash) FILTER (WHERE NOT $7 AND s.user_hash IS NOT NULL),
                  array_agg(s.user_hash) FILTER (WHERE NOT $7 AND s.user_hash IS NOT NULL AND s.class = 4),
                  NULL, NULL,
                  array_agg(s.duration_bucket) FILTER (WHERE $7 AND s.duration_bucket IS NOT NULL),
                  array_agg(CASE s.class WHEN 4 THEN 1 ELSE s.weight END)
                      FILTER (WHERE $7 AND s.duration_bucket IS NOT NULL)
             FROM dirty d
             JOIN app_sessions s ON s.org_id = $1 AND s.project_id = $2
              AND s.started >= d.at AND s.started < d.at + interval '30 minutes'
            WHERE ($3::text IS NULL OR s.release = $3) AND ($4::text IS NULL OR s.environment = $4)
            GROUP BY d.at"#,
        filter.org.0,
        filter.project.0,
        filter.release,
        filter.environment,
        from,
        to,
        durations,
    )
    .fetch(pool);
    while let Some(row) = rows.try_next().await? {
        take(Set {
            at: row.at,
            users: row.users.unwrap_or_default(),
            crashed_users: row.crashed_users.unwrap_or_default(),
            users_sketch: row.users_sketch,
            crashed_sketch: row.crashed_sketch,
            buckets: row.buckets.unwrap_or_default(),
            counts: row.counts.unwrap_or_default(),
        });
    }
    Ok(())
}

/// A release as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Total {
    pub(crate) release: String,
    pub(crate) counts: Counts,
    pub(crate) timed: f64,
    pub(crate) duration_ms: f64,
    pub(crate) first_started: DateTime<Utc>,
    pub(crate) last_started: DateTime<Utc>,
    pub(crate) users: i64,
    pub(crate) crashed_users: i64,
    /// Of sessions that are not added up yet; then `users` is to be united with them.
    pub(crate) tail_users: Option<Vec<i64>>,
    pub(crate) tail_crashed: Option<Vec<i64>>,
}

/// Which releases.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'a> {
    /// The newest first, behind a place.
    Page {
        after: Option<&'a (DateTime<Utc>, String)>,
        limit: i64,
    },
    Versions(&'a [String]),
    /// The one that began last before another.
    Before(DateTime<Utc>, &'a str),
}

/// Releases as a whole, the newest first.
pub(crate) async fn totals(
    pool: &PgPool,
    filter: Filter<'_>,
    which: Which<'_>,
) -> Result<Vec<Total>> {
    let (after, versions, limit) = match which {
        Which::Page { after, limit } => (after.map(|(at, name)| (*at, name.as_str())), None, limit),
        Which::Versions(versions) => (None, Some(versions), 1000),
        Which::Before(at, name) => (Some((at, name)), None, 1),
    };
    let (after_at, after_name) = after.unzip();
    let rows = sqlx::query!(
        r#"WITH dirty AS MATERIALIZED (
             SELECT DISTINCT at FROM app_session_marks WHERE project_id = $2
           ), tail AS (
             SELECT s.release,
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
               FROM dirty d
               JOIN app_sessions s ON s.org_id = $1 AND s.project_id = $2
                AND s.started >= d.at AND s.started < d.at + interval '30 minutes'
              WHERE ($3::text IS NULL OR s.environment = $3)
                AND ($4::text[] IS NULL OR s.release = ANY ($4))
              GROUP BY s.release
           ), stale AS (
             SELECT c.release, sum(healthy) AS healthy, sum(errored) AS errored,
                    sum(unhandled) AS unhandled, sum(abnormal) AS abnormal, sum(crashed) AS crashed,
                    sum(timed) AS timed, sum(duration_ms) AS duration_ms
               FROM dirty d JOIN app_session_counts c ON c.project_id = $2 AND c.at = d.at
              WHERE ($3::text IS NULL OR c.environment = $3)
                AND ($4::text[] IS NULL OR c.release = ANY ($4))
              GROUP BY c.release
           ), whole AS (
             SELECT * FROM app_session_releases
              WHERE org_id = $1 AND project_id = $2 AND environment = coalesce($3, '')
                AND ($4::text[] IS NULL OR release = ANY ($4))
           ), all_of_them AS (
             SELECT release,
                    coalesce(w.healthy, 0) - coalesce(o.healthy, 0) + coalesce(t.healthy, 0) AS healthy,
                    coalesce(w.errored, 0) - coalesce(o.errored, 0) + coalesce(t.errored, 0) AS errored,
                    coalesce(w.unhandled, 0) - coalesce(o.unhandled, 0) + coalesce(t.unhandled, 0) AS unhandled,
                    coalesce(w.abnormal, 0) - coalesce(o.abnormal, 0) + coalesce(t.abnormal, 0) AS abnormal,
                    coalesce(w.crashed, 0) - coalesce(o.crashed, 0) + coalesce(t.crashed, 0) AS crashed,
                    coalesce(w.timed, 0) - coalesce(o.timed, 0) + coalesce(t.timed, 0) AS timed,
                    coalesce(w.duration_ms, 0) - coalesce(o.duration_ms, 0) + coalesce(t.duration_ms, 0)
                        AS duration_ms,
                    least(w.first_started, t.first_started) AS first_started,
                    greatest(w.last_started, t.last_started) AS last_started,
                    coalesce(w.users, 0) AS users, coalesce(w.crashed_users, 0) AS crashed_users,
                    t.users AS tail_users, t.crashed_users AS tail_crashed
               FROM whole w FULL JOIN tail t USING (release) LEFT JOIN stale o USING (release)
           )
           SELECT release AS "release!", round(healthy)::bigint AS "healthy!",
                  round(errored)::bigint AS "errored!", round(unhandled)::bigint AS "unhandled!",
                  round(abnormal)::bigint AS "abnormal!", round(crashed)::bigint AS "crashed!",
                  timed AS "timed!", duration_ms AS "duration_ms!", first_started AS "first_started!",
                  last_started AS "last_started!", users AS "users!", crashed_users AS "crashed_users!",
                  tail_users, tail_crashed
             FROM all_of_them
            WHERE ($5::timestamptz IS NULL OR (first_started, release) < ($5, $6))
              AND healthy + errored + unhandled + abnormal + crashed > 0
            ORDER BY first_started DESC, release DESC LIMIT $7"#,
        filter.org.0,
        filter.project.0,
        filter.environment,
        versions,
        after_at,
        after_name,
        limit,
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Total {
            release: row.release,
            counts: Counts {
                healthy: row.healthy,
                errored: row.errored,
                unhandled: row.unhandled,
                abnormal: row.abnormal,
                crashed: row.crashed,
            },
            timed: row.timed,
            duration_ms: row.duration_ms,
            first_started: row.first_started,
            last_started: row.last_started,
            users: row.users,
            crashed_users: row.crashed_users,
            tail_users: row.tail_users,
            tail_crashed: row.tail_crashed,
        })
        .collect())
}

/// The sketches of releases: users, and those who met a crash.
pub(crate) async fn sketches(
    pool: &PgPool,
    filter: Filter<'_>,
    releases: &[String],
) -> Result<Vec<(String, Vec<u8>, Vec<u8>)>> {
    let rows = sqlx::query!(
        "SELECT release, users_sketch, crashed_sketch FROM app_session_releases
          WHERE org_id = $1 AND project_id = $2 AND environment = coalesce($3, '') AND release = ANY ($4)",
        filter.org.0,
        filter.project.0,
        filter.environment,
        releases,
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.release, row.users_sketch, row.crashed_sketch)).collect())
}

/// Counts by release from one half hour to another.
pub(crate) async fn by_release(
    pool: &PgPool,
    filter: Filter<'_>,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<(String, Counts)>> {
    let rows = sqlx::query!(
        r#"WITH dirty AS MATERIALIZED (
             SELECT DISTINCT at FROM app_session_marks
              WHERE project_id = $2 AND at >= $5 AND at < $6
           ), sums AS (
             SELECT release, healthy, errored, unhandled, abnormal, crashed
               FROM app_session_counts c
              WHERE org_id = $1 AND project_id = $2 AND at >= $5 AND at < $6
                AND ($3::text IS NULL OR release = $3) AND ($4::text IS NULL OR environment = $4)
                AND NOT EXISTS (SELECT FROM dirty d WHERE d.at = c.at)
             UNION ALL
             SELECT s.release,
                    coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 0), 0),
                    coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 1), 0),
                    coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 2), 0),
                    coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 3), 0),
                    coalesce(sum(s.count) FILTER (WHERE s.class = 4), 0)
               FROM dirty d
               JOIN app_sessions s ON s.org_id = $1 AND s.project_id = $2
                AND s.started >= d.at AND s.started < d.at + interval '30 minutes'
              WHERE ($3::text IS NULL OR s.release = $3) AND ($4::text IS NULL OR s.environment = $4)
              GROUP BY s.release
           )
           SELECT release AS "release!", round(sum(healthy))::bigint AS "healthy!",
                  round(sum(errored))::bigint AS "errored!", round(sum(unhandled))::bigint AS "unhandled!",
                  round(sum(abnormal))::bigint AS "abnormal!", round(sum(crashed))::bigint AS "crashed!"
             FROM sums GROUP BY release"#,
        filter.org.0,
        filter.project.0,
        filter.release,
        filter.environment,
        slot(from),
        to,
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let counts = Counts {
                healthy: row.healthy,
                errored: row.errored,
                unhandled: row.unhandled,
                abnormal: row.abnormal,
                crashed: row.crashed,
            };
            (row.release, counts)
        })
        .collect())
}

/// A session as it was told.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AppSession)]
pub(crate) struct SessionView {
    pub(crate) session_id: Uuid,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) started_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) release: String,
    pub(crate) environment: String,
    /// `active`, `exited`, `errored`, `unhandled`, `abnormal`, `crashed`.
    pub(crate) status: &'static str,
    pub(crate) class: Class,
    pub(crate) ended: bool,
    pub(crate) errors: i32,
    pub(crate) duration_ms: Option<i64>,
    /// Who it was, as a digest that is the same for the same user of the project.
    pub(crate) user: Option<String>,
    /// More than one: this many were counted where they ran.
    pub(crate) count: i32,
}

fn status(class: Class, ended: bool) -> &'static str {
    match (class, ended) {
        (Class::Healthy, false) => "active",
        (Class::Healthy, true) => "exited",
        (Class::Errored, _) => "errored",
        (Class::Unhandled, _) => "unhandled",
        (Class::Abnormal, _) => "abnormal",
        (Class::Crashed, _) => "crashed",
    }
}

/// Sessions that began last.
pub(crate) async fn recent(
    pool: &PgPool,
    filter: Filter<'_>,
    class: Option<Class>,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<SessionView>> {
    let (after_at, after_sid) = after.unzip();
    let rows = sqlx::query!(
        "SELECT sid, started, updated_at, release, environment, class, ended, errors, duration_ms,
                user_hash, count
           FROM app_sessions
          WHERE org_id = $1 AND project_id = $2
            AND ($3::text IS NULL OR release = $3) AND ($4::text IS NULL OR environment = $4)
            AND ($5::smallint IS NULL OR class = $5)
            AND ($6::timestamptz IS NULL OR (started, sid) < ($6, $7))
          ORDER BY started DESC, sid DESC LIMIT $8",
        filter.org.0,
        filter.project.0,
        filter.release,
        filter.environment,
        class.map(Class::row),
        after_at,
        after_sid,
        limit,
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let class = Class::of_row(row.class);
            SessionView {
                session_id: row.sid,
                started_at: row.started,
                updated_at: row.updated_at,
                release: row.release,
                environment: row.environment,
                status: status(class, row.ended),
                class,
                ended: row.ended,
                errors: row.errors,
                duration_ms: row.duration_ms,
                user: row.user_hash.map(|hash| format!("{hash:016x}")),
                count: row.count,
            }
        })
        .collect())
}
