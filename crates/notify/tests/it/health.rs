//! The health of sending.

use std::time::Duration;

use loom_core::health::{Component, Status};
use loom_testkit::{
    Setup, TestApp, eventually,
    smtp::{Options, SmtpServer},
};

use crate::{mail, send, setup};

async fn component(app: &TestApp) -> Component {
    (app.running.features.notify.health().probe)().await
}

async fn becomes(app: &TestApp, status: Status) -> Component {
    eventually(async || Some(component(app).await).filter(|now| now.status == status)).await
}

#[tokio::test]
async fn health_turns_with_the_mail_server_but_asks_it_only_now_and_then() {
    let smtp = SmtpServer::start();
    let (setup, addr) = (setup(&smtp), smtp.addr());
    let app = setup.start().await;
    becomes(&app, Status::Healthy).await;
    drop(smtp);
    assert_eq!(component(&app).await.status, Status::Healthy, "it is not asked again yet");
    app.clock.advance(Duration::from_secs(31));
    let down = becomes(&app, Status::Degraded).await;
    assert!(down.error.unwrap().contains("mail server"));
    let _smtp = SmtpServer::start_on(addr, Options::default());
    app.clock.advance(Duration::from_secs(31));
    becomes(&app, Status::Healthy).await;
}

#[tokio::test]
async fn without_a_mail_server_the_part_is_off_and_tells_what_waits() {
    let data = tempfile::tempdir().unwrap();
    // The outbox cannot be made where a file is.
    std::fs::write(data.path().join("outbox"), "").unwrap();
    let setup = Setup::default().set("LOOM_SERVER_DATA_DIR", data.path().display().to_string());
    let app = setup.manual_clock().start().await;
    let component_now = component(&app).await;
    assert_eq!(component_now.status, Status::Disabled);
    assert_eq!(component_now.facts["mails_pending"], 0);
    assert_eq!(component_now.facts["oldest_pending_secs"], serde_json::Value::Null);
    send(&app, &mail("ada@example.com")).await;
    crate::after_attempt(&app, 1).await;
    app.clock.advance(Duration::from_secs(20));
    let component_now = component(&app).await;
    assert_eq!(component_now.facts["mails_pending"], 1);
    assert_eq!(component_now.facts["oldest_pending_secs"], 20);
}

#[tokio::test]
async fn in_production_to_have_no_mail_server_is_told() {
    let app = Setup::default().set("LOOM_SERVER_ENV", "production").start().await;
    assert_eq!(component(&app).await.status, Status::Degraded);
    let health = app.anonymous().get("/health").await.expect(200).json();
    assert_eq!(health["components"]["smtp"]["status"], "degraded");
}

#[tokio::test]
async fn what_nobody_sends_is_noticed() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    becomes(&app, Status::Healthy).await;
    app.running.features.notify.close(Duration::from_secs(10)).await;
    send(&app, &mail("ada@example.com")).await;
    app.clock.advance(Duration::from_secs(360));
    let lying = eventually(async || {
        let component = component(&app).await;
        component.error.clone().filter(|error| error.contains("left lying"))
    })
    .await;
    assert!(!lying.is_empty());
}
