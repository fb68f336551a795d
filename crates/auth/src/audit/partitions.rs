//! The audit log is partitioned by month: partitions are made ahead, and dropped when they are too old.
//! No row is ever changed or deleted by itself.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, Utc};
use loom_core::{
    Clock, Result,
    port::{Act, Audit, Outcome},
};
use loom_jobs::{Job, JobContext, JobError, JobReport};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::AuditLog;

/// Months made ahead.
const AHEAD: u32 = 3;
const HOUR: Duration = Duration::from_secs(3600);
/// These statements hold everybody back who writes: rather later than long.
const LIMITS: &str = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '10min'";
const COLUMNS: &str = "id, at, org_id, actor_kind, actor_id, actor_name, via, action, target, outcome, ip, \
                       request_id, details, credential_id";

pub(crate) fn jobs(pool: &PgPool, clock: &Clock, retention_days: u32) -> Vec<Job> {
    let (making, dropping) = (pool.clone(), AuditLog::new(pool.clone(), clock.clone()));
    let dropping = std::sync::Arc::new(dropping);
    vec![
        Job::new(
            "partition-maintenance",
            "Partition maintenance",
            "Makes the partitions of the audit log for the months to come",
            HOUR,
            Duration::from_secs(900),
            move |context| make(making.clone(), context),
        ),
        Job::new(
            "audit-cleanup",
            "Audit log clean-up",
            "Drops months of the audit log that are older than LOOM_SERVER_AUDIT_RETENTION_DAYS",
            24 * HOUR,
            Duration::from_secs(300),
            move |context| drop_old(dropping.clone(), retention_days, context),
        ),
    ]
}

/// The first day of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Month(NaiveDate);

impl Month {
    fn of(at: DateTime<Utc>) -> Self {
        let day = at.date_naive();
        Self(day.with_day(1).unwrap_or(day))
    }

    fn next(self) -> Self {
        Self(self.0.checked_add_months(Months::new(1)).unwrap_or(self.0))
    }

    fn partition(self) -> String {
        format!("audit_log_{}", self.0.format("%Y_%m"))
    }

    fn of_partition(name: &str) -> Option<Self> {
        let month = name.strip_prefix("audit_log_")?;
        NaiveDate::parse_from_str(&format!("{month}_01"), "%Y_%m_%d").ok().map(Self)
    }
}

async fn partitions(db: &mut PgConnection) -> Result<BTreeSet<Month>> {
    let names = sqlx::query_scalar!(
        r#"SELECT c.relname::text AS "name!" FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'audit_log'::regclass"#
    )
    .fetch_all(db)
    .await?;
    Ok(names.iter().filter_map(|name| Month::of_partition(name)).collect())
}

/// Every statement is put together of names and dates of our own.
async fn run(db: &mut PgConnection, statements: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(db).await?;
    Ok(())
}

fn make_month(month: Month) -> String {
    let (name, from, to) = (month.partition(), month.0, month.next().0);
    format!(
        "CREATE TABLE {name} PARTITION OF audit_log \
             FOR VALUES FROM ('{from} 00:00:00+00') TO ('{to} 00:00:00+00'); {}",
        guard(&name)
    )
}

/// The parent's row triggers come by themselves; one for TRUNCATE does not.
fn guard(name: &str) -> String {
    format!(
        "CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON {name} \
             FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()"
    )
}

async fn make(pool: PgPool, context: JobContext) -> Result<JobReport, JobError> {
    Ok(make_months(&pool, context.clock.now()).await?.into())
}

/// Makes what is missing; gives how many that were. Rows that came when their month was not there yet are
/// in the default partition: it is taken off, its rows go where they belong, and a new one takes its place.
async fn make_months(pool: &PgPool, now: DateTime<Utc>) -> Result<u64> {
    let mut tx = loom_db::begin(pool).await?;
    let mut wanted = BTreeSet::from([Month::of(now)]);
    let mut month = Month::of(now);
    for _ in 0..AHEAD {
        month = month.next();
        wanted.insert(month);
    }
    let astray = months_in_default(&mut tx).await?;
    let there = partitions(&mut tx).await?;
    wanted.extend(&astray);
    let missing: Vec<Month> = wanted.difference(&there).copied().collect();
    if missing.is_empty() && astray.is_empty() {
        return Ok(0);
    }
    run(&mut tx, format!("{LIMITS}; LOCK TABLE audit_log IN ACCESS EXCLUSIVE MODE")).await?;
    // Now that nobody writes: a row may have come since.
    let astray = months_in_default(&mut tx).await?;
    let there = partitions(&mut tx).await?;
    if !astray.is_empty() {
        let take_off = "ALTER TABLE audit_log DETACH PARTITION audit_log_default; \
                        ALTER TABLE audit_log_default RENAME TO audit_log_astray; \
                        CREATE TABLE audit_log_default PARTITION OF audit_log DEFAULT; ";
        run(&mut tx, format!("{take_off}{}", guard("audit_log_default"))).await?;
    }
    wanted.extend(&astray);
    let missing: Vec<Month> = wanted.difference(&there).copied().collect();
    for &month in &missing {
        run(&mut tx, make_month(month)).await?;
    }
    if !astray.is_empty() {
        let put_back = format!(
            "INSERT INTO audit_log ({COLUMNS}) SELECT {COLUMNS} FROM audit_log_astray; \
             DROP TABLE audit_log_astray"
        );
        run(&mut tx, put_back).await?;
    }
    tx.commit().await?;
    Ok(missing.len() as u64)
}

async fn months_in_default(db: &mut PgConnection) -> Result<BTreeSet<Month>> {
    let months = sqlx::query_scalar!(
        r#"SELECT DISTINCT date_trunc('month', at, 'UTC') AS "month!" FROM audit_log_default"#
    )
    .fetch_all(db)
    .await?;
    Ok(months.into_iter().map(Month::of).collect())
}

async fn drop_old(
    audit: std::sync::Arc<AuditLog>,
    retention_days: u32,
    context: JobContext,
) -> Result<JobReport, JobError> {
    let now = context.clock.now();
    // What has not its partition yet could not be dropped with it.
    make_months(&audit.pool, now).await?;
    let Some(oldest) = now.checked_sub_days(Days::new(retention_days.into())) else {
        return Ok(JobReport::default());
    };
    let mut items_handled = 0;
    let mut tx = loom_db::begin(&audit.pool).await?;
    let old: Vec<Month> = partitions(&mut tx)
        .await?
        .into_iter()
        .filter(|month| month.next().0 <= oldest.date_naive())
        .collect();
    drop(tx);
    for month in old {
        let mut tx = loom_db::begin(&audit.pool).await?;
        run(&mut tx, format!("{LIMITS}; DROP TABLE {}", month.partition())).await?;
        tx.commit().await?;
        items_handled += 1;
        let act = Act {
            action: "audit_log.drop_month",
            target: month.0.format("%Y-%m").to_string(),
            outcome: Outcome::Success,
            details: json!({"retention_days": retention_days}),
        };
        audit.record(None, None, None, act).await?;
    }
    Ok(JobReport { items_handled })
}
