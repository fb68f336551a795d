//! Migrations, compiled in: run once however many replicas start, and refused when this binary and
//! the database do not belong together. A schema that is newer is taken as long as nothing was removed
//! that this binary needs, so that two versions can run at once during an upgrade.

use std::time::{Duration, Instant};

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
        "the database has migration {version}, which removed what this version of Loom still needs: it \
         wants a version that knows migration {needed}. Start a newer one, or restore a backup from \
         before the upgrade"
    )]
    Newer { version: i64, needed: i64 },

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
    /// Of a newer version, and no harm to this one.
    pub newer: Vec<i64>,
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

/// Does this binary have the migration?
pub fn is_known(version: i64) -> bool {
    knows(&embedded(), version)
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
    // A newer version may have been here, as in the middle of an upgrade: what it added is no concern of
    // ours, and what it removed only if we are too old for that.
    let rows = applied(connection).await?;
    if let Some(problem) = compare_set(&migrator, &rows).beyond() {
        return Err(problem);
    }
    migrator.set_ignore_missing(true);
    let before = rows.len();
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
    let rows = applied(&mut connection).await?;
    let compared = compare_set(migrator, &rows);
    let edited = compared.edited.map(MigrationError::Edited);
    let problem = compared.beyond().or(edited);
    let pending = migrator
        .iter()
        .filter(|known| rows.iter().all(|row| row.version != known.version))
        .map(|known| Pending {
            version: known.version,
            description: known.description.clone().into_owned(),
        })
        .collect();
    let newer = rows.iter().filter(|row| !knows(migrator, row.version)).map(|row| row.version);
    Ok(Status {
        newer: newer.collect(),
        applied: rows.iter().map(|row| row.version).collect(),
        pending,
        problem,
    })
}

/// A row of `_sqlx_migrations`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Applied {
    pub(crate) version: i64,
    pub(crate) description: String,
    pub(crate) checksum: Vec<u8>,
    pub(crate) success: bool,
}

impl Applied {
    /// `060_contract_052_drop_titles.sql` removes what only servers from before migration 52 need.
    fn needed(&self) -> Option<i64> {
        self.description.strip_prefix("contract ")?.split(' ').next()?.parse().ok()
    }
}

/// What `rows` say of this binary's set.
pub(crate) fn compare(rows: &[Applied]) -> Comparison {
    compare_set(&embedded(), rows)
}

fn knows(migrator: &Migrator, version: i64) -> bool {
    migrator.iter().any(|migration| migration.version == version)
}

fn compare_set(migrator: &Migrator, rows: &[Applied]) -> Comparison {
    let known = |version: i64| migrator.iter().find(|migration| migration.version == version);
    let unknown = || rows.iter().filter(|row| known(row.version).is_none());
    let beyond = unknown()
        .filter_map(|row| Some((row.version, row.needed()?)))
        .find(|(_, needed)| known(*needed).is_none());
    Comparison {
        current: rows.iter().map(|row| row.version).max(),
        expected: migrator.iter().map(|migration| migration.version).max(),
        dirty: rows.iter().find(|row| !row.success).map(|row| row.version),
        newer: unknown().next().map(|row| row.version),
        beyond,
        edited: rows
            .iter()
            .find(|row| {
                known(row.version).is_some_and(|migration| *migration.checksum != *row.checksum)
            })
            .map(|row| row.version),
        pending: migrator
            .iter()
            .find(|migration| rows.iter().all(|row| row.version != migration.version))
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
    /// One that removed what this binary needs, and the one that a binary must know to do without.
    pub(crate) beyond: Option<(i64, i64)>,
    pub(crate) edited: Option<i64>,
    pub(crate) pending: Option<i64>,
}

impl Comparison {
    pub(crate) fn beyond(&self) -> Option<MigrationError> {
        self.beyond.map(|(version, needed)| MigrationError::Newer { version, needed })
    }
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<Applied>, MigrationError> {
    let read = async {
        let there: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&mut *connection)
            .await?;
        if !there {
            return Ok(Vec::new());
        }
        sqlx::query_as(
            "SELECT version, description, checksum, success FROM _sqlx_migrations ORDER BY version",
        )
        .fetch_all(&mut *connection)
        .await
    };
    read.await.map_err(|error: sqlx::Error| MigrationError::Database(error.to_string()))
}
