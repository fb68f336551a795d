//! An upgrade from the schema of the release before, with data in it.

use std::path::Path;

use chrono::DateTime;
use loom_core::Clock;
use loom_db::migrate;
use loom_testkit::Setup;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, migrate::Migrator};

use crate::{
    cli::{Cli, empty_database},
    keepsakes,
};

/// The newest migration of that release. With a release this moves on, and so does the data, which was made
/// by that release: see docs/contributing.md.
const BASELINE: i64 = 36;
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/baseline/036.sql");
const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
/// What the data was made with.
const KEY: &str = include_str!("baseline/036.key");
const MASTER_KEY: &str = "4c6f6f6d4c6f6f6d4c6f6f6d4c6f6f6d00112233445566778899aabbccddeeff";
/// Rows that migrations and triggers made are in the data too, with ids of their own.
const EMPTY: &str = "SET session_replication_role = replica; DO $$ DECLARE names text; BEGIN
    SELECT string_agg(format('%I', tablename), ', ') INTO names FROM pg_tables
     WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations';
    EXECUTE 'TRUNCATE ' || names || ' CASCADE'; END $$";
const MADE_AT: i64 = 1_795_424_400;

#[tokio::test]
async fn the_schema_of_the_release_before_is_upgraded_and_its_data_served() {
    let database = empty_database().await;
    let all = Migrator::new(Path::new(MIGRATIONS)).await.unwrap();
    let old = all.iter().filter(|migration| migration.version <= BASELINE).cloned().collect();
    let ran = migrate::run_set(Migrator::with_migrations(old), database.url(), Default::default());
    assert!(ran.await.unwrap() > 30);
    let data = std::fs::read_to_string(DATA).unwrap();
    // A connection of its own: the data begins with settings of a session.
    let mut connection = PgConnection::connect(database.url().expose()).await.unwrap();
    connection.execute(EMPTY).await.unwrap();
    connection.execute(AssertSqlSafe(data)).await.unwrap();
    connection.close().await.unwrap();

    // What is older than its retention would be cleaned up.
    let clock = Clock::manual(DateTime::from_timestamp(MADE_AT, 0).unwrap());
    let setup = Setup::default().clock(clock).set("LOOM_SERVER_MASTER_KEY", MASTER_KEY);
    let app = setup.start_on(database).await;
    let status = migrate::status(app.database.pool()).await.unwrap();
    assert!(status.pending.is_empty() && status.problem.is_none(), "{status:?}");
    keepsakes::check_rows(&app.anonymous().with_key(KEY.trim())).await;
    let cli = Cli::on(&app.database)
        .set("LOOM_SERVER_MASTER_KEY", MASTER_KEY)
        .set("LOOM_SERVER_OPENAI_BASE_URL", &format!("{}/v1", app.mock.url()));
    keepsakes::check_secret(&cli).await;
}

/// Makes the data anew, in a release's own tree: `UPDATE_BASELINE=1`. It is told here that it can be made.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "this is how one asks for the data to be written")]
async fn the_data_of_a_release_is_made_by_that_release() {
    let clock = Clock::manual(DateTime::from_timestamp(MADE_AT, 0).unwrap());
    let setup = Setup::default().clock(clock).set("LOOM_SERVER_MASTER_KEY", MASTER_KEY);
    let app = setup.start().await;
    let cli = Cli::on(&app.database)
        .set("LOOM_SERVER_DATA_DIR", app.data_dir().to_str().unwrap())
        .set("LOOM_SERVER_MASTER_KEY", MASTER_KEY);
    let key = keepsakes::make(&app, &cli, None).await;
    if std::env::var("UPDATE_BASELINE").is_ok_and(|value| value == "1") {
        let dump = std::process::Command::new("pg_dump")
            .args(["--data-only", "--inserts", "--column-inserts", "--no-owner"])
            .args(["--load-via-partition-root", "--exclude-table=_sqlx_migrations"])
            .arg("--dbname")
            .arg(app.database.url().expose())
            .output()
            .unwrap();
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        // Comments, what only psql understands, and what would keep our triggers from our tables.
        let text = String::from_utf8(dump.stdout).unwrap();
        let not_wanted = ["--", "\\", "SELECT pg_catalog.set_config('search_path'"];
        let is_wanted = |line: &&str| {
            !line.is_empty() && !not_wanted.iter().any(|start| line.starts_with(start))
        };
        let lines: Vec<_> = text.lines().filter(is_wanted).collect();
        std::fs::write(DATA, lines.join("\n") + "\n").unwrap();
        std::fs::write(Path::new(DATA).with_extension("key"), &key).unwrap();
    }
    keepsakes::check_rows(&app.anonymous().with_key(&key)).await;
}
