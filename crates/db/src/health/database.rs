//! Whether the database answers, how fast, and whether it is the one we know.

use std::time::{Duration, Instant};

use loom_core::health::{Component, Status};
use serde_json::json;
use sqlx::{FromRow as _, PgPool, Row as _};

use super::Thresholds;
use crate::migrate;

/// For all that is asked, below [`LIMIT`].
const ANSWER: Duration = Duration::from_millis(450);
/// For a connection of the pool, below [`LIMIT`].
const CONNECTION: Duration = Duration::from_millis(250);
const SLOW: Duration = Duration::from_millis(50);
/// PostgreSQL stops writing before 2^31 and warns 40 million before; autovacuum begins at 200 million.
const XID_AGE: i32 = 1_500_000_000;

/// What one look at the server gives.
#[derive(sqlx::FromRow)]
struct Vitals {
    pid: i32,
    version: String,
    in_recovery: bool,
    xid_age: i32,
    max_connections: i32,
    used_connections: i64,
    oldest_transaction_secs: Option<f64>,
    oldest_transaction_pid: Option<i32>,
    /// Each as `version checksum success description`.
    migrations: Vec<String>,
}

fn migration(text: &str) -> Option<migrate::Applied> {
    let mut parts = text.splitn(4, ' ');
    let (version, checksum, success) = (parts.next()?, parts.next()?, parts.next()?);
    let description = parts.next()?.to_owned();
    let byte = |at| u8::from_str_radix(checksum.get(at..at + 2)?, 16).ok();
    let checksum = (0..checksum.len()).step_by(2).filter_map(byte).collect();
    let (version, success) = (version.parse().ok()?, success == "true");
    Some(migrate::Applied { version, description, checksum, success })
}

const VITALS: &str = "
    SELECT pg_backend_pid() AS pid, current_setting('server_version') AS version,
           pg_is_in_recovery() AS in_recovery,
           (SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()) AS xid_age,
           current_setting('max_connections')::int AS max_connections,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used_connections,
           extract(epoch FROM clock_timestamp() - oldest.xact_start)::float8 AS oldest_transaction_secs,
           oldest.pid AS oldest_transaction_pid,
           ARRAY(SELECT version || ' ' || encode(checksum, 'hex') || ' ' || success || ' ' || description
                   FROM _sqlx_migrations) AS migrations
      FROM (SELECT) AS one
      LEFT JOIN (SELECT pid, xact_start FROM pg_stat_activity
                  WHERE usename = current_user AND datname = current_database()
                    AND backend_type = 'client backend' AND pid <> pg_backend_pid()
                    AND xact_start IS NOT NULL
                  ORDER BY xact_start LIMIT 1) AS oldest ON true";

pub(super) async fn probe(
    pool: &PgPool,
    probes: &PgPool,
    thresholds: Thresholds,
    through_pooler: bool,
) -> Component {
    let busy = pool.size().saturating_sub(u32::try_from(pool.num_idle()).unwrap_or(u32::MAX));
    let max = pool.options().get_max_connections();
    // It goes on when it is given up: a connection that took its time to be made serves the next look.
    let looking = tokio::spawn(look(probes.clone()));
    let (looked, waited) =
        tokio::join!(tokio::time::timeout(ANSWER, looking), wait_for_connection(pool));
    let looked = looked.unwrap_or(Ok(Err(sqlx::Error::PoolTimedOut)));
    let looked = match looked.unwrap_or(Err(sqlx::Error::WorkerCrashed)) {
        Ok(looked) => looked,
        Err(error) => {
            tracing::warn!(%error, "the database does not answer the health probe");
            let error = match error {
                sqlx::Error::PoolTimedOut => format!("no answer within {} ms", ANSWER.as_millis()),
                error => error.to_string(),
            };
            return with_pool(Component::new(Status::Unhealthy), pool)
                .error("the database does not answer")
                .code(
                    "DB_UNREACHABLE",
                    "See that PostgreSQL runs and that DATABASE_URL leads to it; its log says why it \
                     refuses. The server goes on by itself as soon as it answers.",
                )
                .detail(error);
        }
    };
    let component = judge(&looked, thresholds, through_pooler);
    let component = match waited {
        Some(waited) => component.inside("connection_wait_ms", waited.as_secs_f64() * 1e3),
        // Not worse than degraded: the database is well, and a restart would not help.
        None if component.status < Status::Degraded => {
            let detail = format!("{busy} of {max} connections in use");
            Component { status: Status::Degraded, ..component }
                .error("no connection became free in time")
                .code(
                    "DB_POOL_SATURATED",
                    "Requests wait for a connection. Look for slow statements and long transactions \
                     (pg_stat_activity), then raise LOOM_SERVER_DATABASE_MAX_CONNECTIONS within what \
                     PostgreSQL's max_connections allows for all replicas.",
                )
                .detail(detail)
        }
        None => component,
    };
    let vitals = &looked.vitals;
    with_pool(component, pool)
        .inside("server_version", vitals.version.as_str())
        .inside("round_trip_ms", looked.round_trip.as_secs_f64() * 1e3)
        .inside("pool_busy", busy)
        .inside("server_connections", vitals.used_connections)
        .inside("server_max_connections", vitals.max_connections)
        .inside("oldest_transaction_secs", json!(vitals.oldest_transaction_secs))
        .inside("xid_age", vitals.xid_age)
        .inside("transaction_pooler", looked.pooler)
        .inside("migration", json!(looked.migrations.current))
        .inside("migration_expected", json!(looked.migrations.expected))
}

fn with_pool(component: Component, pool: &PgPool) -> Component {
    component
        .with("connections", pool.size())
        .with("idle_connections", pool.num_idle())
        .with("max_connections", pool.options().get_max_connections())
}

/// How long a request waits for a connection now; None when longer than it should.
async fn wait_for_connection(pool: &PgPool) -> Option<Duration> {
    let started = Instant::now();
    // One that is free needs no round trip; a new one is not the pool's want.
    if pool.num_idle() > 0 || pool.size() < pool.options().get_max_connections() {
        return Some(started.elapsed());
    }
    let connection = tokio::time::timeout(CONNECTION, pool.acquire()).await;
    matches!(connection, Ok(Ok(_))).then(|| started.elapsed())
}

struct Looked {
    vitals: Vitals,
    round_trip: Duration,
    /// Two statements of one session went to two backends.
    pooler: bool,
    migrations: migrate::Comparison,
}

/// Without preparing: that would be further round trips, and they count here.
async fn look(probes: PgPool) -> sqlx::Result<Looked> {
    let mut connection = probes.acquire().await?;
    let row = sqlx::raw_sql(VITALS).fetch_one(&mut *connection).await?;
    let vitals = Vitals::from_row(&row)?;
    let started = Instant::now();
    let row = sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(&mut *connection).await?;
    let round_trip = started.elapsed();
    let pid: i32 = row.try_get(0)?;
    let migrations =
        vitals.migrations.iter().filter_map(|text| migration(text)).collect::<Vec<_>>();
    Ok(Looked {
        round_trip,
        pooler: pid != vitals.pid,
        migrations: migrate::compare(&migrations),
        vitals,
    })
}

/// The gravest of what is wrong.
fn judge(looked: &Looked, thresholds: Thresholds, through_pooler: bool) -> Component {
    let Looked { vitals, migrations, .. } = looked;
    let degraded = || Component::new(Status::Degraded);
    if vitals.in_recovery {
        return Component::new(Status::Unhealthy).error("the database takes no writes").code(
            "DB_READ_ONLY",
            "The server is connected to a standby. Point DATABASE_URL to the primary (with \
             target_session_attrs or a service that follows it), or promote this one.",
        );
    }
    if let Some(version) = migrations.pending {
        return Component::new(Status::Unhealthy)
            .error("the schema is older than this server")
            .code(
                "DB_MIGRATION_PENDING",
                "The database lacks a migration that this server ran on: an older backup was restored \
                 under it. Restart the server, which migrates at its start.",
            )
            .detail(format!("migration {version} is not applied"));
    }
    if let Some((version, needed)) = migrations.beyond {
        return Component::new(Status::Unhealthy)
            .error("the schema is newer than this server can work with")
            .code(
                "DB_MIGRATION_BEYOND",
                "A newer version has removed what this one needs: versions were skipped in an upgrade \
                 without a pause. Replace this server by the newer version.",
            )
            .detail(format!("migration {version} wants a server that knows migration {needed}"));
    }
    if let Some(version) = migrations.dirty {
        return degraded()
            .error("a migration did not come to its end")
            .code(
                "DB_MIGRATION_DIRTY",
                "A migration failed half-way. The log of the server that ran it says why; mend that and \
                 start that version again. No server starts on this database before.",
            )
            .detail(format!("migration {version}"));
    }
    if let Some(version) = migrations.edited {
        return degraded()
            .error("an applied migration is not that of this server")
            .code(
                "DB_MIGRATION_EDITED",
                "Another build has migrated this database. This server runs on; it would not start \
                 again. Find out which build, and use one for all replicas.",
            )
            .detail(format!("migration {version}"));
    }
    if let Some(version) = migrations.newer {
        return degraded()
            .error("the schema is newer than this server")
            .code(
                "DB_MIGRATION_NEWER",
                "A newer version has migrated the database, as in the middle of an upgrade. This server works \
                 on it; replace it by the newer version too.",
            )
            .detail(format!("migration {version} is not known to this version"));
    }
    if through_pooler && looked.pooler {
        return degraded().error("a pooler is between the server and the database").code(
            "DB_POOLER",
            "Two statements went to two backends: a transaction pooler, which loses LISTEN. Set \
             LOOM_SERVER_DATABASE_DIRECT_URL to the database past the pooler.",
        );
    }
    if vitals.xid_age > XID_AGE {
        return degraded()
            .error("old transaction ids are not being frozen")
            .code(
                "DB_XID_AGE",
                "Autovacuum does not keep up, and at 2^31 PostgreSQL stops writing. Look for old \
                 transactions, abandoned replication slots and prepared transactions that hold it back, \
                 then VACUUM (FREEZE) the oldest tables.",
            )
            .detail(format!("age {}", vitals.xid_age));
    }
    let oldest = vitals.oldest_transaction_secs.unwrap_or_default();
    if oldest > thresholds.transaction.as_secs_f64() {
        return degraded()
            .error("a transaction has been open for long")
            .code(
                "DB_OLD_TRANSACTION",
                "It holds back vacuum and may hold locks. Look at its pid in pg_stat_activity; \
                 pg_terminate_backend(pid) ends it.",
            )
            .detail(format!(
                "pid {}, for {oldest:.0} s",
                vitals.oldest_transaction_pid.unwrap_or_default()
            ));
    }
    if looked.round_trip > SLOW {
        return degraded()
            .error("the database answers slowly")
            .code(
                "DB_SLOW",
                "A statement that does nothing takes this long: look at the network between the server \
                 and PostgreSQL, and at PostgreSQL's CPU and disk.",
            )
            .detail(format!("{:.0} ms", looked.round_trip.as_secs_f64() * 1e3));
    }
    Component::new(Status::Healthy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked() -> Looked {
        let vitals = Vitals {
            pid: 7,
            version: "16.1".to_owned(),
            in_recovery: false,
            xid_age: 100,
            max_connections: 100,
            used_connections: 10,
            oldest_transaction_secs: None,
            oldest_transaction_pid: None,
            migrations: Vec::new(),
        };
        let migrations = migrate::Comparison {
            current: Some(1),
            expected: Some(1),
            dirty: None,
            newer: None,
            beyond: None,
            edited: None,
            pending: None,
        };
        Looked { vitals, round_trip: Duration::from_millis(1), pooler: false, migrations }
    }

    #[track_caller]
    fn assert_turns(code: &str, status: Status, change: impl FnOnce(&mut Looked)) {
        let thresholds = Thresholds { transaction: Duration::from_secs(300) };
        assert_eq!(judge(&looked(), thresholds, true).status, Status::Healthy);
        let mut changed = looked();
        change(&mut changed);
        let component = judge(&changed, thresholds, true);
        assert_eq!(component.status, status);
        assert_eq!(component.finding.unwrap().code, code);
    }

    /// What a test cannot do to a PostgreSQL in a moment: a standby, a pooler, old transaction ids.
    #[test]
    fn a_standby_a_pooler_and_old_transaction_ids_are_told() {
        assert_turns("DB_READ_ONLY", Status::Unhealthy, |l| l.vitals.in_recovery = true);
        assert_turns("DB_POOLER", Status::Degraded, |l| l.pooler = true);
        assert_turns("DB_XID_AGE", Status::Degraded, |l| l.vitals.xid_age = 1_600_000_000);
        let mut behind = looked();
        behind.pooler = true;
        let thresholds = Thresholds { transaction: Duration::from_secs(300) };
        // A way past it was given.
        assert_eq!(judge(&behind, thresholds, false).status, Status::Healthy);
    }

    #[test]
    fn a_migration_is_read_from_its_text() {
        let read = migration("12 00ff1e true drop the titles").unwrap();
        assert_eq!((read.version, read.checksum, read.success), (12, vec![0, 255, 30], true));
        assert_eq!(read.description, "drop the titles");
        assert!(migration("12").is_none());
    }
}
