//! Tables that are partitioned by the day of a time: partitions are made ahead, and dropped when they are
//! too old. What came when its day was not there is in the default partition, and is deleted by age.

use std::collections::BTreeSet;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use crate::begin;

/// Days made ahead.
const AHEAD: u64 = 7;
/// Rows of the default partition deleted by one statement.
const BATCH: u64 = 10_000;
/// These statements hold everybody back who writes: rather later than long.
const LIMITS: &str = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '10min'";

/// A table that is partitioned by day: `<table>_YYYY_MM_DD` beside `<table>_default`.
#[derive(Clone, Copy, Debug)]
pub struct Daily {
    pub table: &'static str,
    /// The timestamp that rows are distributed by.
    pub column: &'static str,
}

impl Daily {
    fn partition(self, day: NaiveDate) -> String {
        format!("{}_{}", self.table, day.format("%Y_%m_%d"))
    }

    fn day_of(self, name: &str) -> Option<NaiveDate> {
        let day = name.strip_prefix(self.table)?.strip_prefix('_')?;
        NaiveDate::parse_from_str(day, "%Y_%m_%d").ok()
    }

    async fn days(self, db: &mut PgConnection) -> sqlx::Result<BTreeSet<NaiveDate>> {
        // Unchecked, as all here: what records the checked queries is built of this crate.
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
              WHERE i.inhparent = $1::text::regclass",
        )
        .bind(self.table)
        .fetch_all(db)
        .await?;
        Ok(names.iter().filter_map(|name| self.day_of(name)).collect())
    }

    /// Makes the days from today on that are missing; gives how many that were. A day of which rows are in
    /// the default partition already stays there.
    ///
    /// # Errors
    /// When the database says so, also that it is busy.
    pub async fn make_ahead(self, pool: &PgPool, now: DateTime<Utc>) -> sqlx::Result<u64> {
        let today = now.date_naive();
        let wanted: BTreeSet<_> =
            (0..=AHEAD).filter_map(|n| today.checked_add_days(Days::new(n))).collect();
        let mut tx = begin(pool).await?;
        let there = self.days(&mut tx).await?;
        let Self { table, column } = self;
        let mut made = 0;
        for day in wanted.difference(&there).copied() {
            let (from, to) = (midnight(day), midnight(day + TimeDelta::days(1)));
            // Nobody may add one between the look and the making; few hold it for long.
            let lock = format!("{LIMITS}; LOCK TABLE {table}_default IN SHARE ROW EXCLUSIVE MODE");
            run(&mut tx, lock).await?;
            let look = format!(
                "SELECT EXISTS (SELECT FROM {table}_default WHERE {column} >= $1 AND {column} < $2)"
            );
            let taken: bool = sqlx::query_scalar(AssertSqlSafe(look))
                .bind(from)
                .bind(to)
                .fetch_one(&mut *tx)
                .await?;
            if taken {
                continue;
            }
            let name = self.partition(day);
            let make = format!(
                "CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{from}') TO ('{to}')"
            );
            run(&mut tx, make).await?;
            made += 1;
        }
        tx.commit().await?;
        Ok(made)
    }

    /// Drops the days that ended before `before`, and deletes what is as old and in no day of its own.
    /// Gives how many partitions and rows that were.
    ///
    /// # Errors
    /// When the database says so; what was dropped until then stays so.
    pub async fn drop_before(self, pool: &PgPool, before: DateTime<Utc>) -> sqlx::Result<u64> {
        let mut tx = begin(pool).await?;
        let old: Vec<_> = self
            .days(&mut tx)
            .await?
            .into_iter()
            .filter(|day| *day < before.date_naive())
            .collect();
        drop(tx);
        let mut dropped = 0;
        for day in old {
            let mut tx = begin(pool).await?;
            run(&mut tx, format!("{LIMITS}; DROP TABLE {}", self.partition(day))).await?;
            tx.commit().await?;
            dropped += 1;
        }
        let Self { table, column } = self;
        let delete = format!(
            "DELETE FROM {table}_default WHERE ctid IN \
                 (SELECT ctid FROM {table}_default WHERE {column} < $1 LIMIT {BATCH})"
        );
        loop {
            let done = sqlx::query(AssertSqlSafe(delete.clone()))
                .bind(before)
                .execute(pool)
                .await?
                .rows_affected();
            dropped += done;
            if done < BATCH {
                return Ok(dropped);
            }
        }
    }
}

fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

/// Every statement is put together of names and dates of our own.
async fn run(db: &mut PgConnection, statements: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(db).await?;
    Ok(())
}
