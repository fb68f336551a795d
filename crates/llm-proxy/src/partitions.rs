//! The log of requests is partitioned by the day: partitions are made ahead, and dropped when they are too
//! old. What came when its day was not there is in the default partition, and is deleted by age.

use std::collections::BTreeSet;

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use loom_core::Result;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use crate::store;

/// Days made ahead.
const AHEAD: u64 = 7;
/// These statements hold everybody back who writes: rather later than long.
const LIMITS: &str = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '10min'";

fn partition(day: NaiveDate) -> String {
    format!("llm_requests_{}", day.format("%Y_%m_%d"))
}

fn day_of(name: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(name.strip_prefix("llm_requests_")?, "%Y_%m_%d").ok()
}

async fn days(db: &mut PgConnection) -> Result<BTreeSet<NaiveDate>> {
    let names = sqlx::query_scalar!(
        r#"SELECT c.relname::text AS "name!" FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'llm_requests'::regclass"#
    )
    .fetch_all(db)
    .await?;
    Ok(names.iter().filter_map(|name| day_of(name)).collect())
}

/// Every statement is put together of names and dates of our own.
async fn run(db: &mut PgConnection, statements: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(db).await?;
    Ok(())
}

/// Makes the days from today on that are missing; gives how many that were. A day of which rows are in the
/// default partition already stays there.
pub(crate) async fn make_ahead(pool: &PgPool, now: DateTime<Utc>) -> Result<u64> {
    let today = now.date_naive();
    let wanted: BTreeSet<_> =
        (0..=AHEAD).filter_map(|n| today.checked_add_days(Days::new(n))).collect();
    let mut tx = loom_db::begin(pool).await?;
    let there = days(&mut tx).await?;
    let mut made = 0;
    for day in wanted.difference(&there).copied() {
        let next = day + TimeDelta::days(1);
        // Nobody may add one between the look and the making; few hold it for long.
        run(
            &mut tx,
            format!("{LIMITS}; LOCK TABLE llm_requests_default IN SHARE ROW EXCLUSIVE MODE"),
        )
        .await?;
        let taken = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM llm_requests_default WHERE started_at >= $1 AND started_at < $2) AS "taken!""#,
            day.and_time(chrono::NaiveTime::MIN).and_utc(),
            next.and_time(chrono::NaiveTime::MIN).and_utc()
        )
        .fetch_one(&mut *tx)
        .await?;
        if taken {
            continue;
        }
        let name = partition(day);
        let make = format!(
            "CREATE TABLE {name} PARTITION OF llm_requests \
                 FOR VALUES FROM ('{day} 00:00:00+00') TO ('{next} 00:00:00+00')"
        );
        run(&mut tx, make).await?;
        made += 1;
    }
    tx.commit().await?;
    Ok(made)
}

/// Drops the days that ended before `before`, and deletes what is as old and in no day of its own. Gives
/// how many partitions and rows that were.
pub(crate) async fn drop_before(pool: &PgPool, before: DateTime<Utc>) -> Result<u64> {
    let mut tx = loom_db::begin(pool).await?;
    let old: Vec<_> =
        days(&mut tx).await?.into_iter().filter(|day| *day < before.date_naive()).collect();
    drop(tx);
    let mut dropped = 0;
    for day in old {
        let mut tx = loom_db::begin(pool).await?;
        run(&mut tx, format!("{LIMITS}; DROP TABLE {}", partition(day))).await?;
        tx.commit().await?;
        dropped += 1;
    }
    Ok(dropped + store::delete_astray_before(pool, before).await?)
}
