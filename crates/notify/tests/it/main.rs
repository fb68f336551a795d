//! Mail and webhooks through the running server, on real PostgreSQL, a real SMTP server and a real
//! receiver. Time is moved by hand; nothing sleeps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic"
)]

mod admin;
mod alerts;
mod dispatch;
mod health;
mod mail;
mod settings;
mod webhooks;

use std::time::Duration;

use loom_notify::{Mail, Notify};
use loom_testkit::{Setup, TestApp, eventually, smtp::SmtpServer};
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);
const SECRET: &str = "hunter2-in-the-link";

fn mail(to: &str) -> Mail {
    Mail {
        kind: "magic_link",
        to: to.to_owned(),
        subject: "Sign in".to_owned(),
        text: format!("Here: https://loom.example.com/in/{SECRET}\n"),
        html: None,
        expires_at: None,
    }
}

fn setup(smtp: &SmtpServer) -> Setup {
    let start = Setup::default()
        .manual_clock()
        .set("LOOM_SERVER_OUTBOUND_ALLOW", "127.0.0.0/8")
        .set("LOOM_SERVER_BASE_URL", "https://loom.example");
    smtp.settings().into_iter().fold(start, |setup, (name, value)| setup.set(name, value))
}

async fn queue(notify: &Notify, pool: &sqlx::PgPool, mail: &Mail) {
    let mut db = loom_db::begin(pool).await.unwrap();
    notify.mail(&mut db, mail).await.unwrap();
    db.commit().await.unwrap();
    notify.wake();
}

async fn send(app: &TestApp, mail: &Mail) {
    queue(&app.running.features.notify, app.database.pool(), mail).await;
}

/// The one delivery there is, as soon as it stands like this.
async fn in_state(app: &TestApp, state: &str) -> Value {
    eventually(async || {
        let rows = app.rows("SELECT * FROM deliveries").await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.into_iter().find(|row| row["state"] == state)
    })
    .await
}

/// As soon as it waits for its next attempt after this one.
async fn after_attempt(app: &TestApp, attempt: i32) -> Value {
    eventually(async || {
        let rows = app.rows("SELECT * FROM deliveries").await;
        rows.into_iter().find(|row| row["state"] == "pending" && row["attempt"] == attempt)
    })
    .await
}

async fn later(app: &TestApp, by: Duration) {
    app.clock.advance(by);
    app.running.features.notify.wake();
}
