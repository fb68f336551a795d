//! The admin routes of background jobs.

use loom_core::principal::Scope;
use loom_testkit::{TestApp, User, eventually};
use serde_json::{Value, json};

use crate::log_events::Events;

const JOB: &str = "/api/admin/jobs/job-history-cleanup";
const WRITES: [&str; 4] = ["run", "cancel", "enable", "disable"];

async fn history(admin: &User) -> Vec<Value> {
    let history = admin.get(&format!("{JOB}/history")).await.expect(200).json();
    history["runs"].as_array().unwrap().clone()
}

/// A run of another server, which goes on.
async fn run_elsewhere(app: &TestApp, job: &str) -> String {
    let id = loom_core::id::new_uuid(app.clock.now());
    sqlx::query(
        "INSERT INTO job_runs (id, job_id, slot, trigger, replica, started_at, lease_until)
         VALUES ($1, $2, now(), 'manual', 'elsewhere:1', now(), now() + interval '1 hour')",
    )
    .bind(id)
    .bind(job)
    .execute(app.database.pool())
    .await
    .unwrap();
    id.to_string()
}

#[tokio::test]
async fn admins_see_all_jobs() {
    let app = TestApp::start().await;
    let admin = app.admin("ada@example.com").await;
    let list = admin.get("/api/admin/jobs").await.expect(200).json();
    let jobs = list["jobs"].as_array().unwrap();
    let ids: Vec<_> = jobs.iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&"job-history-cleanup") && ids.contains(&"llm-request-cleanup"));
    assert!(ids.is_sorted());
    let job = jobs.iter().find(|job| job["id"] == "job-history-cleanup").unwrap();
    assert_eq!(job["interval_secs"], 24 * 3600);
    assert_eq!((&job["enabled"], &job["running"]), (&json!(true), &json!(false)));
    assert_eq!((&job["last_run"], &job["consecutive_failures"]), (&json!(null), &json!(0)));
    assert!(job["next_run_at"].as_str().unwrap().ends_with("T00:00:00.000Z"), "{job}");
}

#[tokio::test]
async fn a_run_is_started_and_found_in_the_history_page_by_page() {
    let app = TestApp::start().await;
    let admin = app.admin("ada@example.com").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let run = admin.post(&format!("{JOB}/run"), &json!({})).await.expect(202).json();
        eventually(async || {
            let newest = history(&admin).await.swap_remove(0);
            assert_eq!(newest["id"], run["run_id"]);
            (newest["status"] == "succeeded").then_some(())
        })
        .await;
        ids.insert(0, run["run_id"].clone());
    }
    let newest = history(&admin).await.swap_remove(0);
    assert_eq!((&newest["trigger"], &newest["items_handled"]), (&json!("manual"), &json!(0)));
    assert_eq!(newest["error"], json!(null));
    assert!(newest["replica"].is_string() && newest["duration_ms"].is_u64(), "{newest}");

    let page = admin.get(&format!("{JOB}/history?limit=2")).await.expect(200).json();
    assert_eq!(page["runs"].as_array().unwrap().len(), 2);
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = admin.get(&format!("{JOB}/history?limit=2&cursor={cursor}")).await.expect(200);
    assert_eq!(rest.json()["runs"][0]["id"], ids[2]);
    assert_eq!(rest.json()["next_cursor"], json!(null));
    let other = format!("/api/admin/jobs/llm-request-cleanup/history?cursor={cursor}");
    assert_eq!(admin.get(&other).await.expect(400).code(), "invalid_cursor");
    let list = admin.get("/api/admin/jobs").await.expect(200).json();
    let job = list["jobs"].as_array().unwrap().iter().find(|job| job["last_run"]["id"] == ids[0]);
    assert_eq!(job.unwrap()["id"], "job-history-cleanup");
}

#[tokio::test]
async fn a_run_on_another_server_is_seen_not_doubled_and_told_to_stop() {
    let app = TestApp::start().await;
    let admin = app.admin("ada@example.com").await;
    let cancel = || async { admin.post(&format!("{JOB}/cancel"), &json!({})).await };
    assert_eq!(cancel().await.expect(409).code(), "job_not_running");
    let run = run_elsewhere(&app, "job-history-cleanup").await;
    let refused = admin.post(&format!("{JOB}/run"), &json!({})).await.expect(409);
    assert_eq!(refused.code(), "job_running");
    let newest = history(&admin).await.swap_remove(0);
    assert_eq!((&newest["id"], &newest["status"]), (&json!(run), &json!("running")));
    assert_eq!(cancel().await.expect(202).json(), json!({"run_id": run}));
    let asked = app.rows("SELECT id FROM job_runs WHERE cancel_requested_at IS NOT NULL").await;
    assert_eq!(asked, [json!({"id": run})]);
    // Once more is no harm.
    cancel().await.expect(202);
}

#[tokio::test]
async fn a_job_is_switched_off_and_on_again() {
    let app = TestApp::start().await;
    let admin = app.admin("ada@example.com").await;
    for _ in 0..2 {
        let off = admin.post(&format!("{JOB}/disable"), &json!({})).await.expect(200).json();
        assert_eq!((&off["enabled"], &off["next_run_at"]), (&json!(false), &json!(null)));
    }
    let refused = admin.post(&format!("{JOB}/run"), &json!({})).await.expect(409);
    assert_eq!(refused.code(), "job_disabled");
    for _ in 0..2 {
        let on = admin.post(&format!("{JOB}/enable"), &json!({})).await.expect(200).json();
        assert_eq!(on["enabled"], true);
        assert!(on["next_run_at"].is_string());
    }
    let acts = app
        .rows("SELECT action, target, outcome FROM audit_log WHERE action LIKE 'job.%' ORDER BY at, id")
        .await;
    let act =
        |action| json!({"action": action, "target": "job-history-cleanup", "outcome": "success"});
    assert_eq!(acts, [act("job.disable"), act("job.enable")], "what changed nothing is not told");
}

#[tokio::test]
async fn what_is_done_is_in_the_audit_log() {
    let app = TestApp::start().await;
    let admin = app.admin("ada@example.com").await;
    let run = admin.post(&format!("{JOB}/run"), &json!({})).await.expect(202).json();
    let acts = app
        .rows("SELECT actor_id, action, target, details FROM audit_log WHERE action LIKE 'job.%'")
        .await;
    let act = json!({
        "actor_id": admin.id, "action": "job.run", "target": "job-history-cleanup", "details": run,
    });
    assert_eq!(acts, [act]);
}

#[tokio::test]
async fn only_system_admins_get_at_jobs_and_auditors_may_look() {
    let app = TestApp::start().await;
    let user = app.user("bob@example.com").await;
    let auditor = app.user("eve@example.com").await;
    sqlx::query("UPDATE users SET is_auditor = true WHERE id = $1")
        .bind(auditor.id.0)
        .execute(app.database.pool())
        .await
        .unwrap();
    let admin = app.admin("ada@example.com").await;
    let reader = app.with_scopes(&admin, &[Scope::AdminRead]).await;
    let writer = app.with_scopes(&admin, &[Scope::AdminWrite]).await;
    let reads = [
        "".to_owned(),
        "/job-history-cleanup/history".into(),
        "/job-history-cleanup/history/days".into(),
    ];
    for path in reads.map(|path| format!("/api/admin/jobs{path}")) {
        for refused in [&*user, &writer] {
            assert_eq!(refused.get(&path).await.expect(403).code(), "forbidden");
        }
        app.anonymous().get(&path).await.expect(401);
        auditor.get(&path).await.expect(200);
        reader.get(&path).await.expect(200);
    }
    for write in WRITES {
        let path = format!("{JOB}/{write}");
        for refused in [&*user, &*auditor, &reader] {
            assert_eq!(refused.post(&path, &json!({})).await.expect(403).code(), "forbidden");
        }
        app.anonymous().post(&path, &json!({})).await.expect(401);
    }
    assert_eq!(app.rows("SELECT id FROM job_runs").await, [] as [Value; 0]);
    assert_eq!(app.rows("SELECT id FROM audit_log WHERE action LIKE 'job.%'").await.len(), 0);
}

#[tokio::test]
async fn a_job_that_is_not_there_is_not_found() {
    let app = TestApp::start().await;
    let admin = app.admin("ada@example.com").await;
    for id in ["nonsense", "%00", "Job-History-Cleanup"] {
        for read in ["history", "history/days"] {
            let path = format!("/api/admin/jobs/{id}/{read}");
            assert_eq!(admin.get(&path).await.expect(404).code(), "not_found");
        }
        for write in WRITES {
            let path = format!("/api/admin/jobs/{id}/{write}");
            assert_eq!(admin.post(&path, &json!({})).await.expect(404).code(), "not_found");
        }
    }
}

#[tokio::test]
async fn what_old_runs_came_to_is_read_by_day_in_pages() {
    let app = TestApp::start().await;
    let admin = app.admin("ada@example.com").await;
    sqlx::query(
        "INSERT INTO job_run_days
         SELECT 'job-history-cleanup', day::date, 3, 1, 1, 1, 0, 1, 70, 600, 500
           FROM generate_series('2026-01-01'::date, '2026-01-03', '1 day') day",
    )
    .execute(app.database.pool())
    .await
    .unwrap();
    let page = admin.get(&format!("{JOB}/history/days?limit=2")).await.expect(200).json();
    let expected = |day| {
        json!({
            "day": day, "runs": 3, "succeeded": 1, "failed": 1, "cancelled": 1, "abandoned": 0, "retried": 1,
            "items_handled": 70, "total_duration_ms": 600, "max_duration_ms": 500,
        })
    };
    assert_eq!(page["days"], json!([expected("2026-01-03"), expected("2026-01-02")]));
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = admin.get(&format!("{JOB}/history/days?limit=2&cursor={cursor}")).await.expect(200);
    assert_eq!(rest.json(), json!({"days": [expected("2026-01-01")], "next_cursor": null}));
    // Of the other list, of another job, and of none.
    for path in [
        format!("{JOB}/history?cursor={cursor}"),
        format!("/api/admin/jobs/llm-request-cleanup/history/days?cursor={cursor}"),
        format!("{JOB}/history/days?cursor=nonsense"),
        format!("{JOB}/history?cursor=nonsense"),
    ] {
        assert_eq!(admin.get(&path).await.expect(400).code(), "invalid_cursor", "{path}");
    }
    for limit in ["0", "201"] {
        admin.get(&format!("{JOB}/history/days?limit={limit}")).await.expect(422);
    }
}

#[tokio::test]
async fn who_watches_sees_runs_begin_and_end_whichever_server_they_are_on() {
    let app = TestApp::start().await;
    let other = app.replica().await;
    let admin = app.admin("ada@example.com").await;
    let mut all = Events::at(&admin, "/api/admin/jobs/stream", None).await;
    let mut another = Events::at(&admin, "/api/admin/jobs/stream?job=checkin-cleanup", None).await;
    assert_eq!(all.next().await.unwrap().kind, "ready");
    assert_eq!(another.next().await.unwrap().kind, "ready");
    let run = admin.at(&other).post(&format!("{JOB}/run"), &json!({})).await.expect(202).json();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let event = all.next().await.unwrap();
        if event.data["run_id"] == run["run_id"] {
            assert_eq!(
                (event.kind.as_str(), &event.data["job"]),
                ("run", &json!("job-history-cleanup"))
            );
            seen.push(event.data["status"].clone());
        }
    }
    assert_eq!(seen, ["running", "succeeded"]);
    admin.post("/api/admin/jobs/checkin-cleanup/run", &json!({})).await.expect(202);
    assert_eq!(another.next().await.unwrap().data["job"], "checkin-cleanup", "and of no other job");
    app.stop().await;
    other.shut_down().await;
}
