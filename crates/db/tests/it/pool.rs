//! Connecting, and transactions that outlive a cancelled request.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use loom_db::{
    OpenError, connect,
    embedded::{Options, PrivatePostgres},
};
use sqlx::PgPool;

use crate::support::{Directory, EmptyDatabase, execute, limits, url_of};

/// Polls a future so many times and then drops it, as axum does when a client has gone.
async fn cancelled_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut polled = 0;
    poll_fn(|context| {
        polled += 1;
        if polled > polls {
            return Poll::Ready(None);
        }
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Whether the pool gives out a connection that stands inside a transaction: there, time stands still.
async fn inside_a_transaction(pool: &PgPool) -> bool {
    let mut connection = pool.acquire().await.unwrap();
    let mut times = Vec::new();
    for _ in 0..2 {
        let now: sqlx::Result<f64> = sqlx::query_scalar("SELECT extract(epoch FROM now())::float8")
            .fetch_one(&mut *connection)
            .await;
        times.push(now.unwrap());
    }
    times[0] == times[1]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_begin_leaves_no_open_transaction() {
    let database = EmptyDatabase::new().await;
    let pool = connect(&database.url(), &limits(1)).await.unwrap();
    for round in 0..400 {
        drop(cancelled_after(1 + round % 8, loom_db::begin(&pool)).await);
        let micros = Duration::from_micros(round as u64 * 7 % 600);
        let _ = tokio::time::timeout(micros, loom_db::begin(&pool)).await;
        assert!(!inside_a_transaction(&pool).await, "round {round}");
    }
    pool.close().await;
    database.drop().await;
}

/// The second line of defence, for a `begin` that is not ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "this is the fault that is guarded against")]
async fn a_connection_comes_back_to_the_pool_outside_any_transaction() {
    let database = EmptyDatabase::new().await;
    let pool = connect(&database.url(), &limits(1)).await.unwrap();
    for round in 0..400 {
        drop(cancelled_after(1 + round % 8, pool.begin()).await);
        assert!(!inside_a_transaction(&pool).await, "round {round}");
    }
    pool.close().await;
    database.drop().await;
}

#[tokio::test]
async fn each_connection_has_its_limits() {
    let database = EmptyDatabase::new().await;
    let pool = connect(&database.url(), &limits(2)).await.unwrap();
    for (name, expected) in [
        ("statement_timeout", "30s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("application_name", "loom-server"),
    ] {
        let is: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(name)
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(is, expected, "{name}");
    }
    pool.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_missing_database_is_told_at_once() {
    let start = Instant::now();
    let error = connect(&url_of("no_such"), &limits(2)).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(matches!(error, OpenError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("CREATE DATABASE \"no_such\""), "{error}");
}

#[tokio::test]
async fn a_refused_user_is_told_at_once() {
    let url = url_of("loom").expose().replace("//loom@", "//nobody_here:hunter2@");
    let error = connect(&url.into(), &limits(2)).await.unwrap_err().to_string();
    assert!(error.contains("nobody_here@"), "{error}");
    assert!(error.contains("Check user and password"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn says_for_which_database_it_has_waited_in_vain() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://loom:hunter2@127.0.0.1:{port}/loom");
    let mut limits = limits(2);
    limits.wait = Duration::from_millis(600);
    let start = Instant::now();
    let error = connect(&url.into(), &limits).await.unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(600));
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
    let error = error.to_string();
    assert!(error.contains(&format!("loom@127.0.0.1:{port}/loom")), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn waits_for_a_database_that_comes_late() {
    let dir = Directory::new("late");
    let options = Options { durable: false, ..Options::new(dir.path()) };
    let postgres = PrivatePostgres::start(options.clone()).await.unwrap();
    let url = postgres.url();
    postgres.stop().await;

    let mut limits = limits(2);
    limits.wait = Duration::from_secs(20);
    // In this order: the first attempt finds nobody.
    let (connected, postgres) = tokio::join!(connect(&url, &limits), async {
        PrivatePostgres::start(options).await.unwrap()
    });
    connected.unwrap().close().await;
    postgres.stop().await;
}

#[tokio::test]
async fn a_connection_that_the_server_has_cut_is_replaced() {
    let database = EmptyDatabase::new().await;
    let pool = connect(&database.url(), &limits(1)).await.unwrap();
    let pid = "SELECT pg_backend_pid()";
    let before: i32 = sqlx::query_scalar(pid).fetch_one(&pool).await.unwrap();
    execute(format!("SELECT pg_terminate_backend({before}, 5000)")).await;
    let after: i32 = sqlx::query_scalar(pid).fetch_one(&pool).await.unwrap();
    assert_ne!(before, after);
    pool.close().await;
    database.drop().await;
}
