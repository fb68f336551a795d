//! The SQL of the sums.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use loom_core::{Error, Result, id::OrgId};
use sqlx::{PgConnection, PgPool};

use super::sum::{Dimension, Grain, Place, Request, Sum, Whose};

/// Sums that are stored in one statement.
const BATCH: usize = 4000;
/// For the moment when nobody writes.
const TRIES: u32 = 30;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);
/// PostgreSQL's `lock_not_available`.
const LOCK_TIMEOUT: &str = "55P03";
/// Rows beyond the sums that one answer reads.
const MAX_ROWS: usize = 500_000;

/// The last number given out to rows all of which are committed.
///
/// # Errors
/// 503 when writers were at work all the time.
pub(super) async fn settled(pool: &PgPool) -> Result<i64> {
    for _ in 0..TRIES {
        match try_settled(pool).await {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(LOCK_TIMEOUT) => {
                tokio::time::sleep(PAUSE).await;
            }
            result => return Ok(result?),
        }
    }
    Err(Error::unavailable("requests are being stored all the time; the sums are taken later"))
}

/// Waits for who is writing, but not for long: everybody who wants to write waits behind.
async fn try_settled(pool: &PgPool) -> sqlx::Result<i64> {
    let mut tx = loom_db::begin(pool).await?;
    sqlx::query!("SET LOCAL lock_timeout = '40ms'").execute(&mut *tx).await?;
    sqlx::query!("SELECT pg_advisory_xact_lock(7521, 1)").execute(&mut *tx).await?;
    let last = sqlx::query_scalar!(
        r#"SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS "last!" FROM llm_requests_seq"#
    )
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(last)
}

/// Up to where the sums go; nobody else moves it until the end of the transaction.
pub(super) async fn progress_to_move(db: &mut PgConnection) -> Result<i64> {
    let row = sqlx::query_scalar!("SELECT rolled_up_to FROM llm_usage_progress FOR UPDATE");
    Ok(row.fetch_one(db).await?)
}

pub(super) async fn progress(db: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar!("SELECT rolled_up_to FROM llm_usage_progress").fetch_one(db).await?)
}

pub(super) async fn move_progress(db: &mut PgConnection, to: i64) -> Result<()> {
    sqlx::query!("UPDATE llm_usage_progress SET rolled_up_to = $1", to).execute(db).await?;
    Ok(())
}

/// Hands every row after `after`, up to `to`, to `each`.
pub(super) async fn rows_between(
    db: &mut PgConnection,
    after: i64,
    to: i64,
    mut each: impl FnMut(Request),
) -> Result<()> {
    let mut rows = sqlx::query_as!(
        Request,
        "SELECT org_id, started_at, user_id, api_key_id, thread_id, weaver_id, tags, provider, model, outcome,
                usage_complete, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
                cache_write_1h_tokens, reasoning_tokens, web_searches, cost_nanousd, latency_ms, first_token_ms
           FROM llm_requests WHERE seq > $1 AND seq <= $2",
        after,
        to
    )
    .fetch(db);
    while let Some(row) = rows.try_next().await? {
        each(row);
    }
    Ok(())
}

/// The rows of an organisation that no sum has yet, of a time.
///
/// # Errors
/// 503 when they are too many.
pub(super) async fn rows_after(
    db: &mut PgConnection,
    org: OrgId,
    whose: Whose,
    after: i64,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    mut each: impl FnMut(Request),
) -> Result<()> {
    let (user, nobodys) = match whose {
        Whose::Everybodys => (None, false),
        Whose::Of(user) => (Some(user), false),
        Whose::Nobodys => (None, true),
    };
    let mut rows = sqlx::query_as!(
        Request,
        "SELECT org_id, started_at, user_id, api_key_id, thread_id, weaver_id, tags, provider, model, outcome,
                usage_complete, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
                cache_write_1h_tokens, reasoning_tokens, web_searches, cost_nanousd, latency_ms, first_token_ms
           FROM llm_requests
          WHERE seq > $1 AND org_id = $2 AND started_at >= $3 AND started_at < $4
            AND ($5::uuid IS NULL OR user_id = $5) AND (NOT $6 OR user_id IS NULL)",
        after,
        org.0,
        from,
        to,
        user,
        nobodys
    )
    .fetch(db);
    let mut read = 0;
    while let Some(row) = rows.try_next().await? {
        read += 1;
        if read > MAX_ROWS {
            return Err(Error::unavailable(
                "too many requests are not summed yet; the job `usage-rollup` is behind, try again \
                 when it has run",
            ));
        }
        each(row);
    }
    Ok(())
}

/// Adds to what is stored. Only one transaction at a time does so.
pub(super) async fn add(db: &mut PgConnection, sums: HashMap<Place, Sum>) -> Result<()> {
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    for batch in sums.chunks_mut(BATCH) {
        add_batch(db, batch).await?;
    }
    Ok(())
}

async fn add_batch(db: &mut PgConnection, batch: &mut [(Place, Sum)]) -> Result<()> {
    fn column<T>(batch: &[(Place, Sum)], get: impl Fn(&Place, &Sum) -> T) -> Vec<T> {
        batch.iter().map(|(place, sum)| get(place, sum)).collect()
    }
    let orgs = column(batch, |p, _| p.org);
    let scopes = column(batch, |p, _| p.scope);
    let grains = column(batch, |p, _| p.grain.name().to_owned());
    let dimensions = column(batch, |p, _| p.dimension.name().to_owned());
    let ats = column(batch, |p, _| p.at);
    let keys = column(batch, |p, _| p.key.clone());
    // Numbers are added by the database, histograms here.
    let there = sqlx::query!(
        r#"SELECT n.ordinality AS "n!", s.latency, s.first_token
             FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::text[])
                  WITH ORDINALITY AS n (org_id, scope, grain, dimension, at, key, ordinality)
             JOIN llm_usage_sums s USING (org_id, scope, grain, dimension, at, key)"#,
        &orgs,
        &scopes,
        &grains,
        &dimensions,
        &ats,
        &keys
    )
    .fetch_all(&mut *db)
    .await?;
    for row in there {
        let at = usize::try_from(row.n - 1).unwrap_or(usize::MAX);
        if let Some((_, sum)) = batch.get_mut(at) {
            sum.latency.merge_bytes(&row.latency);
            sum.first_token.merge_bytes(&row.first_token);
        }
    }
    sqlx::query!(
        "INSERT INTO llm_usage_sums AS s
           (org_id, scope, grain, dimension, at, key, requests, failed, cancelled, incomplete, unpriced, input_tokens,
            output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, web_searches, cost_nanousd, latency,
            first_token)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::text[],
            $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[],
            $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bytea[], $20::bytea[])
         ON CONFLICT ON CONSTRAINT llm_usage_sums_pkey DO UPDATE SET
            requests = s.requests + EXCLUDED.requests,
            failed = s.failed + EXCLUDED.failed,
            cancelled = s.cancelled + EXCLUDED.cancelled,
            incomplete = s.incomplete + EXCLUDED.incomplete,
            unpriced = s.unpriced + EXCLUDED.unpriced,
            input_tokens = s.input_tokens + EXCLUDED.input_tokens,
            output_tokens = s.output_tokens + EXCLUDED.output_tokens,
            cache_read_tokens = s.cache_read_tokens + EXCLUDED.cache_read_tokens,
            cache_write_tokens = s.cache_write_tokens + EXCLUDED.cache_write_tokens,
            reasoning_tokens = s.reasoning_tokens + EXCLUDED.reasoning_tokens,
            web_searches = s.web_searches + EXCLUDED.web_searches,
            cost_nanousd = s.cost_nanousd + EXCLUDED.cost_nanousd,
            latency = EXCLUDED.latency,
            first_token = EXCLUDED.first_token",
        &orgs,
        &scopes,
        &grains,
        &dimensions,
        &ats,
        &keys,
        &column(batch, |_, s| s.requests),
        &column(batch, |_, s| s.failed),
        &column(batch, |_, s| s.cancelled),
        &column(batch, |_, s| s.incomplete),
        &column(batch, |_, s| s.unpriced),
        &column(batch, |_, s| s.input_tokens),
        &column(batch, |_, s| s.output_tokens),
        &column(batch, |_, s| s.cache_read_tokens),
        &column(batch, |_, s| s.cache_write_tokens),
        &column(batch, |_, s| s.reasoning_tokens),
        &column(batch, |_, s| s.web_searches),
        &column(batch, |_, s| s.cost_nanousd),
        &column(batch, |_, s| s.latency.to_bytes()),
        &column(batch, |_, s| s.first_token.to_bytes())
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Which stored sums are meant.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) org: OrgId,
    pub(super) whose: Whose,
    pub(super) dimension: Dimension,
    /// Of which grain, from when, and before when.
    pub(super) spans: Vec<(Grain, DateTime<Utc>, DateTime<Utc>)>,
}

type Columns = (Vec<String>, Vec<DateTime<Utc>>, Vec<DateTime<Utc>>);

impl Selection {
    fn columns(&self) -> Columns {
        let mut columns = Columns::default();
        for (grain, from, to) in &self.spans {
            columns.0.push(grain.name().to_owned());
            columns.1.push(*from);
            columns.2.push(*to);
        }
        columns
    }
}

/// The dearest keys, then those of most requests.
pub(super) async fn dearest(
    db: &mut PgConnection,
    of: &Selection,
    limit: i64,
) -> Result<Vec<String>> {
    let (grains, from, to) = of.columns();
    Ok(sqlx::query_scalar!(
        "SELECT s.key
           FROM UNNEST($4::text[], $5::timestamptz[], $6::timestamptz[]) AS n (grain, since, until)
           JOIN llm_usage_sums s ON s.org_id = $1 AND s.scope = $2 AND s.dimension = $3
            AND s.grain = n.grain AND s.at >= n.since AND s.at < n.until
          GROUP BY s.key ORDER BY sum(s.cost_nanousd) DESC, sum(s.requests) DESC, s.key LIMIT $7",
        of.org.0,
        of.whose.scope(),
        of.dimension.name(),
        &grains,
        &from,
        &to,
        limit
    )
    .fetch_all(db)
    .await?)
}

/// A stored sum, with the time and key that it is of.
pub(super) struct Stored {
    pub(super) at: DateTime<Utc>,
    pub(super) key: String,
    pub(super) sum: Sum,
}

/// The sums of these keys; all, when there are none. Not more than `limit`.
pub(super) async fn sums(
    db: &mut PgConnection,
    of: &Selection,
    only: Option<&[String]>,
    limit: i64,
) -> Result<Vec<Stored>> {
    let (grains, from, to) = of.columns();
    let rows = sqlx::query!(
        "SELECT s.at, s.key, s.requests, s.failed, s.cancelled, s.incomplete, s.unpriced, s.input_tokens,
                s.output_tokens, s.cache_read_tokens, s.cache_write_tokens, s.reasoning_tokens, s.web_searches,
                s.cost_nanousd, s.latency, s.first_token
           FROM UNNEST($4::text[], $5::timestamptz[], $6::timestamptz[]) AS n (grain, since, until)
           JOIN llm_usage_sums s ON s.org_id = $1 AND s.scope = $2 AND s.dimension = $3
            AND s.grain = n.grain AND s.at >= n.since AND s.at < n.until
          WHERE ($7::text[] IS NULL OR s.key = ANY ($7)) LIMIT $8",
        of.org.0,
        of.whose.scope(),
        of.dimension.name(),
        &grains,
        &from,
        &to,
        only as _,
        limit
    )
    .fetch_all(db)
    .await?;
    let stored = rows.into_iter().map(|row| {
        let mut sum = Sum {
            requests: row.requests,
            failed: row.failed,
            cancelled: row.cancelled,
            incomplete: row.incomplete,
            unpriced: row.unpriced,
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            cache_read_tokens: row.cache_read_tokens,
            cache_write_tokens: row.cache_write_tokens,
            reasoning_tokens: row.reasoning_tokens,
            web_searches: row.web_searches,
            cost_nanousd: row.cost_nanousd,
            ..Sum::default()
        };
        sum.latency.merge_bytes(&row.latency);
        sum.first_token.merge_bytes(&row.first_token);
        Stored { at: row.at, key: row.key, sum }
    });
    Ok(stored.collect())
}

/// Deletes sums by the hour, and those of threads, that are older. Days stay for ever.
pub(crate) async fn delete_before(pool: &PgPool, before: DateTime<Utc>) -> Result<u64> {
    let mut deleted = 0;
    loop {
        let batch = sqlx::query!(
            "DELETE FROM llm_usage_sums WHERE (org_id, scope, grain, dimension, at, key) IN
               (SELECT org_id, scope, grain, dimension, at, key FROM llm_usage_sums
                 WHERE at < $1 AND (grain = 'hour' OR (grain = 'day' AND dimension = 'thread')) LIMIT 10000)",
            before
        )
        .execute(pool)
        .await?
        .rows_affected();
        deleted += batch;
        if batch < 10_000 {
            return Ok(deleted);
        }
    }
}
