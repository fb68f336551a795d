//! Migrations: once, in order, and not on a database that does not fit.

use std::time::Duration;

use loom_common_secret::SecretString;
use loom_db::{OpenError, connect, migrate, migrate::MigrationError};
use sqlx::{
    PgPool,
    migrate::{Migration, MigrationType, Migrator},
};

use crate::support::{EmptyDatabase, limits};

const TABLE: &str = "CREATE TABLE numbers (n int)";
const INDEX: &str = "CREATE INDEX CONCURRENTLY numbers_idx ON numbers (n)";

fn set(migrations: &[(i64, &'static str)]) -> Migrator {
    let each = |(version, sql): &(i64, &'static str)| (*version, "a step", *sql);
    named(&migrations.iter().map(each).collect::<Vec<_>>())
}

fn named(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let each = |(version, name, sql): &(i64, &'static str, &'static str)| {
        let sql = sqlx::SqlSafeStr::into_sql_str(*sql);
        let no_tx = sql.as_str().contains("CONCURRENTLY");
        Migration::new(*version, (*name).into(), MigrationType::Simple, sql, no_tx)
    };
    Migrator::with_migrations(migrations.iter().map(each).collect())
}

async fn run(url: &SecretString, migrations: &[(i64, &'static str)]) -> Result<usize, OpenError> {
    migrate::run_set(set(migrations), url, Duration::from_secs(5)).await
}

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn our_own_run_once_and_the_status_says_so() {
    let database = EmptyDatabase::new().await;
    let url = database.url();
    let pool = connect(&url, &limits(2)).await.unwrap();

    let before = migrate::status(&pool).await.unwrap();
    assert!(before.applied.is_empty() && before.problem.is_none());
    assert_eq!(before.pending.first().unwrap().description, "organisations");

    assert_eq!(migrate::run(&url, Duration::ZERO).await.unwrap(), before.pending.len());
    assert_eq!(migrate::run(&url, Duration::ZERO).await.unwrap(), 0);

    let after = migrate::status(&pool).await.unwrap();
    assert_eq!(after.applied.len(), before.pending.len());
    assert!(after.pending.is_empty() && after.problem.is_none());
    pool.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_that_start_together_migrate_once() {
    let database = EmptyDatabase::new().await;
    let url = database.url();
    let steps = [
        (1, TABLE),
        (2, "INSERT INTO numbers SELECT 1 FROM pg_sleep(0.2)"),
        // Waits for every snapshot, so for a replica that waits for the lock inside a statement.
        (3, INDEX),
    ];
    let replicas: Vec<_> = (0..4)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { run(&url, &steps).await.unwrap() })
        })
        .collect();
    let mut ran = 0;
    for replica in replicas {
        ran += replica.await.unwrap();
    }
    assert_eq!(ran, 3);
    let pool = connect(&url, &limits(2)).await.unwrap();
    assert_eq!(count(&pool, "SELECT count(*) FROM numbers").await, 1);
    pool.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_newer_database_is_taken_until_it_has_removed_what_is_needed() {
    let database = EmptyDatabase::new().await;
    let url = database.url();
    let drop = (4, "contract 2 drop n", "ALTER TABLE numbers DROP COLUMN n");
    let newest = [(1, "numbers", TABLE), (2, "index", INDEX), drop];
    run(&url, &[(1, TABLE), (2, INDEX)]).await.unwrap();
    let pool = connect(&url, &limits(2)).await.unwrap();

    // As the version before, while the newer one runs too; also when it has steps of its own to go.
    assert_eq!(run(&url, &[(1, TABLE)]).await.unwrap(), 0);
    assert_eq!(run(&url, &[(1, TABLE), (3, "SELECT 1")]).await.unwrap(), 1);
    let status = migrate::status_of(&set(&[(1, TABLE)]), &pool).await.unwrap();
    assert!(status.problem.is_none() && status.newer == [2, 3], "{status:?}");

    migrate::run_set(named(&newest), &url, Duration::from_secs(5)).await.unwrap();
    // Who knows 2 does without; who does not is too old.
    assert_eq!(run(&url, &[(1, TABLE), (2, INDEX)]).await.unwrap(), 0);
    let error = run(&url, &[(1, TABLE)]).await.unwrap_err();
    let newer =
        |error: &MigrationError| matches!(error, MigrationError::Newer { version: 4, needed: 2 });
    assert!(matches!(&error, OpenError::Migration(error) if newer(error)), "{error:?}");
    assert!(error.to_string().contains("Start a newer one"), "{error}");
    let status = migrate::status_of(&set(&[(1, TABLE)]), &pool).await.unwrap();
    assert!(status.problem.as_ref().is_some_and(newer), "{status:?}");
    pool.close().await;
    database.drop().await;
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    let database = EmptyDatabase::new().await;
    let url = database.url();
    run(&url, &[(1, TABLE)]).await.unwrap();

    let edited = [(1, "CREATE TABLE numbers (n bigint)")];
    let error = run(&url, &edited).await.unwrap_err();
    assert!(matches!(error, OpenError::Migration(MigrationError::Edited(1))), "{error:?}");

    let pool = connect(&url, &limits(2)).await.unwrap();
    let status = migrate::status_of(&set(&edited), &pool).await.unwrap();
    assert!(matches!(status.problem, Some(MigrationError::Edited(1))), "{status:?}");
    // The refusal has not kept the lock.
    assert_eq!(run(&url, &[(1, TABLE)]).await.unwrap(), 0);
    pool.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_failing_migration_leaves_nothing_behind() {
    let database = EmptyDatabase::new().await;
    let url = database.url();
    let steps = [(1, TABLE), (2, "CREATE TABLE half (n int); SELECT 1 / 0")];
    let error = run(&url, &steps).await.unwrap_err();
    assert!(
        matches!(&error, OpenError::Migration(MigrationError::Failed { version: 2, .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("division by zero"), "{error}");
    let pool = connect(&url, &limits(2)).await.unwrap();
    assert_eq!(count(&pool, "SELECT count(*) FROM pg_class WHERE relname = 'half'").await, 0);
    assert_eq!(run(&url, &[(1, TABLE), (2, INDEX)]).await.unwrap(), 1);
    pool.close().await;
    database.drop().await;
}
