//! Agents that work, and agents that are lost.

use std::time::Duration;

use loom_core::id::{ThreadId, new_uuid};
use loom_testkit::{
    TestApp,
    app::{Setup, User},
};
use serde_json::{Value, json};

const REAPER: &str = "thread-lease-reaper";

async fn world() -> (TestApp, User) {
    let app = Setup::default().manual_clock().start().await;
    let ann = app.user("ann@example.com").await;
    (app, ann)
}

async fn new_thread(app: &TestApp, ann: &User, state: &str) -> String {
    let path = format!("/api/threads/{}", ThreadId(new_uuid(app.clock.now())));
    let document = json!({ "messages": [], "agent_state": {
        "kind": state, "retries": 2, "pending_tool_calls": [{ "id": "c1" }]
    } });
    ann.put(&path, &document).await.expect(201);
    path
}

async fn reap(app: &TestApp) -> u64 {
    app.running.features.jobs.run_now(REAPER).await.unwrap().items_handled
}

async fn state(ann: &User, path: &str) -> Value {
    ann.get(path).await.expect(200).json()["agent_state"].clone()
}

#[tokio::test]
async fn a_thread_is_believed_while_its_agent_is_heard_of_and_lost_when_it_is_not() {
    let (app, ann) = world().await;
    let path = new_thread(&app, &ann, "executing_tools").await;
    let lease = json!({ "ttl_secs": 60, "holder": "laptop:1" });
    for _ in 0..3 {
        let held = ann.put(&format!("{path}/lease"), &lease).await.expect(200).json();
        assert_eq!((&held["holder"], &held["version"]), (&json!("laptop:1"), &json!(1)));
        assert_eq!(held["state"], "executing_tools");
        app.clock.advance(Duration::from_secs(50));
        assert_eq!(reap(&app).await, 0);
    }
    app.clock.advance(Duration::from_secs(11));
    assert_eq!(reap(&app).await, 1);
    let thread = ann.get(&path).await.expect(200).json();
    let lost = json!({
        "kind": "error", "retries": 2, "last_error": "lost", "pending_tool_calls": [{ "id": "c1" }]
    });
    assert_eq!((&thread["agent_state"], &thread["version"]), (&lost, &json!(2)));
    assert_eq!(thread["last_activity_at"], thread["updated_at"]);
    assert_eq!(reap(&app).await, 0);
    // The agent was only slow: it goes on, and is told.
    let held = ann.put(&format!("{path}/lease"), &lease).await.expect(200).json();
    assert_eq!((&held["state"], &held["version"]), (&json!("error"), &json!(2)));
}

#[tokio::test]
async fn of_two_agents_one_works_on_a_thread() {
    let (app, ann) = world().await;
    let path = new_thread(&app, &ann, "waiting_for_user_input").await;
    let lease = format!("{path}/lease");
    let (one, two) =
        (json!({ "ttl_secs": 30, "holder": "one" }), json!({ "ttl_secs": 30, "holder": "two" }));
    ann.put(&lease, &one).await.expect(200);
    let refused = ann.put(&lease, &two).await.expect(409);
    assert_eq!(refused.code(), "lease_held");
    assert_eq!(refused.json()["holder"], "one");
    assert!(refused.json()["expires_at"].is_string());
    assert_eq!(ann.delete(&format!("{lease}?holder=two")).await.expect(409).code(), "lease_held");
    ann.delete(&format!("{lease}?holder=one")).await.expect(204);
    ann.put(&lease, &two).await.expect(200);
    app.clock.advance(Duration::from_secs(31));
    ann.put(&lease, &one).await.expect(200);
    // Whoever may change the thread may take the lease away.
    ann.delete(&lease).await.expect(204);
    ann.delete(&lease).await.expect(204);
    ann.put(&lease, &two).await.expect(200);
    // A lease that runs out on a thread that rests is nobody's loss.
    app.clock.advance(Duration::from_secs(31));
    assert_eq!(reap(&app).await, 0);
    assert_eq!(state(&ann, &path).await["kind"], "waiting_for_user_input");
    let rows = app.rows("SELECT lease_holder, lease_until FROM threads").await;
    assert_eq!(rows, [json!({ "lease_holder": null, "lease_until": null })]);
}

#[tokio::test]
async fn an_agent_without_a_lease_is_lost_ten_minutes_after_its_last_write() {
    let (app, ann) = world().await;
    let path = new_thread(&app, &ann, "calling_llm").await;
    app.clock.advance(Duration::from_secs(9 * 60));
    let append = json!({ "messages": [{ "role": "assistant", "content": "still here" }] });
    ann.post(&format!("{path}/messages"), &append).await.expect(200);
    app.clock.advance(Duration::from_secs(9 * 60));
    assert_eq!(reap(&app).await, 0);
    app.clock.advance(Duration::from_secs(61));
    assert_eq!(reap(&app).await, 1);
    assert_eq!(state(&ann, &path).await["last_error"], "lost");
    // Also one that was written by a server that knew nothing of this.
    let path = new_thread(&app, &ann, "processing_llm_response").await;
    sqlx::query("UPDATE threads SET lease_until = NULL")
        .execute(app.database.pool())
        .await
        .unwrap();
    assert_eq!(reap(&app).await, 0);
    app.clock.advance(Duration::from_secs(601));
    assert_eq!(reap(&app).await, 1);
    assert_eq!(state(&ann, &path).await["kind"], "error");
}

#[tokio::test]
async fn the_owner_sets_a_state_by_hand_whoever_holds_the_lease() {
    let (app, ann) = world().await;
    let path = new_thread(&app, &ann, "executing_tools").await;
    let lease = json!({ "ttl_secs": 600, "holder": "one" });
    ann.put(&format!("{path}/lease"), &lease).await.expect(200);
    let patch = json!({ "agent_state": { "kind": "waiting_for_user_input" } });
    let forced = ann.with("if-match", "*").patch(&path, &patch).await.expect(200);
    assert_eq!(forced.json()["agent_state"]["kind"], "waiting_for_user_input");
    app.clock.advance(Duration::from_secs(601));
    assert_eq!(reap(&app).await, 0);
}

#[tokio::test]
async fn two_servers_that_look_at_once_give_each_thread_up_once() {
    let (app, ann) = world().await;
    let mut paths = Vec::new();
    for _ in 0..20 {
        paths.push(new_thread(&app, &ann, "executing_tools").await);
    }
    app.clock.advance(Duration::from_secs(601));
    let other = app.replica().await;
    let (one, two) = tokio::join!(
        app.running.features.jobs.run_now(REAPER),
        other.features.jobs.run_now(REAPER)
    );
    let handled = [one, two].into_iter().flatten().map(|run| run.items_handled).sum::<u64>();
    assert_eq!(handled, 20);
    for path in paths {
        assert_eq!(ann.get(&path).await.expect(200).json()["version"], 2);
    }
    let events = app.rows("SELECT 1 FROM thread_events WHERE kind = 'state'").await;
    assert_eq!(events.len(), 40);
    other.shut_down().await;
}

#[tokio::test]
async fn a_lease_has_bounds_and_is_for_those_who_may_change_the_thread() {
    let (app, ann) = world().await;
    let path = new_thread(&app, &ann, "waiting_for_user_input").await;
    let lease = format!("{path}/lease");
    for (ttl, holder) in [(4, "a"), (601, "a"), (60, ""), (60, "a\nb"), (60, &"x".repeat(201))] {
        let request = json!({ "ttl_secs": ttl, "holder": holder });
        ann.put(&lease, &request).await.expect(422);
    }
    let bob = app.user("bob@example.com").await;
    let request = json!({ "ttl_secs": 60, "holder": "bob" });
    bob.put(&lease, &request).await.expect(404);
    bob.delete(&lease).await.expect(404);
    // A thread of another organisation is read, never written.
    ann.patch(&path, &json!({ "visibility": "public" })).await.expect(200);
    bob.put(&lease, &request).await.expect(404);
    app.join(bob.id, ann.org, loom_core::principal::OrgRole::Member).await;
    let bob = app.with_scopes(&bob, loom_core::principal::Scope::ALL).await;
    bob.with("x-loom-org", &ann.org.to_string()).put(&lease, &request).await.expect(403);
}
