//! Each test has a database of its own.

use loom_db::migrate;
use loom_testkit::database::TestDatabase;

async fn exists(asked: &TestDatabase, name: &str) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(asked.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_database_is_migrated_and_goes_away_with_its_test() {
    let one = TestDatabase::new().await;
    let two = TestDatabase::new().await;
    let status = migrate::status(one.pool()).await.unwrap();
    assert!(status.pending.is_empty() && status.problem.is_none(), "{status:?}");

    sqlx::query("CREATE TABLE mine ()").execute(one.pool()).await.unwrap();
    sqlx::query("CREATE TABLE mine ()").execute(two.pool()).await.unwrap();

    let name = two.name().to_owned();
    assert!(exists(&one, &name).await);
    drop(two);
    assert!(!exists(&one, &name).await);
}

#[tokio::test]
async fn many_are_made_at_once() {
    let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(TestDatabase::new())).collect();
    let mut names = std::collections::BTreeSet::new();
    for task in tasks {
        names.insert(task.await.unwrap().name().to_owned());
    }
    assert_eq!(names.len(), 8);
}

#[tokio::test]
async fn the_database_of_a_failed_test_is_kept() {
    let witness = TestDatabase::new().await;
    let failed = TestDatabase::new().await;
    let name = failed.name().to_owned();
    let test = std::thread::spawn(move || {
        let _failed = failed;
        panic!("on purpose");
    });
    assert!(test.join().is_err());
    assert!(exists(&witness, &name).await);
    let drop = sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
    sqlx::query(drop).execute(witness.pool()).await.unwrap();
}
