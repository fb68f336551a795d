//! Sessions told over the native routes.

use loom_core::principal::Scope;
use loom_testkit::app::{Answer, Caller};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Rig, rfc};

async fn dsn(rig: &Rig, verb: &str, body: &Value, origin: Option<&str>) -> Answer {
    let anonymous = rig.app.anonymous();
    let mut request = anonymous
        .request(Method::POST, &format!("/api/app-sessions/{verb}"))
        .header("x-crash-api-key", &rig.key)
        .json(body);
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    anonymous.send(request).await
}

#[tokio::test]
async fn a_session_starts_goes_on_and_ends_under_both_names() {
    let rig = Rig::start().await;
    for prefix in ["/api/app-sessions", "/api/sessions"] {
        let release = prefix;
        let start = json!({"project_id": "shop", "release": release, "environment": "production",
            "distinct_id": "ada"});
        let taken = rig.ada.post(&format!("{prefix}/start"), &start).await.expect(200).json();
        assert_eq!(taken["sampled"], true);
        let id = &taken["session_id"];
        assert_eq!(rig.counts(release).await, [1, 0, 0, 0, 0]);
        let update =
            json!({"project_id": "shop", "session_id": id, "errors": 2, "status": "active"});
        rig.ada.post(&format!("{prefix}/update"), &update).await.expect(200);
        assert_eq!(rig.counts(release).await, [0, 1, 0, 0, 0]);
        let end = json!({"project_id": "shop", "session_id": id, "status": "exited", "duration_ms": 1500});
        for _ in 0..3 {
            rig.ada.post(&format!("{prefix}/end"), &end).await.expect(200);
        }
        assert_eq!(rig.counts(release).await, [0, 1, 0, 0, 0]);
        let path = format!("/api/app-sessions?project=shop&release={release}&class=errored");
        let list = rig.get(&path).await;
        assert_eq!(list["sessions"].as_array().unwrap().len(), 1);
        let session = &list["sessions"][0];
        assert_eq!((&session["session_id"], &session["ended"]), (id, &json!(true)));
        assert_eq!((&session["duration_ms"], &session["errors"]), (&json!(1500), &json!(2)));
        assert_eq!(session["user"].as_str().unwrap().len(), 16);
    }
    // The sign-in sessions are still where they were.
    rig.get("/api/sessions").await;
}

#[tokio::test]
async fn an_application_tells_with_the_key_of_its_dsn_from_where_the_project_allows() {
    let rig = Rig::start().await;
    let start = json!({"session_id": "s1", "release": "1.0", "started_at": rfc(rig.now())});
    dsn(&rig, "start", &start, None).await.expect(200);
    let allowed = dsn(&rig, "end", &json!({"session_id": "s1"}), Some("https://a.example")).await;
    let allowed = allowed.expect(200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://a.example"));
    let number = rig.project.number;
    dsn(&rig, "update", &json!({"session_id": "s1", "project_id": number}), None).await.expect(200);
    let other = json!({"session_id": "s1", "project_id": "other"});
    dsn(&rig, "update", &other, None).await.expect(422);

    let anonymous = rig.app.anonymous();
    let preflight = anonymous
        .request(Method::OPTIONS, "/api/app-sessions/start")
        .header("origin", "https://a.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "x-crash-api-key");
    let preflight = anonymous.send(preflight).await.expect(204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("https://a.example"));
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("x-crash-api-key"));

    let origins = json!({"allowed_origins": ["https://shop.example"]});
    rig.ada.patch("/api/crash/projects/shop", &origins).await.expect(200);
    let refused = dsn(&rig, "start", &start, Some("https://a.example")).await.expect(403);
    assert_eq!(refused.header("access-control-allow-origin"), None);
    dsn(&rig, "start", &start, Some("https://shop.example")).await.expect(200);
    let wrong = anonymous
        .request(Method::POST, "/api/app-sessions/start")
        .header("x-crash-api-key", "0".repeat(32))
        .json(&start);
    assert_eq!(anonymous.send(wrong).await.expect(401).code(), "unauthenticated");
    assert_eq!(rig.counts("1.0").await, [1, 0, 0, 0, 0]);
}

#[tokio::test]
async fn what_is_told_wrongly_is_refused_with_the_field() {
    let rig = Rig::start().await;
    let good = json!({"project_id": "shop", "session_id": "s", "release": "1.0"});
    let wrong = [
        (json!({"release": ""}), "release"),
        (json!({"release": "x".repeat(10_000)}), "release"),
        (json!({"release": null}), "release"),
        (json!({"session_id": "x".repeat(10_000)}), "session_id"),
        (json!({"errors": -1}), "errors"),
        (json!({"duration_ms": -1}), "duration_ms"),
        (json!({"started_at": "1970-01-01T00:00:00Z"}), "started_at"),
        (json!({"started_at": "2100-01-01T00:00:00Z"}), "started_at"),
        (json!({"status": "evaporated"}), "status"),
        (json!({"project_id": null}), "project_id"),
    ];
    for (members, field) in wrong {
        let mut body = good.clone();
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let answer = rig.ada.post("/api/app-sessions/start", &body).await.expect(422).json();
        assert_eq!(answer["errors"][0]["path"], field, "{answer}");
    }
    let unknown = json!({"project_id": "shop", "session_id": "unknown"});
    rig.ada.post("/api/app-sessions/end", &unknown).await.expect(404);
    let elsewhere = json!({"project_id": "none", "session_id": "s", "release": "1.0"});
    rig.ada.post("/api/app-sessions/start", &elsewhere).await.expect(404);
    let reader: Caller = rig.app.with_scopes(&rig.ada, &[Scope::SessionsRead]).await;
    reader.post("/api/app-sessions/start", &good).await.expect(403);
    reader.get("/api/app-sessions?project=shop").await.expect(200);
    let writer = rig.app.with_scopes(&rig.ada, &[Scope::SessionsWrite]).await;
    writer.post("/api/app-sessions/start", &good).await.expect(200);
    writer.get("/api/app-sessions?project=shop").await.expect(403);
    rig.ada.get("/api/app-sessions").await.expect(400);
    rig.ada.get("/api/app-sessions?project=shop&cursor=x").await.expect(400);
}
