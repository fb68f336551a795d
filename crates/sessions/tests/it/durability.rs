//! What was acknowledged is counted, once, whatever happens to the way to the database.

use std::sync::atomic::{AtomicUsize, Ordering};

use loom_testkit::{Setup, TestDatabase};
use serde_json::json;

use crate::harness::Rig;

/// Tells of a session until it is acknowledged, as an SDK with a queue on disk would.
async fn until_taken(rig: &Rig, n: usize, refused: &AtomicUsize) {
    let body = json!({"project_id": "shop", "session_id": format!("s{n}"), "release": "1.0",
        "status": if n.is_multiple_of(10) { "crashed" } else { "exited" }});
    loom_testkit::eventually(async || {
        let answer = rig.ada.post("/api/app-sessions/start", &body).await;
        if answer.status == 200 {
            return Some(());
        }
        assert!([429, 500, 503].contains(&answer.status.as_u16()), "{answer:?}");
        refused.fetch_add(1, Ordering::Relaxed);
        None
    })
    .await;
}

#[tokio::test]
async fn sessions_are_counted_once_though_the_database_goes_away_in_between() {
    let database = TestDatabase::new().await;
    let (proxy, url) = database.proxied().await;
    let app = Setup::default().set("DATABASE_URL", url).start_on(database).await;
    let rig = Rig::on(app).await;
    let refused = AtomicUsize::new(0);
    let all = 400;
    let told = futures::future::join_all((0..all).map(|n| until_taken(&rig, n, &refused)));
    let cuts = async {
        for _ in 0..5 {
            // Some are written between two cuts.
            let before = written(&rig).await;
            loom_testkit::eventually(async || {
                let now = written(&rig).await;
                (now > before || now == all as i64).then_some(())
            })
            .await;
            proxy.cut();
            proxy.resume().unwrap();
        }
    };
    tokio::join!(told, cuts);
    for _ in 0..2 {
        assert_eq!(rig.counts("1.0").await, [360, 0, 0, 0, 40]);
        rig.app.running.features.jobs.run_now("session-aggregation").await.unwrap();
    }
    assert_eq!(written(&rig).await, all as i64);
}

/// Not through the proxy.
async fn written(rig: &Rig) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM app_sessions")
        .fetch_one(rig.app.database.pool())
        .await
        .unwrap()
}
