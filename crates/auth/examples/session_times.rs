//! What it costs to know a signed-in browser, with few and with many sessions in the table:
//! `cargo build --release -p loom-db -p loom-auth --bin test-postgres --example session_times`, then
//! `target/release/test-postgres --run -- target/release/examples/session_times`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a tool that prints what it measured, on the database that it is given"
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
    principal::{Authentication, RequestInfo},
};
use loom_db::pool::Limits;
use loom_notify::Notify;
use sqlx::PgPool;

const WARM: u32 = 200_000;
const COLD: u32 = 2_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = SecretString::from(std::env::var("DATABASE_URL").unwrap());
    let limits = Limits {
        max_connections: 4,
        statement_timeout: Duration::from_secs(600),
        wait: Duration::from_secs(10),
    };
    loom_db::migrate::run(&url, limits.wait).await.unwrap();
    let pool = loom_db::connect(&url, &limits).await.unwrap();
    auth(&pool).create_admin("bench@example.com").await.unwrap();
    println!("{:>9}  {:>12}  {:>24}", "sessions", "warm", "cold: median, 99 %");
    for sessions in [2_000, 10_000, 100_000, 1_000_000] {
        fill(&pool, sessions).await;
        let auth = auth(&pool);
        let mut times = Vec::new();
        for n in 1..=COLD {
            let request = request(n);
            let started = Instant::now();
            known(&auth, &request).await;
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        let at = |share: usize| *times.get(times.len() * share / 100).unwrap();
        let (median, tail, request, started) = (at(50), at(99), request(1), Instant::now());
        for _ in 0..WARM {
            known(&auth, black_box(&request)).await;
        }
        let warm = started.elapsed().as_secs_f64() * 1e6 / f64::from(WARM);
        println!("{sessions:>9}  {warm:>9.2} µs  {median:>10.1} µs {tail:>9.1} µs");
    }
}

fn auth(pool: &PgPool) -> Auth {
    let clock = Clock::system();
    let notify = Notify::silent(pool.clone(), clock.clone(), &[]).unwrap();
    let config = Config { base_url: "https://loom.example.com".to_owned(), ..Config::default() };
    Auth::new(pool.clone(), clock, notify, config).unwrap()
}

/// The `n`th session's cookie.
fn request(n: u32) -> Parts {
    let cookie = format!("__Host-loom_session={:x<43}", format!("{n}-"));
    let (mut parts, ()) = Request::get("/").header("cookie", cookie).body(()).unwrap().into_parts();
    parts.extensions.insert(RequestInfo { id: "bench".into(), ip: [127, 0, 0, 1].into() });
    parts
}

async fn fill(pool: &PgPool, sessions: i32) {
    sqlx::query(
        "INSERT INTO user_sessions (id, user_id, kind, secret_sha256, method, created_at, last_used_at, expires_at, last_expires_at)
         SELECT gen_random_uuid(), u.id, 'web', sha256(rpad(n || '-', 43, 'x')::bytea), 'bench', now(), now(),
                now() + interval '60 days', now() + interval '180 days'
           FROM users u, generate_series((SELECT count(*) FROM user_sessions)::int + 1, $1) n",
    )
    .bind(sessions)
    .execute(pool)
    .await
    .unwrap();
    sqlx::query("VACUUM ANALYZE user_sessions").execute(pool).await.unwrap();
}

async fn known(auth: &Auth, request: &Parts) {
    let authentication = auth.authenticate(request).await;
    assert!(matches!(black_box(authentication), Authentication::Known(_)));
}
