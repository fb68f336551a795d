//! Migrations, compiled in: run once however many replicas start, and refused when this binary and
//! the database do not belong together.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use loom_common_secret::SecretString;
use sqlx::{
    Connection as _, Executor as _, PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
};

use crate::{error::OpenError, pool};

/// Any number that nothing else locks with; a session lock of PostgreSQL is per database.
const LOCK: i64 = 0x6c6f_6f6d;
const TELL_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error(
        "the database has migration {0}, which this version of Loom does not know: a newer version \
         has run on it. Start that version or a newer one, or restore a backup from before the upgrade"
    )]
    Newer(i64),

    #[error(
        "migration {0} has been edited since it ran on this database. Put the file back as it was \
         and make the change in a new migration (a database with nothing to lose can be dropped instead)"
    )]
    Edited(i64),

    #[error(
        "migration {version} failed and left nothing behind unless it is marked no-transaction: \
         {cause}. Mend what the message names, then start again"
    )]
    Failed { version: i64, cause: String },

    #[error("the migrations could not run: {0}. Start again when the database is well")]
    Database(String),
}

/// Where the database stands, for `migrate --check`.
#[derive(Debug, Default)]
pub struct Status {
    pub applied: Vec<i64>,
    pub pending: Vec<Pending>,
    /// Why the server would refuse to start on it.
    pub problem: Option<MigrationError>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub version: i64,
    pub description: String,
}

fn embedded() -> Migrator {
    sqlx::migrate!("../../migrations")
}

/// Names this set of migrations: another set, another name. Test templates are called by it.
pub fn fingerprint() -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in embedded().iter().flat_map(|migration| migration.checksum.to_vec()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// Brings the database at `url` up to date and returns how many migrations ran. The URL must not
/// lead through a transaction pooler: the lock belongs to the session.
pub async fn run(url: &SecretString, wait: Duration) -> Result<usize, OpenError> {
    run_set(embedded(), url, wait).await
}

/// [`run`] with other migrations than our own.
pub async fn run_set(
    migrator: Migrator,
    url: &SecretString,
    wait: Duration,
) -> Result<usize, OpenError> {
    let options = pool::options(url).map_err(OpenError::Url)?;
    let mut connection = pool::wait_for(&options, wait).await?;
    let ran = locked(migrator, &mut connection).await;
    // Closing gives the lock back, also after a failure.
    let _ = connection.close().await;
    Ok(ran?)
}

async fn locked(
    mut migrator: Migrator,
    connection: &mut PgConnection,
) -> Result<usize, MigrationError> {
    // A role may have limits of its own, and an index on a large table takes its time.
    connection
        .execute(
            "SET statement_timeout = 0; SET lock_timeout = 0; \
             SET idle_in_transaction_session_timeout = 0",
        )
        .await
        .map_err(|error| MigrationError::Database(error.to_string()))?;
    lock(connection).await?;
    // Not sqlx's own lock: a replica waiting inside that SELECT holds a snapshot, which a
    // CREATE INDEX CONCURRENTLY of the other one waits for, which is a deadlock.
    migrator.set_locking(false);
    let before = applied(connection).await?.len();
    let start = Instant::now();
    // `run` makes a future that cannot be spawned ("Acquire is not general enough").
    migrator.run_direct(None, connection, false).await.map_err(explain)?;
    let ran = applied(connection).await?.len().saturating_sub(before);
    if ran > 0 {
        tracing::info!(
            ran,
            elapsed_ms = start.elapsed().as_secs_f64() * 1e3,
            "migrated the database"
        );
    }
    Ok(ran)
}

async fn lock(connection: &mut PgConnection) -> Result<(), MigrationError> {
    let mut told = Instant::now();
    loop {
        let got: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| MigrationError::Database(error.to_string()))?;
        if got {
            return Ok(());
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tracing::info!("waiting while another server migrates the database");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn explain(error: MigrateError) -> MigrationError {
    match error {
        MigrateError::VersionMissing(version) => MigrationError::Newer(version),
        MigrateError::VersionMismatch(version) => MigrationError::Edited(version),
        MigrateError::ExecuteMigration(cause, version) => {
            MigrationError::Failed { version, cause: cause.to_string() }
        }
        other => MigrationError::Database(other.to_string()),
    }
}

/// Compares the database with this binary and changes nothing.
pub async fn status(pool: &PgPool) -> Result<Status, MigrationError> {
    status_of(&embedded(), pool).await
}

/// [`status`] with other migrations than our own.
pub async fn status_of(migrator: &Migrator, pool: &PgPool) -> Result<Status, MigrationError> {
    let mut connection =
        pool.acquire().await.map_err(|error| MigrationError::Database(error.to_string()))?;
    let applied = applied(&mut connection).await?;
    let problem = applied.iter().find_map(|(version, checksum)| {
        match migrator.iter().find(|known| known.version == *version) {
            None => Some(MigrationError::Newer(*version)),
            Some(known) if *known.checksum != **checksum => Some(MigrationError::Edited(*version)),
            Some(_) => None,
        }
    });
    let pending = migrator
        .iter()
        .filter(|known| !applied.contains_key(&known.version))
        .map(|known| Pending {
            version: known.version,
            description: known.description.clone().into_owned(),
        })
        .collect();
    Ok(Status { applied: applied.into_keys().collect(), pending, problem })
}

/// What `rows` of `_sqlx_migrations` (version, checksum, success) say of this binary's set.
pub(crate) fn compare(rows: &[(i64, Vec<u8>, bool)]) -> Comparison {
    let migrator = embedded();
    let known = |version: i64| migrator.iter().find(|migration| migration.version == version);
    Comparison {
        current: rows.iter().map(|row| row.0).max(),
        expected: migrator.iter().map(|migration| migration.version).max(),
        dirty: rows.iter().find(|row| !row.2).map(|row| row.0),
        newer: rows.iter().find(|row| known(row.0).is_none()).map(|row| row.0),
        edited: rows
            .iter()
            .find(|row| known(row.0).is_some_and(|migration| *migration.checksum != *row.1))
            .map(|row| row.0),
        pending: migrator
            .iter()
            .find(|migration| rows.iter().all(|row| row.0 != migration.version))
            .map(|migration| migration.version),
    }
}

/// One migration of each kind, if there is any.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) current: Option<i64>,
    pub(crate) expected: Option<i64>,
    pub(crate) dirty: Option<i64>,
    pub(crate) newer: Option<i64>,
    pub(crate) edited: Option<i64>,
    pub(crate) pending: Option<i64>,
}

async fn applied(connection: &mut PgConnection) -> Result<BTreeMap<i64, Vec<u8>>, MigrationError> {
    let read = async {
        let there: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&mut *connection)
            .await?;
        if !there {
            return Ok(Vec::new());
        }
        sqlx::query_as::<_, (i64, Vec<u8>)>("SELECT version, checksum FROM _sqlx_migrations")
            .fetch_all(&mut *connection)
            .await
    };
    let rows = read.await.map_err(|error: sqlx::Error| MigrationError::Database(error.to_string()));
    Ok(rows?.into_iter().collect())
}
