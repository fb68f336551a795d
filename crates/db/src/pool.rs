//! The connection pool: its limits, waiting for a database that is not there yet, and transactions
//! that a cancelled request cannot leave open.

use std::{
    borrow::Cow,
    str::FromStr,
    time::{Duration, Instant},
};

use loom_common_secret::SecretString;
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tracing::Instrument as _;

use crate::error::OpenError;

const OLDEST: i32 = 15;
const ATTEMPT: Duration = Duration::from_secs(5);
const TELL_EVERY: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_connections: u32,
    pub statement_timeout: Duration,
    /// How long to wait for a database that is not there yet.
    pub wait: Duration,
}

/// Waits for the database, checks that it is one we can use, and makes the pool.
pub async fn connect(url: &SecretString, limits: &Limits) -> Result<PgPool, OpenError> {
    let options = options(url).map_err(OpenError::Url)?;
    // One connection outside the pool first: the pool would turn every failure into a timeout.
    let first = wait_for(&options, limits.wait).await?;
    let _ = first.close().await;
    Ok(lazy(options, limits))
}

fn lazy(options: PgConnectOptions, limits: &Limits) -> PgPool {
    // Not as start-up parameters: a pooler such as PgBouncer refuses those it does not know.
    let settings = format!(
        "SET statement_timeout = {}; SET lock_timeout = 10000; \
         SET idle_in_transaction_session_timeout = 60000",
        limits.statement_timeout.as_millis()
    );
    PgPoolOptions::new()
        .max_connections(limits.max_connections)
        .acquire_timeout(Duration::from_secs(5))
        .idle_timeout(Duration::from_secs(10 * 60))
        .max_lifetime(Duration::from_secs(30 * 60))
        .after_connect(move |connection, _| {
            let settings = settings.clone();
            Box::pin(async move {
                connection.execute(AssertSqlSafe(settings)).await?;
                Ok(())
            })
        })
        .after_release(|connection, _| {
            Box::pin(async move {
                // sqlx 0.9.0 can put a connection back inside an open transaction that it knows
                // nothing of. A bare ROLLBACK would log a warning on each release that has none;
                // after a failed statement this BEGIN fails, and the connection is thrown away.
                connection.execute("BEGIN; ROLLBACK").await?;
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

/// Few connections beside the pool, to the same database, that go soon after the last use.
pub(crate) fn for_probes(pool: &PgPool) -> PgPool {
    pool.options()
        .clone()
        .max_connections(PROBES)
        .acquire_timeout(Duration::from_secs(3))
        .idle_timeout(Duration::from_secs(60))
        .connect_lazy_with(pool.connect_options().as_ref().clone())
}

/// Connections beside the pool for whoever writes all the time, one statement after the other, each its own
/// transaction: the same few, which know the statement, and are not asked how they are before each. What
/// fails on one is to be tried again. There are none while nothing is written.
pub fn for_writer(pool: &PgPool, connections: u32) -> PgPool {
    pool.options()
        .clone()
        .max_connections(connections)
        .test_before_acquire(false)
        .after_release(|_, _| Box::pin(async { Ok(true) }))
        .connect_lazy_with(pool.connect_options().as_ref().clone())
}

/// Opens a transaction. The caller may be cancelled at any point: sqlx 0.9.0 would leave the
/// connection inside an open transaction, so that the BEGIN runs in a task of its own, to its end.
#[expect(clippy::disallowed_methods, reason = "this is the one place where it cannot be cancelled")]
pub async fn begin(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin().await }.in_current_span()).await;
    begun.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

/// Parses a URL; the error completes "the URL …" and does not repeat it.
pub(crate) fn options(url: &SecretString) -> Result<PgConnectOptions, String> {
    let text = url.expose();
    if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Err("must be postgres://user:password@host:port/database".to_owned());
    }
    let options = PgConnectOptions::from_str(text)
        .map_err(|error| format!("cannot be read as a PostgreSQL URL: {error}"))?;
    Ok(options
        .application_name("loom-server")
        // PostgreSQL 12 and newer send floats exactly by default, and a pooler may refuse this one.
        .extra_float_digits(None))
}

/// As `user@host:port/database`, without the password.
pub(crate) fn target(options: &PgConnectOptions) -> String {
    let host = options.get_socket().map_or_else(
        || format!("{}:{}", options.get_host(), options.get_port()),
        |socket| socket.display().to_string(),
    );
    let user = options.get_username();
    format!("{user}@{host}/{}", options.get_database().unwrap_or(user))
}

/// A connection, as soon as there is a database to give one; at once an error when it never will.
pub(crate) async fn wait_for(
    options: &PgConnectOptions,
    wait: Duration,
) -> Result<PgConnection, OpenError> {
    let target = target(options);
    let start = Instant::now();
    let mut told: Option<Instant> = None;
    let mut pause = Duration::from_millis(50);
    loop {
        let attempt = tokio::time::timeout(ATTEMPT, PgConnection::connect_with(options)).await;
        let cause = match attempt {
            Ok(Ok(connection)) => return supported(connection, target).await,
            Ok(Err(error)) => match not_yet(&error) {
                Some(cause) => cause,
                None => return Err(refused(target, options, &error)),
            },
            Err(_) => format!("no answer within {} s", ATTEMPT.as_secs()),
        };
        let left = wait.saturating_sub(start.elapsed());
        if left.is_zero() {
            let waited_secs = start.elapsed().as_secs();
            return Err(OpenError::Unreachable { target, waited_secs, cause });
        }
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            told = Some(Instant::now());
            tracing::info!(
                database = %target,
                %cause,
                "waiting for the database, {} s left",
                left.as_secs()
            );
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Why it makes sense to try again, if it does.
fn not_yet(error: &sqlx::Error) -> Option<String> {
    match error {
        sqlx::Error::Io(error) => Some(error.to_string()),
        // Starting, shutting down or recovering; or out of connections just now.
        sqlx::Error::Database(error)
            if error.code().is_some_and(|code| code.starts_with("57P0") || code == "53300") =>
        {
            Some(error.message().to_owned())
        }
        _ => None,
    }
}

fn refused(target: String, options: &PgConnectOptions, error: &sqlx::Error) -> OpenError {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    let code = error.as_database_error().and_then(|error| error.code().map(Cow::into_owned));
    let hint = match code.as_deref() {
        Some("28P01" | "28000") => format!(
            "Check user and password in the URL, and that pg_hba.conf lets {} in from here",
            options.get_username()
        ),
        Some("3D000") => format!(
            "Create it (CREATE DATABASE \"{database}\" OWNER \"{}\") or name another in the URL",
            options.get_username()
        ),
        _ => "Check the URL".to_owned(),
    };
    OpenError::Refused { target, cause: error.to_string(), hint }
}

async fn supported(
    mut connection: PgConnection,
    target: String,
) -> Result<PgConnection, OpenError> {
    let asked = sqlx::query_as::<_, (String, String)>(
        "SELECT current_setting('server_version_num'), current_setting('server_version')",
    );
    let (number, version) = asked.fetch_one(&mut connection).await.map_err(|error| {
        let hint = "Check that it is a PostgreSQL".to_owned();
        OpenError::Refused { target: target.clone(), cause: error.to_string(), hint }
    })?;
    if number.parse::<i32>().is_ok_and(|number| number / 10_000 < OLDEST) {
        return Err(OpenError::TooOld { target, version });
    }
    Ok(connection)
}
