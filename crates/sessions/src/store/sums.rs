//! What sessions come to by half hour, release and environment: grouped by the database in one pass, with
//! users and durations as they are; what does not add up is made of them here.

use chrono::{DateTime, Utc};
use loom_core::id::{OrgId, ProjectId};
use sqlx::PgConnection;

/// A half hour of a release in an environment.
#[derive(Clone, Debug)]
pub(crate) struct Sum {
    at: DateTime<Utc>,
    pub(crate) release: String,
    pub(crate) environment: String,
    counts: [f64; 5],
    timed: f64,
    duration_ms: f64,
    first_started: DateTime<Utc>,
    last_started: DateTime<Utc>,
    /// Each once, in order.
    pub(crate) users: Vec<i64>,
    pub(crate) crashed_users: Vec<i64>,
    durations: Vec<(i16, f64)>,
    /// That it was made of.
    pub(crate) rows: usize,
}

pub(crate) async fn of(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    slots: &[DateTime<Utc>],
) -> sqlx::Result<Vec<Sum>> {
    let rows = sqlx::query!(
        r#"SELECT a.at AS "at!", s.release, s.environment, count(*) AS "rows!",
                  coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 0), 0) AS "healthy!",
                  coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 1), 0) AS "errored!",
                  coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 2), 0) AS "unhandled!",
                  coalesce(sum(s.count * s.weight) FILTER (WHERE s.class = 3), 0) AS "abnormal!",
                  coalesce(sum(s.count) FILTER (WHERE s.class = 4), 0)::float8 AS "crashed!",
                  coalesce(sum(s.duration_ms * CASE s.class WHEN 4 THEN 1 ELSE s.weight END), 0)
                      AS "duration_ms!",
                  min(s.started) AS "first_started!", max(s.started) AS "last_started!",
                  array_agg(s.user_hash) FILTER (WHERE s.user_hash IS NOT NULL) AS users,
                  array_agg(s.user_hash) FILTER (WHERE s.user_hash IS NOT NULL AND s.class = 4)
                      AS crashed_users,
                  array_agg(s.duration_bucket) FILTER (WHERE s.duration_bucket IS NOT NULL) AS buckets,
                  array_agg(CASE s.class WHEN 4 THEN 1 ELSE s.weight END)
                      FILTER (WHERE s.duration_bucket IS NOT NULL) AS weights
             FROM unnest($3::timestamptz[]) AS a (at)
             JOIN app_sessions s ON s.org_id = $1 AND s.project_id = $2
              AND s.started >= a.at AND s.started < a.at + interval '30 minutes'
            GROUP BY a.at, s.release, s.environment"#,
        org.0,
        project.0,
        slots,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let durations =
                histogram(row.buckets.unwrap_or_default(), &row.weights.unwrap_or_default());
            Sum {
                at: row.at,
                release: row.release,
                environment: row.environment,
                counts: [row.healthy, row.errored, row.unhandled, row.abnormal, row.crashed],
                timed: durations.iter().map(|(_, count)| count).sum(),
                duration_ms: row.duration_ms,
                first_started: row.first_started,
                last_started: row.last_started,
                users: distinct(row.users.unwrap_or_default()),
                crashed_users: distinct(row.crashed_users.unwrap_or_default()),
                durations,
                rows: usize::try_from(row.rows).unwrap_or_default(),
            }
        })
        .collect())
}

fn distinct(mut hashes: Vec<i64>) -> Vec<i64> {
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// So much of each bucket, in order.
fn histogram(buckets: Vec<i16>, weights: &[f64]) -> Vec<(i16, f64)> {
    let mut all: Vec<(i16, f64)> = buckets.into_iter().zip(weights.iter().copied()).collect();
    all.sort_unstable_by_key(|(bucket, _)| *bucket);
    all.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    all
}

/// Lists one behind the other, and from where to where each is, as PostgreSQL counts.
struct Flat<T> {
    all: Vec<T>,
    first: Vec<i32>,
    last: Vec<i32>,
}

impl<T: Copy> Flat<T> {
    fn of<'a>(lists: impl Iterator<Item = &'a [T]>) -> Self
    where
        T: 'a,
    {
        let mut flat = Self { all: Vec::new(), first: Vec::new(), last: Vec::new() };
        let place = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
        for list in lists {
            flat.first.push(place(flat.all.len()).saturating_add(1));
            flat.all.extend_from_slice(list);
            flat.last.push(place(flat.all.len()));
        }
        flat
    }
}

pub(crate) async fn put(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    sums: &[Sum],
) -> sqlx::Result<()> {
    if sums.is_empty() {
        return Ok(());
    }
    let at: Vec<_> = sums.iter().map(|sum| sum.at).collect();
    let releases: Vec<String> = sums.iter().map(|sum| sum.release.clone()).collect();
    let environments: Vec<String> = sums.iter().map(|sum| sum.environment.clone()).collect();
    let class =
        |n: usize| sums.iter().map(move |sum| sum.counts.get(n).copied().unwrap_or_default());
    sqlx::query!(
        "INSERT INTO app_session_counts
             (org_id, project_id, at, release, environment, healthy, errored, unhandled, abnormal,
              crashed, timed, duration_ms, first_started, last_started)
         SELECT $1, $2, * FROM unnest($3::timestamptz[], $4::text[], $5::text[], $6::float8[], $7::float8[],
             $8::float8[], $9::float8[], $10::float8[], $11::float8[], $12::float8[], $13::timestamptz[],
             $14::timestamptz[])",
        org.0,
        project.0,
        &at,
        &releases,
        &environments,
        &class(0).collect::<Vec<_>>(),
        &class(1).collect::<Vec<_>>(),
        &class(2).collect::<Vec<_>>(),
        &class(3).collect::<Vec<_>>(),
        &class(4).collect::<Vec<_>>(),
        &sums.iter().map(|sum| sum.timed).collect::<Vec<_>>(),
        &sums.iter().map(|sum| sum.duration_ms).collect::<Vec<_>>(),
        &sums.iter().map(|sum| sum.first_started).collect::<Vec<_>>(),
        &sums.iter().map(|sum| sum.last_started).collect::<Vec<_>>(),
    )
    .execute(&mut *db)
    .await?;
    let users = Flat::of(sums.iter().map(|sum| sum.users.as_slice()));
    let crashed = Flat::of(sums.iter().map(|sum| sum.crashed_users.as_slice()));
    let histograms: Vec<(Vec<i16>, Vec<f64>)> =
        sums.iter().map(|sum| sum.durations.iter().copied().unzip()).collect();
    let buckets = Flat::of(histograms.iter().map(|(buckets, _)| buckets.as_slice()));
    let counts = Flat::of(histograms.iter().map(|(_, counts)| counts.as_slice()));
    // A slice of what is not there is an empty list.
    sqlx::query!(
        "INSERT INTO app_session_sets
             (org_id, project_id, at, release, environment, users, crashed_users, duration_buckets,
              duration_counts)
         SELECT $1, $2, at, release, environment, ($6::bigint[])[u1:u2], ($7::bigint[])[c1:c2],
                ($8::smallint[])[d1:d2], ($9::float8[])[d1:d2]
           FROM unnest($3::timestamptz[], $4::text[], $5::text[], $10::integer[], $11::integer[],
                    $12::integer[], $13::integer[], $14::integer[], $15::integer[])
                AS t (at, release, environment, u1, u2, c1, c2, d1, d2)",
        org.0,
        project.0,
        &at,
        &releases,
        &environments,
        &users.all,
        &crashed.all,
        &buckets.all,
        &counts.all,
        &users.first,
        &users.last,
        &crashed.first,
        &crashed.last,
        &buckets.first,
        &buckets.last,
    )
    .execute(db)
    .await?;
    Ok(())
}
