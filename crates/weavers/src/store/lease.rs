//! Who watches the cluster of an installation. By the clock of the database: a server whose own is wrong takes
//! nothing from another.

use std::time::Duration;

use loom_core::Result;
use sqlx::PgPool;

/// So long after it was last heard of, another takes its place.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// The term of `holder` when it has the lease now; taken when it was free, prolonged when it was its own.
pub(crate) async fn take(pool: &PgPool, installation: &str, holder: &str) -> Result<Option<i64>> {
    let term = sqlx::query_scalar!(
        "INSERT INTO weaver_leases AS lease (installation, holder, until, term)
         VALUES ($1, $2, now() + make_interval(secs => $3), 1)
         ON CONFLICT (installation) DO UPDATE SET
            holder = excluded.holder, until = excluded.until,
            term = lease.term + (lease.holder <> excluded.holder)::int
         WHERE lease.holder = excluded.holder OR lease.until < now()
         RETURNING term",
        installation,
        holder,
        LEASE.as_secs_f64(),
    )
    .fetch_optional(pool)
    .await?;
    Ok(term)
}

/// Gives it up, so that the next need not wait.
pub(crate) async fn leave(pool: &PgPool, installation: &str, holder: &str) -> Result<()> {
    sqlx::query!(
        "UPDATE weaver_leases SET until = '-infinity' WHERE installation = $1 AND holder = $2",
        installation,
        holder
    )
    .execute(pool)
    .await?;
    Ok(())
}
