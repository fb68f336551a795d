//! Nobody gets anywhere without a good credential, whichever route is asked.

use std::time::Duration;

use loom_core::principal::Scopes;
use loom_testkit::{Answer, Caller, Setup, TestApp};
use serde_json::json;

use crate::document::{Operation, operations};

/// What needs no credential: for probes and scrapers, the guide, which is the same everywhere,
/// and whoever found a token.
const PUBLIC: [&str; 20] = [
    "POST /api/crons/preview",
    "GET /api/crons/badge/{file}",
    "GET /api/threads/shared/{token}",
    "GET /auth/providers",
    "GET /auth/login/{provider}",
    "GET /auth/{provider}/callback",
    "GET /auth/callback/{provider}",
    "POST /auth/magic-link",
    "GET /auth/magic-link/verify",
    "POST /auth/magic-link/verify",
    "POST /auth/device/start",
    "POST /auth/device/poll",
    "POST /auth/tokens/report",
    "GET /health",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
    "GET /docs",
    "GET /docs/search",
    "GET /docs/{path}",
];

async fn ask(caller: &Caller, operation: &Operation) -> Answer {
    let mut request = caller.request(operation.method.clone(), &operation.some_path());
    if operation.has_body() {
        request = request.json(&json!({}));
    }
    caller.send(request).await
}

/// A 401 in the shape of the wire that was asked.
#[track_caller]
fn assert_refused(answer: Answer, path: &str, what: &str) {
    let answer = answer.expect(401);
    if path.contains("/v1/messages") {
        let error = answer.json();
        assert_eq!(error["type"], "error", "{what} {path}: {error}");
        assert_eq!(error["error"]["type"], "authentication_error", "{what} {path}: {error}");
    } else if path.contains("/v1/") {
        let error = answer.json();
        assert!(error["error"]["message"].is_string(), "{what} {path}: {error}");
        assert!(error["error"]["type"].is_string(), "{what} {path}: {error}");
    } else {
        assert_eq!(answer.code(), "unauthenticated", "{what} {path}");
        // RFC 6750: who showed nothing is told of no error.
        let challenge = match what {
            "nothing" => "Bearer realm=\"loom\"",
            _ => "Bearer realm=\"loom\", error=\"invalid_token\"",
        };
        assert_eq!(answer.header("www-authenticate"), Some(challenge), "{what} {path}");
    }
    assert!(answer.header("x-request-id").is_some());
}

#[tokio::test]
async fn every_documented_operation_but_the_public_ones_wants_a_credential() {
    let app = TestApp::start().await;
    for operation in operations().await {
        let (name, answer) = (operation.name(), ask(&app.anonymous(), &operation).await);
        let public = PUBLIC.contains(&name.as_str());
        assert_eq!(operation.is_public(), public, "{name} declares otherwise");
        if public {
            // What wants a body wants more than `{}` in it.
            let let_in = answer.status.is_success()
                || operation.has_body() && answer.status == 422
                // Nothing was begun that could be gone on with.
                || operation.path.starts_with("/auth/") && matches!(answer.status.as_u16(), 400 | 404)
                // No such link.
                || operation.path.ends_with("/{token}") && answer.status == 404
                // No such badge.
                || operation.path.ends_with("/badge/{file}") && answer.status == 404;
            assert!(let_in, "{name}: {}", answer.status);
        } else {
            assert_refused(answer, &operation.path, "nothing");
        }
    }
    let bases = ["/anthropic/v1/messages", "/openai/v1/chat/completions", "/openai/v1/models/x"];
    for path in bases {
        let method = if path.ends_with("/x") { "GET" } else { "POST" }.parse().unwrap();
        let caller = app.anonymous();
        let answer = caller.send(caller.request(method, path)).await;
        assert_refused(answer, path, "nothing");
    }
}

#[tokio::test]
async fn a_credential_that_is_not_good_opens_nothing() {
    let app = Setup::default().manual_clock().start().await;
    let auth = &app.running.features.auth;
    let user = app.user("ada@example.com").await;

    // Keys as good as any but for one thing each.
    let make = async |life| auth.key_for(&user.email, Scopes::all(), life).await.unwrap();
    let (unknown, revoked) = (make(None).await, make(None).await);
    let expired = make(Some(Duration::from_secs(60))).await;
    for key in [&revoked, &expired] {
        app.anonymous().with_key(key.secret.expose()).get("/auth/me").await.expect(200);
    }
    sqlx::query("DELETE FROM api_keys WHERE id = $1")
        .bind(unknown.id.0)
        .execute(app.database.pool())
        .await
        .unwrap();
    user.delete(&format!("/api/orgs/{}/api-keys/{}", user.org, revoked.id)).await.expect(204);
    app.clock.advance(Duration::from_secs(60));

    let good = user.key.clone().unwrap();
    let mistyped = good.replace(&good[12..14], if &good[12..14] == "aa" { "ab" } else { "aa" });
    let bearer = |key: &str| app.anonymous().with("authorization", &format!("Bearer {key}"));
    let callers = [
        ("unknown key", bearer(unknown.secret.expose())),
        ("revoked key", bearer(revoked.secret.expose())),
        ("expired key", bearer(expired.secret.expose())),
        ("expired key as x-api-key", app.anonymous().with("x-api-key", expired.secret.expose())),
        ("mistyped key", bearer(&mistyped)),
        ("another vendor's key", bearer("sk-ant-api03-0123456789")),
        ("nothing after Bearer", app.anonymous().with("authorization", "Bearer ")),
        ("only the word", app.anonymous().with("authorization", "Bearer")),
        ("Basic", app.anonymous().with("authorization", "Basic YWRhOmh1bnRlcjI=")),
        ("the key without a scheme", app.anonymous().with("authorization", &good)),
        ("an empty x-api-key", app.anonymous().with("x-api-key", "")),
        // The first credential counts; a good one behind a bad one does not save it.
        ("bad before good", bearer(&mistyped).with("x-api-key", &good)),
    ];
    let operations = operations().await;
    for (what, caller) in &callers {
        for operation in operations.iter().filter(|operation| !operation.is_public()) {
            assert_refused(ask(caller, operation).await, &operation.path, what);
        }
        // A probe does not care what is shown to it.
        caller.get("/health/live").await.expect(204);
    }
    user.get("/auth/me").await.expect(200);
    app.anonymous().with("x-api-key", &good).get("/auth/me").await.expect(200);
}
