//! What it costs to know who is asking, with few and with many keys in the table:
//! `cargo build --release -p loom-db -p loom-auth --bin test-postgres --example authenticate_times`, then
//! `target/release/test-postgres --run -- target/release/examples/authenticate_times`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it is told its database by test-postgres, and prints what it measured"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use axum::http::{Request, request::Parts};
use loom_auth::{Auth, Config};
use loom_common_secret::SecretString;
use loom_core::{
    Clock,
    principal::{Authentication, RequestInfo, Scopes},
};
use loom_db::pool::Limits;
use loom_notify::Notify;
use sqlx::PgPool;

const WARM: u32 = 1_000_000;
const COLD: usize = 2_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let url = SecretString::from(std::env::var("DATABASE_URL").unwrap());
    let limits = Limits {
        max_connections: 4,
        statement_timeout: Duration::from_secs(600),
        wait: Duration::from_secs(10),
    };
    loom_db::migrate::run(&url, limits.wait).await.unwrap();
    let pool = loom_db::connect(&url, &limits).await.unwrap();
    let maker = auth(&pool);
    let admin = maker.create_admin("bench@example.com").await.unwrap();
    let mut requests = vec![request(admin.secret.expose())];
    for _ in 1..COLD {
        let key = maker.key_for("bench@example.com", Scopes::all(), None).await.unwrap();
        requests.push(request(key.secret.expose()));
    }
    println!("{:>9}  {:>12}  {:>24}", "keys", "warm", "cold: median, 99 %");
    for keys in [COLD, 10_000, 100_000, 1_000_000] {
        fill(&pool, keys).await;
        let auth = auth(&pool);
        let (median, tail) = cold(&auth, &requests).await;
        let warm = warm(&auth, requests.first().unwrap()).await;
        println!("{keys:>9}  {warm:>9.2} µs  {median:>10.1} µs {tail:>9.1} µs");
    }
}

fn auth(pool: &PgPool) -> Auth {
    let clock = Clock::system();
    let notify = Notify::silent(pool.clone(), clock.clone(), &[]).unwrap();
    Auth::new(pool.clone(), clock, notify, Config::default()).unwrap()
}

fn request(key: &str) -> Parts {
    let request = Request::get("/").header("authorization", format!("Bearer {key}"));
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    parts.extensions.insert(RequestInfo { id: "bench".into(), ip: [127, 0, 0, 1].into() });
    parts
}

/// Further keys of the same user up to `keys`, and the last use of all noted just now, so that nothing is
/// written while it is measured.
async fn fill(pool: &PgPool, keys: usize) {
    sqlx::query(
        "INSERT INTO api_keys (id, org_id, user_id, name, secret_sha256, last_four, scopes, created_at)
         SELECT gen_random_uuid(), u.personal_org_id, u.id, 'fill', sha256(gen_random_uuid()::text::bytea), 'abcd',
                '{llm:use}', now()
           FROM users u, generate_series(1, $1 - (SELECT count(*) FROM api_keys)) WHERE u.email = 'bench@example.com'",
    )
    .bind(i64::try_from(keys).unwrap())
    .execute(pool)
    .await
    .unwrap();
    sqlx::query("UPDATE api_keys SET last_used_at = now() WHERE last_used_at IS NULL")
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("VACUUM ANALYZE api_keys").execute(pool).await.unwrap();
}

/// Each key for the first time: one query.
async fn cold(auth: &Auth, requests: &[Parts]) -> (f64, f64) {
    let mut times = Vec::new();
    for request in requests {
        let started = Instant::now();
        known(auth, request).await;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    (*times.get(times.len() / 2).unwrap(), *times.get(times.len() * 99 / 100).unwrap())
}

async fn warm(auth: &Auth, request: &Parts) -> f64 {
    let started = Instant::now();
    for _ in 0..WARM {
        known(auth, black_box(request)).await;
    }
    started.elapsed().as_secs_f64() * 1e6 / f64::from(WARM)
}

async fn known(auth: &Auth, request: &Parts) {
    let authentication = auth.authenticate(request).await;
    assert!(matches!(black_box(authentication), Authentication::Known(_)));
}
