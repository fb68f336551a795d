//! What people do with issues.

use std::time::Duration;

use chrono::TimeDelta;
use loom_core::principal::OrgRole;
use serde_json::{Value, json};

use super::{New, World};

#[tokio::test]
async fn an_issue_is_resolved_opened_ignored_and_wakes_again() {
    let world = World::new().await;
    let made = world.issue(New::default()).await;
    let path = format!("{}/issues/{}", world.path, made.short_id);
    let resolved =
        world.ada.post(&format!("{path}/resolve"), &json!({ "in_release": "1.2.0" })).await;
    let resolved = resolved.expect(200).json();
    assert_eq!(resolved["status"], "resolved");
    assert_eq!(resolved["resolved_in_release"], "1.2.0");
    assert_eq!(resolved["resolved_by"], json!(world.ada.id));
    // The next one of none.
    let next = json!({ "in_release": "next" });
    world.ada.post(&format!("{path}/resolve"), &next).await.expect(422);
    for version in ["1.9.0", "1.10.0", "1.2.0"] {
        world.release(version).await;
    }
    let resolved = world.ada.post(&format!("{path}/resolve"), &next).await.expect(200).json();
    assert_eq!(resolved["resolved_after_release"], "1.10.0");
    assert_eq!(resolved["resolved_in_release"], json!(null));
    // Also without a body.
    let request = world.ada.request(reqwest::Method::POST, &format!("{path}/unresolve"));
    let open = world.ada.send(request).await.expect(200).json();
    assert_eq!((&open["status"], &open["resolved_at"]), (&json!("unresolved"), &json!(null)));
    let past = json!({ "until": world.now() - TimeDelta::hours(1) });
    world.ada.post(&format!("{path}/ignore"), &past).await.expect(422);
    let until = json!({ "until": world.now() + TimeDelta::hours(1) });
    let ignored = world.ada.post(&format!("{path}/ignore"), &until).await.expect(200).json();
    assert_eq!(ignored["status"], "ignored");
    world.upkeep().await;
    assert_eq!(world.get(&made).await["status"], "ignored");
    world.app.clock.advance(Duration::from_secs(3601));
    world.upkeep().await;
    assert_eq!(world.get(&made).await["status"], "unresolved");
    world.act(&made, "ignore", &json!({})).await;
    world.app.clock.advance(Duration::from_secs(365 * 86400));
    world.upkeep().await;
    assert_eq!(world.get(&made).await["status"], "ignored");
    world.ada.post(&format!("{path}/comments"), &json!({ "text": "Seen it" })).await.expect(204);
    let activity = world.ada.get(&format!("{path}/activity")).await.expect(200).json();
    let actions: Vec<_> =
        activity["activity"].as_array().unwrap().iter().map(|one| &one["action"]).collect();
    assert_eq!(
        actions,
        ["comment", "ignored", "unresolved", "ignored", "unresolved", "resolved", "resolved"]
    );
    assert_eq!(activity["activity"][0]["details"]["text"], "Seen it");
    assert_eq!(activity["activity"][0]["actor"]["id"], json!(world.ada.id));
    assert_eq!(activity["activity"][2]["actor"], json!(null));
}

#[tokio::test]
async fn an_issue_is_assigned_to_members_only() {
    let world = World::new().await;
    let made = world.issue(New::default()).await;
    let bob = world.app.user("bob@example.com").await;
    let path = format!("{}/issues/{}/assign", world.path, made.id);
    let to = |who: Value| json!({ "assigned_to": who });
    let refused = world.ada.post(&path, &to(json!("bob@example.com"))).await.expect(422).json();
    assert_eq!(refused["errors"][0]["path"], "assigned_to");
    // A name that is misspelt does not mean nobody.
    for body in [json!({}), json!({ "assignedto": "me" })] {
        world.ada.post(&path, &body).await.expect(422);
    }
    world.app.join(bob.id, world.ada.org, OrgRole::Member).await;
    for who in [json!("Bob@example.com"), json!(bob.id)] {
        let issue = world.ada.post(&path, &to(who)).await.expect(200).json();
        assert_eq!(issue["assigned_to"]["id"], json!(bob.id));
    }
    assert_eq!(world.find("assigned:bob@example.com").await.len(), 1);
    assert_eq!(world.find("assigned:me").await.len(), 0);
    assert_eq!(world.find("is:assigned !assigned:me").await.len(), 1);
    let issue = world.ada.post(&path, &to(json!("me"))).await.expect(200).json();
    assert_eq!(issue["assigned_to"]["email"], "ada@example.com");
    assert_eq!(world.find("assigned:me").await.len(), 1);
    let issue = world.ada.post(&path, &to(json!(null))).await.expect(200).json();
    assert_eq!(issue["assigned_to"], json!(null));
    assert_eq!(world.find("assigned:none").await.len(), 1);
    let path = format!("{}/issues/{}", world.path, made.id);
    let issue = world.ada.patch(&path, &json!({ "priority": "high" })).await.expect(200).json();
    assert_eq!(issue["priority"], "high");
    assert_eq!(world.find("priority:high").await.len(), 1);
    world.ada.patch(&path, &json!({ "priority": "urgent" })).await.expect(422);
    world.ada.patch(&path, &json!({})).await.expect(422);
}

#[tokio::test]
async fn many_issues_are_changed_by_id_and_by_query_with_a_result_for_each() {
    let world = World::new().await;
    let mut made = Vec::new();
    for n in 0..3 {
        made.push(world.issue(New { title: &format!("bulk {n}"), ..New::default() }).await);
    }
    let path = format!("{}/issues/bulk", world.path);
    let body = json!({
        "action": "resolve", "issues": [made[0].id, "WEB-2", "WEB-77", "nonsense"],
    });
    let answer = world.ada.post(&path, &body).await.expect(200).json();
    let results: Vec<_> =
        answer["results"].as_array().unwrap().iter().map(|one| &one["result"]).collect();
    assert_eq!(results, ["done", "done", "not_found", "not_found"]);
    assert_eq!(answer["done"], 2);
    assert_eq!(world.find("is:resolved").await.len(), 2);
    let body = json!({ "action": "assign", "assigned_to": "me", "query": "is:unresolved" });
    let answer = world.ada.post(&path, &body).await.expect(200).json();
    assert_eq!((&answer["done"], &answer["more"]), (&json!(1), &json!(false)));
    assert_eq!(world.find("assigned:me").await, ["bulk 2"]);
    let body = json!({ "action": "priority", "priority": "low", "query": "bulk" });
    assert_eq!(world.ada.post(&path, &body).await.expect(200).json()["done"], 3);
    for refused in [
        json!({ "action": "resolve" }),
        json!({ "action": "resolve", "issues": ["WEB-1"], "query": "" }),
        json!({ "action": "explode", "issues": ["WEB-1"] }),
        json!({ "action": "resolve", "query": "is:x" }),
    ] {
        world.ada.post(&path, &refused).await.expect(422);
    }
    // Only admins delete.
    let bob = world.app.user("bob@example.com").await;
    world.app.join(bob.id, world.ada.org, OrgRole::Member).await;
    let bob = bob.with("x-loom-org", &world.ada.org.to_string());
    let delete = json!({ "action": "delete", "query": "bulk" });
    bob.post(&path, &delete).await.expect(403);
    bob.delete(&format!("{}/issues/WEB-1", world.path)).await.expect(403);
    assert_eq!(world.ada.post(&path, &delete).await.expect(200).json()["done"], 3);
    assert_eq!(world.find("").await.len(), 0);
}

#[tokio::test]
async fn a_deleted_issue_is_gone_at_once_and_its_events_soon_after() {
    let world = World::new().await;
    let made = world.issue(New { events: &[1, 2, 3], ..New::default() }).await;
    let kept = world.issue(New { title: "kept", ..New::default() }).await;
    let path = format!("{}/issues/{}", world.path, made.id);
    world.ada.delete(&path).await.expect(204);
    world.ada.get(&path).await.expect(404);
    world.ada.get(&format!("{}/events/{}", world.path, made.events[0])).await.expect(404);
    // What its hash leads to: nothing, so that a new event makes a new issue.
    let hashes =
        world.app.rows("SELECT encode(hash, 'hex') AS hash FROM crash_grouping_hashes").await;
    assert_eq!(hashes, [json!({ "hash": kept.hash })]);
    world.upkeep().await;
    for table in ["crash_events", "crash_raw"] {
        let left = world.app.rows(&format!("SELECT event_id FROM {table}")).await;
        assert_eq!(left, [json!({ "event_id": kept.events[0] })], "{table}");
    }
    let acts =
        world.app.rows("SELECT target FROM audit_log WHERE action = 'crash_issue.delete'").await;
    assert_eq!(acts, [json!({ "target": made.id })]);
    world.app.clock.advance(Duration::from_secs(600));
    world.upkeep().await;
    assert!(world.app.rows("SELECT id FROM crash_event_moves").await.is_empty());
}
