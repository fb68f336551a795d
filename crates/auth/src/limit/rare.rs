//! Counters in PostgreSQL, one for all replicas.

use std::time::Duration;

use loom_core::{Clock, Result};
use loom_jobs::{Job, JobContext, JobError, JobReport};
use sha2::{Digest, Sha256};
use sqlx::{PgExecutor, PgPool};

use super::{Budget, too_many};

/// Rates of what is rare and costly: mails, tries of a code, sign-ins of an account.
#[derive(Clone, Debug)]
pub(crate) struct Rare {
    clock: Clock,
}

impl Rare {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// Takes one of the budget that `subject` (kept as a hash) has for `purpose`. In a transaction that
    /// is rolled back nothing was taken.
    ///
    /// # Errors
    /// 429 when there is none left.
    pub(crate) async fn take(
        &self,
        db: impl PgExecutor<'_>,
        purpose: &'static str,
        subject: &str,
        budget: Budget,
    ) -> Result<()> {
        let now = self.clock.now();
        let interval = budget.interval();
        let subject = Sha256::digest(subject.as_bytes());
        // `before` is what stood there when the statement began; a row that another one inserted in this
        // moment does not show, and the wait is one interval then.
        let row = sqlx::query!(
            r#"WITH taken AS (
                   INSERT INTO rate_limits AS r (purpose, subject, full_at)
                   VALUES ($1, $2, $3::timestamptz + $4::float8 * interval '1 second')
                   ON CONFLICT (purpose, subject) DO UPDATE
                      SET full_at = greatest(r.full_at, $3) + $4 * interval '1 second'
                    WHERE greatest(r.full_at, $3) + $4 * interval '1 second'
                          <= $3 + $5::float8 * interval '1 second'
                   RETURNING full_at)
               SELECT (SELECT full_at FROM taken) AS taken,
                      (SELECT full_at FROM rate_limits WHERE purpose = $1 AND subject = $2) AS before"#,
            purpose,
            subject.as_slice(),
            now,
            interval.as_secs_f64(),
            budget.per.as_secs_f64()
        )
        .fetch_one(db)
        .await?;
        if row.taken.is_some() {
            return Ok(());
        }
        let wait = row
            .before
            .and_then(|full_at| (full_at - now).to_std().ok())
            .map_or(interval, |left| (left + interval).saturating_sub(budget.per));
        Err(too_many(wait))
    }
}

/// Removes the counters whose budget is whole again.
pub(crate) fn cleanup_job(pool: PgPool) -> Job {
    Job::new(
        "rate-limit-cleanup",
        "Rate limit clean-up",
        "Removes counters whose budget is whole again",
        Duration::from_secs(3600),
        Duration::from_secs(60),
        move |context| cleanup(pool.clone(), context),
    )
}

async fn cleanup(pool: PgPool, context: JobContext) -> Result<JobReport, JobError> {
    let deleted = sqlx::query!("DELETE FROM rate_limits WHERE full_at < $1", context.clock.now())
        .execute(&pool)
        .await?;
    Ok(deleted.rows_affected().into())
}
