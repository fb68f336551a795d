//! What the page of a release joins, and what health says of the sums.

use std::time::Duration;

use loom_core::principal::OrgRole;
use serde_json::{Value, json};

use crate::harness::Rig;

#[tokio::test]
async fn a_release_shows_its_deploys_its_issues_and_the_threads_whose_commits_are_in_it() {
    let rig = Rig::start().await;
    let (ada, app) = (&rig.ada, &rig.app);
    rig.one("shop@1.1", "exited").await;
    let releases = "/api/crash/projects/shop/releases";
    ada.post(releases, &json!({"version": "shop@1.1"})).await.expect(201);
    let sha = "1f0c2d3e4b5a69788796a5b4c3d2e1f00f1e2d3c";
    let thread = format!("T-{}", loom_core::id::new_uuid(rig.now()));
    let document = json!({"title": "Round totals", "messages": [],
        "git": {"remote_url": "https://github.com/acme/shop", "commits": [sha]}});
    ada.put(&format!("/api/threads/{thread}"), &document).await.expect(201);
    let commits = json!({"commits": [{"sha": sha, "files": ["a.py"]}, {"sha": "bbbb"}]});
    ada.put(&format!("{releases}/shop%401.1/commits"), &commits).await.expect(200);
    for environment in ["staging", "production"] {
        let deploy = json!({"environment": environment});
        ada.post(&format!("{releases}/shop%401.1/deploys"), &deploy).await.expect(201);
        rig.app.clock.advance(Duration::from_secs(60));
    }
    let path = "/api/app-sessions/releases/shop%401.1?project=shop";
    let detail = rig.get(path).await;
    let environments: Vec<&Value> =
        detail["deploys"].as_array().unwrap().iter().map(|deploy| &deploy["environment"]).collect();
    assert_eq!(environments, ["production", "staging"], "the newest first");
    assert!(detail["commits"].as_array().unwrap().contains(&json!(sha)), "{detail}");
    let threads = json!([{"id": thread, "title": "Round totals", "commits": [sha]}]);
    assert_eq!(detail["threads"], threads);
    // The thread is private: another member sees the release and not the thread.
    let grace = app.user("grace@example.com").await;
    app.join(grace.id, ada.org, OrgRole::Member).await;
    let member = grace.with("x-loom-org", &ada.org.to_string());
    let seen = member.get(path).await.expect(200).json();
    assert_eq!((&seen["threads"], &seen["commits"]), (&json!([]), &detail["commits"]));
}

#[tokio::test]
async fn health_says_when_sessions_are_not_being_added_up() {
    let rig = Rig::start().await;
    let root = rig.app.admin("root@example.com").await;
    // Until it has this code, "" for none.
    let turns = async |code: &str| {
        loom_testkit::eventually(async || {
            let report = root.get("/api/admin/health?force=1").await.expect(200).json();
            let component = report["components"]["app_sessions"].clone();
            (component["code"].as_str().unwrap_or_default() == code).then_some(component)
        })
        .await
    };
    rig.one("1.0", "exited").await;
    assert_eq!(turns("").await["status"], "healthy");
    // Two runs were missed, and then some.
    rig.app.clock.advance(Duration::from_secs(2 * 3600 + 700));
    let late = turns("SESSIONS_LAG").await;
    assert_eq!(late["status"], "degraded");
    assert!(late["advice"].as_str().unwrap().contains("session-aggregation"), "{late}");
    assert_eq!(late["aggregation_lag_secs"], 7900.0);
    rig.run("session-aggregation").await;
    assert_eq!(turns("").await["aggregation_lag_secs"], 0.0);
    sqlx::query("ALTER TABLE app_session_marks RENAME TO gone")
        .execute(rig.app.database.pool())
        .await
        .unwrap();
    assert_eq!(turns("SESSIONS_UNREADABLE").await["status"], "degraded");
}
