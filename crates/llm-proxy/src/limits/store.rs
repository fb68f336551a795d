//! The SQL of limits.

use chrono::{DateTime, Utc};
use loom_core::{Result, id::OrgId};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::{
    gauge::{Gauge, Key, Kind},
    model::{self, Caps},
};

/// Whoever opens a window counts the rows that are there, and whoever adds rows adds their cost to the
/// windows that are there: not both at the same time. The number is no other's.
const WINDOWS: i64 = 0x6c6c_6d5f_6c69_6d69;

#[derive(Clone, Debug)]
pub(crate) struct LimitRow {
    pub(crate) org_id: Uuid,
    pub(crate) kind: String,
    pub(crate) subject: String,
    pub(crate) requests_per_minute: Option<i64>,
    pub(crate) tokens_per_minute: Option<i64>,
    pub(crate) concurrent: Option<i64>,
    pub(crate) day_nanousd: Option<i64>,
    pub(crate) month_nanousd: Option<i64>,
    pub(crate) refuse_unpriced: bool,
    pub(crate) updated_at: DateTime<Utc>,
}

impl LimitRow {
    pub(crate) fn caps(&self) -> Caps {
        Caps {
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            concurrent: self.concurrent,
            usd_per_day: self.day_nanousd.map(model::usd),
            usd_per_month: self.month_nanousd.map(model::usd),
            refuse_unpriced: self.refuse_unpriced,
        }
    }
}

/// All limits, or those of one organisation.
pub(crate) async fn all(db: impl PgExecutor<'_>, org: Option<Uuid>) -> Result<Vec<LimitRow>> {
    Ok(sqlx::query_as!(
        LimitRow,
        "SELECT org_id, kind, subject, requests_per_minute, tokens_per_minute, concurrent, day_nanousd,
                month_nanousd, refuse_unpriced, updated_at
           FROM llm_limits WHERE $1::uuid IS NULL OR org_id = $1 ORDER BY org_id, kind, subject",
        org
    )
    .fetch_all(db)
    .await?)
}

/// A page of an organisation's, those that a member may see: see [`super::http`].
pub(crate) async fn page(
    db: impl PgExecutor<'_>,
    org: OrgId,
    own: Option<&[String]>,
    after: Option<(String, String)>,
    limit: usize,
) -> Result<Vec<LimitRow>> {
    let (kind, subject) = after.unwrap_or_default();
    Ok(sqlx::query_as!(
        LimitRow,
        "SELECT org_id, kind, subject, requests_per_minute, tokens_per_minute, concurrent, day_nanousd,
                month_nanousd, refuse_unpriced, updated_at
           FROM llm_limits
          WHERE org_id = $1 AND (kind, subject) > ($2, $3)
            AND ($4::text[] IS NULL OR kind IN ('organisation', 'model') OR subject = ANY($4))
          ORDER BY kind, subject LIMIT $5",
        org.0,
        kind,
        subject,
        own as _,
        i64::try_from(limit).unwrap_or(i64::MAX)
    )
    .fetch_all(db)
    .await?)
}

pub(crate) async fn one(
    db: impl PgExecutor<'_>,
    org: OrgId,
    kind: Kind,
    subject: &str,
) -> Result<Option<LimitRow>> {
    Ok(sqlx::query_as!(
        LimitRow,
        "SELECT org_id, kind, subject, requests_per_minute, tokens_per_minute, concurrent, day_nanousd,
                month_nanousd, refuse_unpriced, updated_at
           FROM llm_limits WHERE org_id = $1 AND kind = $2 AND subject = $3",
        org.0,
        kind.name(),
        subject
    )
    .fetch_optional(db)
    .await?)
}

/// How many limits an organisation has; the row of the organisation is locked, so that two do not both
/// add the last.
pub(crate) async fn count(db: &mut PgConnection, org: OrgId) -> Result<i64> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('llm_limits ' || $1, 0))",
        org.to_string()
    )
    .execute(&mut *db)
    .await?;
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM llm_limits WHERE org_id = $1"#,
        org.0
    )
    .fetch_one(db)
    .await?)
}

/// Gives whether it is new.
pub(crate) async fn put(
    db: &mut PgConnection,
    org: OrgId,
    kind: Kind,
    subject: &str,
    caps: &Caps,
    now: DateTime<Utc>,
) -> Result<bool> {
    let new = sqlx::query_scalar!(
        r#"INSERT INTO llm_limits (org_id, kind, subject, requests_per_minute, tokens_per_minute, concurrent,
                                   day_nanousd, month_nanousd, refuse_unpriced, updated_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
           ON CONFLICT ON CONSTRAINT llm_limits_pkey DO UPDATE
              SET requests_per_minute = excluded.requests_per_minute,
                  tokens_per_minute = excluded.tokens_per_minute, concurrent = excluded.concurrent,
                  day_nanousd = excluded.day_nanousd, month_nanousd = excluded.month_nanousd,
                  refuse_unpriced = excluded.refuse_unpriced, updated_at = excluded.updated_at
           RETURNING xmax = 0 AS "new!""#,
        org.0,
        kind.name(),
        subject,
        caps.requests_per_minute,
        caps.tokens_per_minute,
        caps.concurrent,
        caps.usd_per_day.map(model::nanousd),
        caps.usd_per_month.map(model::nanousd),
        caps.refuse_unpriced,
        now
    )
    .fetch_one(db)
    .await?;
    Ok(new)
}

/// Gives whether it was there.
pub(crate) async fn delete(
    db: &mut PgConnection,
    org: OrgId,
    kind: Kind,
    subject: &str,
) -> Result<bool> {
    let gone = sqlx::query!(
        "DELETE FROM llm_limits WHERE org_id = $1 AND kind = $2 AND subject = $3",
        org.0,
        kind.name(),
        subject
    )
    .execute(&mut *db)
    .await?
    .rows_affected();
    Ok(gone > 0)
}

/// Takes away the uses of measures that are no longer limited.
pub(crate) async fn forget_uses(
    db: &mut PgConnection,
    org: OrgId,
    kind: Kind,
    subject: &str,
    kept: &[String],
) -> Result<()> {
    sqlx::query!(
        "DELETE FROM llm_limit_uses WHERE org_id = $1 AND kind = $2 AND subject = $3 AND measure <> ALL($4)",
        org.0,
        kind.name(),
        subject,
        kept
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn say(db: impl PgExecutor<'_>, word: &str) -> Result<()> {
    sqlx::query!("SELECT pg_notify($1, $2)", crate::CHANNEL, word).execute(db).await?;
    Ok(())
}

/// The uses of an organisation's limits at this moment.
#[derive(Debug)]
pub(crate) struct UseRow {
    pub(crate) kind: String,
    pub(crate) subject: String,
    pub(crate) measure: String,
    pub(crate) used: i64,
    pub(crate) full_at: DateTime<Utc>,
    pub(crate) held: i64,
}

pub(crate) async fn uses(
    db: impl PgExecutor<'_>,
    org: OrgId,
    subjects: &[String],
    windows: &[DateTime<Utc>],
) -> Result<Vec<UseRow>> {
    Ok(sqlx::query_as!(
        UseRow,
        r#"SELECT u.kind, u.subject, u.measure, u.used, u.full_at,
                  (SELECT coalesce(sum(greatest(l.held, 0)), 0)::bigint FROM llm_limit_leases l
                    WHERE (l.org_id, l.kind, l.subject, l.measure, l.window_start)
                        = (u.org_id, u.kind, u.subject, u.measure, u.window_start)) AS "held!"
             FROM llm_limit_uses u
            WHERE u.org_id = $1 AND u.subject = ANY($2) AND u.window_start = ANY($3)"#,
        org.0,
        subjects,
        windows
    )
    .fetch_all(db)
    .await?)
}

/// Opens the window of a budget with what was spent in it already.
pub(crate) async fn open_window(
    pool: &PgPool,
    key: &Key,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
) -> Result<()> {
    let there = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM llm_limit_uses WHERE org_id = $1 AND kind = $2 AND subject = $3
                             AND measure = $4 AND window_start = $5) AS "there!""#,
        key.org,
        key.kind.name(),
        &*key.subject,
        key.measure.name(),
        start
    )
    .fetch_one(pool)
    .await?;
    if there {
        return Ok(());
    }
    if key.kind == Kind::WeaverBudget {
        return open_life(pool, key, start).await;
    }
    let id = key.subject.parse::<Uuid>().ok();
    let pattern = model::like(&key.subject);
    let mut tx = loom_db::begin(pool).await?;
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", WINDOWS).execute(&mut *tx).await?;
    sqlx::query!(
        r"INSERT INTO llm_limit_uses (org_id, kind, subject, measure, window_start, full_at, used)
          SELECT $1, $2, $3, $4, $5, $5, coalesce(sum(r.cost_nanousd), 0)::bigint
            FROM llm_requests r
           WHERE r.started_at >= $5 AND r.started_at < $6 AND (r.org_id = $1 OR $2 = 'key_budget')
             AND CASE $2
                 WHEN 'user' THEN r.user_id = $7
                 WHEN 'api_key' THEN r.api_key_id = $7
                 WHEN 'key_budget' THEN r.api_key_id = $7
                 WHEN 'weaver' THEN r.weaver_id = $7
                 WHEN 'model' THEN CASE WHEN starts_with(r.model, r.provider || '/')
                      THEN substr(r.model, length(r.provider) + 2) LIKE $8 OR r.model LIKE $8
                      ELSE r.model LIKE $8 OR r.provider || '/' || r.model LIKE $8 END
                 ELSE true END
          ON CONFLICT DO NOTHING",
        key.org,
        key.kind.name(),
        &*key.subject,
        key.measure.name(),
        start,
        end,
        id,
        pattern
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Opens the budget of a weaver. It is kept until long after the longest life.
async fn open_life(pool: &PgPool, key: &Key, start: DateTime<Utc>) -> Result<()> {
    let mut tx = loom_db::begin(pool).await?;
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", WINDOWS).execute(&mut *tx).await?;
    sqlx::query!(
        "INSERT INTO llm_limit_uses (org_id, kind, subject, measure, window_start, full_at, used)
         VALUES ($1, $2, $3, $4, $5, $5, coalesce(
            (SELECT nanousd FROM llm_weaver_costs WHERE org_id = $1 AND weaver_id = $6), 0))
         ON CONFLICT DO NOTHING",
        key.org,
        key.kind.name(),
        &*key.subject,
        key.measure.name(),
        start,
        key.subject.parse::<Uuid>().unwrap_or_default()
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Says that this replica lives. True when it was not there: what it held is gone.
pub(crate) async fn renew(
    db: impl PgExecutor<'_>,
    replica: Uuid,
    name: &str,
    until: DateTime<Utc>,
) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"INSERT INTO llm_limit_replicas (id, name, expires_at) VALUES ($1, $2, $3)
           ON CONFLICT ON CONSTRAINT llm_limit_replicas_pkey DO UPDATE SET expires_at = excluded.expires_at
           RETURNING xmax = 0 AS "new!""#,
        replica,
        name,
        until
    )
    .fetch_one(db)
    .await?)
}

/// Gives back all that a replica holds, rates aside.
pub(crate) async fn leave(db: impl PgExecutor<'_>, replica: Uuid) -> Result<()> {
    sqlx::query!("DELETE FROM llm_limit_replicas WHERE id = $1", replica).execute(db).await?;
    Ok(())
}

/// What is asked for of a gauge.
pub(crate) struct Want<'g> {
    pub(crate) gauge: &'g Gauge,
    pub(crate) window: DateTime<Utc>,
    pub(crate) need: i64,
    pub(crate) wanted: i64,
}

#[derive(Debug)]
pub(crate) struct Took {
    pub(crate) granted: i64,
    pub(crate) rest: i64,
    pub(crate) others: i64,
    pub(crate) replicas: i64,
}

/// Takes shares, in the order of `wants`.
pub(crate) async fn take(
    db: impl PgExecutor<'_>,
    replica: Uuid,
    wants: &[Want<'_>],
    now: DateTime<Utc>,
) -> Result<Vec<Took>, sqlx::Error> {
    fn column<T>(wants: &[Want<'_>], get: impl Fn(&Want<'_>) -> T) -> Vec<T> {
        wants.iter().map(get).collect()
    }
    sqlx::query_as!(
        Took,
        r#"SELECT t.granted AS "granted!", t.rest AS "rest!", t.others AS "others!", t.replicas AS "replicas!"
             FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[],
                         $7::bigint[], $8::bigint[]) WITH ORDINALITY
                  AS q (o, k, s, m, w, cap, need, wanted, nth),
                  LATERAL llm_limit_take(q.o, q.k, q.s, q.m, q.w, $9, q.cap, q.need, q.wanted, $10) t
            ORDER BY q.nth"#,
        &column(wants, |w| w.gauge.key.org),
        &column(wants, |w| w.gauge.key.kind.name().to_owned()),
        &column(wants, |w| w.gauge.key.subject.to_string()),
        &column(wants, |w| w.gauge.key.measure.name().to_owned()),
        &column(wants, |w| w.window),
        &column(wants, |w| w.gauge.cap()),
        &column(wants, |w| w.need),
        &column(wants, |w| w.wanted),
        replica,
        now
    )
    .fetch_all(db)
    .await
}

/// A share that goes back.
pub(crate) struct Back {
    pub(crate) key: Key,
    pub(crate) cap: i64,
    pub(crate) window: DateTime<Utc>,
    pub(crate) amount: i64,
}

pub(crate) async fn give_back(
    db: impl PgExecutor<'_>,
    replica: Uuid,
    backs: &[Back],
) -> Result<()> {
    fn column<T>(backs: &[Back], get: impl Fn(&Back) -> T) -> Vec<T> {
        backs.iter().map(get).collect()
    }
    sqlx::query!(
        r#"SELECT count(llm_limit_give_back(q.o, q.k, q.s, q.m, q.w, $8, q.cap, q.amount)) AS "count!"
             FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[],
                         $7::bigint[]) AS q (o, k, s, m, w, cap, amount)"#,
        &column(backs, |b| b.key.org),
        &column(backs, |b| b.key.kind.name().to_owned()),
        &column(backs, |b| b.key.subject.to_string()),
        &column(backs, |b| b.key.measure.name().to_owned()),
        &column(backs, |b| b.window),
        &column(backs, |b| b.cap),
        &column(backs, |b| b.amount),
        replica
    )
    .fetch_one(db)
    .await?;
    Ok(())
}

/// What rows cost of a budget.
pub(crate) struct Charge {
    pub(crate) key: Key,
    pub(crate) window: DateTime<Utc>,
    pub(crate) nanousd: i64,
}

/// Which of these rows are stored already: of a batch that is sent again, all may be. Must come first in
/// the transaction.
pub(crate) async fn stored(
    db: &mut PgConnection,
    ids: &[Uuid],
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query!("SELECT pg_advisory_xact_lock_shared($1)", WINDOWS).execute(&mut *db).await?;
    sqlx::query_scalar!(
        "SELECT id FROM llm_requests WHERE id = ANY($1) AND started_at BETWEEN $2 AND $3",
        ids,
        from,
        to
    )
    .fetch_all(db)
    .await
}

pub(crate) async fn charge(
    db: &mut PgConnection,
    replica: Uuid,
    charges: &[Charge],
) -> Result<(), sqlx::Error> {
    fn column<T>(charges: &[Charge], get: impl Fn(&Charge) -> T) -> Vec<T> {
        charges.iter().map(get).collect()
    }
    sqlx::query!(
        r#"SELECT count(llm_limit_charge(q.o, q.k, q.s, q.m, q.w, $7, q.cost)) AS "count!"
             FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[])
                  AS q (o, k, s, m, w, cost)"#,
        &column(charges, |c| c.key.org),
        &column(charges, |c| c.key.kind.name().to_owned()),
        &column(charges, |c| c.key.subject.to_string()),
        &column(charges, |c| c.key.measure.name().to_owned()),
        &column(charges, |c| c.window),
        &column(charges, |c| c.nanousd),
        replica
    )
    .fetch_one(db)
    .await?;
    Ok(())
}

/// Deletes windows that ended long ago, and what was counted for limits that are no more.
pub(crate) async fn forget_windows(pool: &PgPool, now: DateTime<Utc>) -> Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM llm_limit_uses u
          WHERE (u.measure = 'day' AND u.window_start < $1::timestamptz - interval '3 days')
             OR (u.measure = 'month' AND u.window_start < $1::timestamptz - interval '3 months')
             OR (u.kind = 'weaver_budget' AND EXISTS (SELECT FROM llm_weaver_costs c
                  WHERE c.org_id = u.org_id AND c.weaver_id::text = u.subject
                    AND c.last_at < $1::timestamptz - interval '90 days'))
             OR (u.kind NOT IN ('key_budget', 'weaver_budget') AND NOT EXISTS (SELECT FROM llm_limits l
                  WHERE l.org_id = u.org_id AND l.kind = u.kind AND l.subject = u.subject))",
        now
    )
    .execute(pool)
    .await?;
    let costs = sqlx::query!(
        "DELETE FROM llm_weaver_costs WHERE last_at < $1::timestamptz - interval '91 days'",
        now
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() + costs.rows_affected())
}
