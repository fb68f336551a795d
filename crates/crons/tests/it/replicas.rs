//! Several servers look after the same monitors.

use std::time::Duration;

use loom_core::id::INTERNAL_ORG;
use serde_json::json;

use crate::support::{checkins, minutes, monitor, ping, ping_path, read, world};

#[tokio::test]
async fn two_servers_that_look_at_once_find_each_run_once_and_tell_it_once() {
    let (app, ada) = world().await;
    let other = app.replica().await;
    for n in 0..30 {
        monitor(&ada, &format!("job-{n}"), json!({"max_runtime_minutes": 20})).await;
    }
    let path = ping_path(&read(&ada, "job-0").await);
    ping(&app, &format!("{path}/start")).await.expect(200);
    minutes(&app, 64).await;
    // Past the scheduler, which lets only one run at a time, and must not be first.
    let admin = app.admin("admin@example.com").await;
    for job in ["cron-missed", "cron-timeout"] {
        admin.post(&format!("/api/admin/jobs/{job}/disable"), &json!({})).await.expect(200);
    }
    app.clock.advance(Duration::from_secs(120));
    let (here, there) = (&app.running.features.crons, &other.features.crons);
    // Of our own jobs, those that ran while the servers started are waited for, too: also by what cannot be
    // known of a time at which the machine stood still, and by those that do not end.
    let own = format!(
        "SELECT 1 FROM cron_checkins WHERE status IN ('missed', 'unknown', 'timeout') AND org_id = '{INTERNAL_ORG}'"
    );
    let before = app.rows(&own).await.len();
    let (a, b) = tokio::join!(here.sweep(), there.sweep());
    let own = app.rows(&own).await.len() - before;
    assert_eq!(usize::try_from(a.unwrap() + b.unwrap()).unwrap(), 30 + own);
    minutes(&app, 1).await;
    for n in 0..30 {
        let found = checkins(&ada, &format!("job-{n}")).await;
        let missed = found.iter().filter(|one| one["status"] == "missed").count();
        assert_eq!(missed, 1, "job-{n}: {found:?}");
    }
    let of = |what: &str| format!("SELECT 1 FROM {what} org_id = '{}'", ada.org);
    let incidents = app.rows(&of("cron_incidents WHERE")).await.len();
    let mails = app.rows(&of("deliveries WHERE kind = 'cron.failing' AND")).await.len();
    assert_eq!((incidents, mails), (30, 30));
    other.shut_down().await;
}
