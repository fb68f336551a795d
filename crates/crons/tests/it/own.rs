//! Loom's own jobs as monitors.

use loom_testkit::eventually;
use serde_json::json;

use crate::support::{minutes, world};

#[tokio::test]
async fn our_own_jobs_check_in_and_only_system_admins_see_it() {
    let (app, ada) = world().await;
    app.running.features.jobs.run_now("session-cleanup").await.unwrap();
    minutes(&app, 1).await;
    let chief = app.admin("chief@example.com").await;
    let chief = chief.caller.with("x-loom-org", "loom-internal");
    let monitor = eventually(async || {
        let answer = chief.get("/api/crons/monitors/session-cleanup").await;
        (answer.status == 200 && answer.json()["health"] == "healthy").then(|| answer.json())
    })
    .await;
    assert_eq!(monitor["made_by"], "internal");
    assert_eq!(monitor["schedule"], json!({"type": "interval", "value": 60, "unit": "minute"}));
    let stranger = ada.caller.with("x-loom-org", "loom-internal");
    stranger.get("/api/crons/monitors/session-cleanup").await.expect(404);
    ada.get("/api/crons/monitors/session-cleanup").await.expect(404);
}
