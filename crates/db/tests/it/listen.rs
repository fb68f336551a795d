//! Words between replicas, and what is told when some may be missing.

use std::time::Duration;

use loom_db::{Hub, Signal, connect};

use crate::support::{EmptyDatabase, limits};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_word_reaches_its_channel_and_a_lost_connection_says_read_again() {
    let database = EmptyDatabase::new().await;
    let pool = connect(&database.url(), &limits(2)).await.unwrap();
    let (hub, task) = Hub::start(&database.url(), &["loom_a", "loom_b"]).unwrap();
    let (mut a, mut b) = (hub.subscribe("loom_a"), hub.subscribe("loom_b"));
    let read_again = async { tokio::join!(a.next(), b.next()) };
    let (at_a, at_b) = tokio::time::timeout(PATIENCE, read_again).await.unwrap();
    assert_eq!((at_a, at_b), (Some(Signal::ReadAgain), Some(Signal::ReadAgain)));

    sqlx::query("SELECT pg_notify('loom_b', 'one')").execute(&pool).await.unwrap();
    let said = tokio::time::timeout(PATIENCE, b.next()).await.unwrap();
    assert_eq!(said, Some(Signal::Said("one".into())));
    assert!(hub.probe(&pool, PATIENCE).await.unwrap().is_some());

    let killed = sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND query LIKE 'LISTEN%'",
    );
    assert_eq!(killed.execute(&pool).await.unwrap().rows_affected(), 1);
    let again = tokio::time::timeout(PATIENCE, a.next()).await.unwrap();
    assert_eq!(again, Some(Signal::ReadAgain), "only `loom_b` was spoken on");
    assert!(hub.probe(&pool, PATIENCE).await.unwrap().is_some());

    hub.stop();
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
    assert!(!hub.is_connected());
    pool.close().await;
    database.drop().await;
}
