//! Role × action: for every documented operation, who is let through and who is not. One row each; an
//! operation without a row fails the test.

use std::collections::BTreeMap;

use loom_core::{
    id::WeaverId,
    port::{WeaverGrant, WeaverTokens},
    principal::{OrgRole, Scopes},
};
use loom_testkit::{Caller, Setup, TestApp};
use serde_json::{Value, json};

use crate::document::{NOBODY, operations};

/// The columns. All but the last three act in one organisation, the team.
const ROLES: [&str; 9] = [
    "anonymous",
    "member",
    "admin",
    "owner",
    "service key",
    "weaver",
    "owner of another",
    "auditor",
    "system admin",
];

/// What each column may come to.
const LEGEND: &str = "`-` 401, `x` 403, `0` 404: no such organisation, `+` let through";

/// An operation, what becomes of each role, and the body that is sent.
type Row = (&'static str, &'static str, Option<&'static str>);

/// Whoever has the scope.
const ALL: &str = "-++++++++";
const PUBLIC: &str = "+++++++++";
/// By a session only; see sign_in/.
const NOBODY_BY_KEY: &str = "-xxxxxxxx";
/// For the members of the organisation, and for what acts as one.
const MEMBERS: &str = "-+++++000";
const USERS_HERE: &str = "-+++xx000";
const ORG_ADMINS: &str = "-x++xx000";
/// Of the organisation that they act in, which everybody is of their own.
const OWN_ADMINS: &str = "-x++xx+++";
/// Admins and owners, everybody in their own organisation.
const CRON_ADMINS: &str = "-x++xx+++";
const ORG_OWNERS: &str = "-xx+xx000";
const USERS: &str = "-+++xx+++";
const INSPECT: &str = "-xxxxxx++";
const SYSTEM: &str = "-xxxxxxx+";

const CHAT: &str = r#"{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}"#;
const MESSAGES: &str = r#"{"model": "claude-sonnet-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}"#;

const ROWS: &[Row] = &[
    ("GET /health", PUBLIC, None),
    ("GET /health/live", PUBLIC, None),
    ("GET /health/ready", PUBLIC, None),
    ("GET /metrics", PUBLIC, None),
    ("GET /docs", PUBLIC, None),
    ("GET /docs/search", PUBLIC, None),
    ("GET /docs/{path}", PUBLIC, None),
    ("POST /auth/tokens/report", PUBLIC, Some(r#"{"token": "nothing"}"#)),
    ("GET /auth/me", ALL, None),
    // Weavers.
    ("POST /api/weaver", ALL, Some(r#"{"image": "agent"}"#)),
    ("GET /api/weavers", ALL, None),
    ("GET /api/weavers/stream", ALL, None),
    ("POST /api/weavers/cleanup", SYSTEM, Some("{}")),
    ("GET /api/weaver/{id}", ALL, None),
    ("PATCH /api/weaver/{id}", ALL, Some("{}")),
    ("DELETE /api/weaver/{id}", ALL, None),
    ("GET /api/weaver/{id}/timeline", ALL, None),
    ("GET /api/weaver/{id}/logs", ALL, None),
    ("POST /api/weaver/{id}/exec", ALL, Some(r#"{"command": ["id"]}"#)),
    ("GET /api/weaver/{id}/attach", ALL, None),
    // Cron monitoring.
    (
        "POST /api/crons/preview",
        PUBLIC,
        Some(r#"{"schedule": {"type": "crontab", "expression": "@daily"}}"#),
    ),
    ("GET /api/crons/badge/{file}", PUBLIC, None),
    ("GET /api/crons/monitors", ALL, None),
    (
        "POST /api/crons/monitors",
        ALL,
        Some(r#"{"slug": "start", "schedule": {"type": "crontab", "expression": "@daily"}}"#),
    ),
    ("GET /api/crons/monitors/{slug}", ALL, None),
    ("PATCH /api/crons/monitors/{slug}", ALL, Some("{}")),
    ("DELETE /api/crons/monitors/{slug}", ALL, None),
    ("POST /api/crons/monitors/{slug}/pause", ALL, None),
    ("POST /api/crons/monitors/{slug}/resume", ALL, None),
    ("POST /api/crons/monitors/{slug}/rotate-key", ALL, None),
    ("GET /api/crons/monitors/{slug}/alerts", ALL, None),
    ("PUT /api/crons/monitors/{slug}/alerts", CRON_ADMINS, Some("{}")),
    ("GET /api/crons/monitors/{slug}/checkins", ALL, None),
    ("POST /api/crons/monitors/{slug}/checkins", ALL, Some(r#"{"status": "ok"}"#)),
    ("GET /api/crons/monitors/{slug}/stats", ALL, None),
    ("GET /api/crons/monitors/{slug}/calendar", ALL, None),
    ("GET /api/crons/monitors/{slug}/incidents", ALL, None),
    ("GET /api/crons/checkins/{id}", ALL, None),
    ("PATCH /api/crons/checkins/{id}", ALL, Some(r#"{"status": "ok"}"#)),
    ("GET /api/crons/overview", ALL, None),
    ("GET /api/crons/stream", ALL, None),
    ("GET /api/crons/ping-keys", ALL, None),
    ("POST /api/crons/ping-keys", ALL, Some(r#"{"name": ""}"#)),
    ("DELETE /api/crons/ping-keys/{id}", ALL, None),
    ("GET /api/0/organizations/{org}/monitors/", MEMBERS, None),
    // Signing in.
    ("GET /auth/providers", PUBLIC, None),
    ("GET /auth/login/{provider}", PUBLIC, None),
    ("GET /auth/{provider}/callback", PUBLIC, None),
    ("GET /auth/callback/{provider}", PUBLIC, None),
    ("POST /auth/magic-link", PUBLIC, Some(r#"{"email": "nobody"}"#)),
    ("GET /auth/magic-link/verify", PUBLIC, None),
    ("POST /auth/magic-link/verify", PUBLIC, Some("{}")),
    ("POST /auth/device/start", PUBLIC, Some("{}")),
    ("POST /auth/device/poll", PUBLIC, Some(r#"{"device_code": "nothing"}"#)),
    // Keys and tokens are not somebody at a browser.
    ("POST /auth/device/complete", NOBODY_BY_KEY, Some(r#"{"user_code": "x", "approve": true}"#)),
    ("POST /api/account/identities/{provider}/connect", NOBODY_BY_KEY, None),
    ("POST /auth/logout", ALL, None),
    ("GET /auth/ws-token", ALL, None),
    ("GET /api/self-monitoring/web-config", ALL, None),
    ("GET /api/self-monitoring/cli-config", ALL, None),
    ("GET /api/sessions", USERS, None),
    ("DELETE /api/sessions/{id}", USERS, None),
    ("PATCH /api/account", USERS, Some(r#"{"name": "two\nlines"}"#)),
    ("GET /api/account/identities", USERS, None),
    ("DELETE /api/account/identities/{id}", USERS, None),
    // Organisations.
    ("GET /api/orgs", USERS, None),
    ("POST /api/orgs", USERS, Some(r#"{"slug": "-", "name": ""}"#)),
    ("GET /api/orgs/{org}", MEMBERS, None),
    ("PATCH /api/orgs/{org}", ORG_ADMINS, Some("{}")),
    // There is a thread in it.
    ("DELETE /api/orgs/{org}", ORG_OWNERS, None),
    ("GET /api/orgs/{org}/members", MEMBERS, None),
    ("PATCH /api/orgs/{org}/members/{user}", ORG_ADMINS, Some(r#"{"role": "member"}"#)),
    ("DELETE /api/orgs/{org}/members/{user}", ORG_ADMINS, None),
    (
        "POST /api/orgs/{org}/transfer",
        ORG_OWNERS,
        Some(r#"{"user_id": "0199aaaa-0000-7000-8000-00000000dead"}"#),
    ),
    ("GET /api/orgs/{org}/invitations", ORG_ADMINS, None),
    (
        "POST /api/orgs/{org}/invitations",
        ORG_ADMINS,
        Some(r#"{"email": "nobody", "role": "member"}"#),
    ),
    ("DELETE /api/orgs/{org}/invitations/{id}", ORG_ADMINS, None),
    ("POST /api/orgs/invitations/accept", USERS, Some(r#"{"token": "none"}"#)),
    ("GET /api/orgs/{org}/audit-log", ORG_ADMINS, None),
    // Keys: members have their own.
    ("GET /api/orgs/{org}/llm/routes", MEMBERS, None),
    ("GET /api/orgs/{org}/llm/routes/{name}", MEMBERS, None),
    ("PUT /api/orgs/{org}/llm/routes/{name}", ORG_ADMINS, Some(r#"{"targets": []}"#)),
    ("DELETE /api/orgs/{org}/llm/routes/{name}", ORG_ADMINS, None),
    ("GET /api/orgs/{org}/llm/settings", ORG_ADMINS, None),
    ("PATCH /api/orgs/{org}/llm/settings", ORG_ADMINS, Some("{}")),
    ("DELETE /api/orgs/{org}/llm/captures", ORG_ADMINS, None),
    // Those who act elsewhere are owners there.
    ("GET /api/llm/requests/{id}/capture", "-x++xx+++", None),
    ("GET /api/orgs/{org}/llm/limits", MEMBERS, None),
    ("PUT /api/orgs/{org}/llm/limits/{kind}/{subject}", ORG_ADMINS, Some("{}")),
    ("DELETE /api/orgs/{org}/llm/limits/{kind}/{subject}", ORG_ADMINS, None),
    ("GET /api/orgs/{org}/api-keys", USERS_HERE, None),
    (
        "POST /api/orgs/{org}/api-keys",
        USERS_HERE,
        Some(r#"{"name": "", "kind": "personal", "scopes": []}"#),
    ),
    ("GET /api/orgs/{org}/api-keys/{id}", USERS_HERE, None),
    ("PATCH /api/orgs/{org}/api-keys/{id}", USERS_HERE, Some("{}")),
    ("DELETE /api/orgs/{org}/api-keys/{id}", USERS_HERE, None),
    // The installation.
    ("GET /api/admin/users", INSPECT, None),
    ("GET /api/admin/users/{id}", INSPECT, None),
    ("PATCH /api/admin/users/{id}/roles", SYSTEM, Some("{}")),
    ("POST /api/admin/users/{id}/disable", SYSTEM, None),
    ("POST /api/admin/users/{id}/enable", SYSTEM, None),
    ("GET /api/admin/audit-log", INSPECT, None),
    ("GET /api/admin/jobs", INSPECT, None),
    ("GET /api/admin/jobs/stream", INSPECT, None),
    ("GET /api/admin/health", INSPECT, None),
    ("GET /api/admin/logs", INSPECT, None),
    // A level that is none: who is let through is told so, instead of a stream without end.
    ("GET /api/admin/logs/stream", INSPECT, None),
    ("GET /api/live", ALL, None),
    ("GET /api/admin/replicas", INSPECT, None),
    ("POST /api/admin/maintenance/sweep", SYSTEM, None),
    ("GET /api/admin/jobs/{id}/history", INSPECT, None),
    ("GET /api/admin/jobs/{id}/history/days", INSPECT, None),
    ("POST /api/admin/jobs/{id}/run", SYSTEM, None),
    ("POST /api/admin/jobs/{id}/cancel", SYSTEM, None),
    ("POST /api/admin/jobs/{id}/enable", SYSTEM, None),
    ("POST /api/admin/jobs/{id}/disable", SYSTEM, None),
    ("GET /api/admin/deliveries", INSPECT, None),
    ("POST /api/admin/deliveries/{id}/retry", SYSTEM, None),
    ("POST /api/admin/mail/test", SYSTEM, Some(r#"{"to": "nobody"}"#)),
    ("GET /api/admin/llm/providers", INSPECT, None),
    ("GET /api/admin/llm/providers/{provider}/credentials", INSPECT, None),
    ("POST /api/admin/llm/providers/{provider}/credentials", SYSTEM, Some("{}")),
    ("GET /api/admin/llm/providers/{provider}/credentials/{id}", INSPECT, None),
    ("PATCH /api/admin/llm/providers/{provider}/credentials/{id}", SYSTEM, Some("{}")),
    ("DELETE /api/admin/llm/providers/{provider}/credentials/{id}", SYSTEM, None),
    ("POST /api/admin/llm/providers/{provider}/credentials/{id}/enable", SYSTEM, None),
    ("POST /api/admin/llm/providers/{provider}/credentials/{id}/disable", SYSTEM, Some("{}")),
    ("POST /api/admin/llm/providers/{provider}/credentials/{id}/test", SYSTEM, None),
    ("GET /api/admin/webhooks", SYSTEM, None),
    ("POST /api/admin/webhooks", SYSTEM, Some(r#"{"name": "", "url": ""}"#)),
    ("GET /api/admin/webhooks/{id}", SYSTEM, None),
    ("PATCH /api/admin/webhooks/{id}", SYSTEM, Some("{}")),
    ("DELETE /api/admin/webhooks/{id}", SYSTEM, None),
    ("POST /api/admin/webhooks/{id}/test", SYSTEM, None),
    // Threads: what nobody has made; whose they are is the matter of isolation.rs and of the crate.
    ("GET /api/crash/projects/{project}/discarded", ALL, None),
    // Sessions of applications: of no such project.
    (
        "POST /api/app-sessions/start",
        ALL,
        Some(r#"{"project_id": "none", "session_id": "s", "release": "1"}"#),
    ),
    (
        "POST /api/app-sessions/update",
        ALL,
        Some(r#"{"project_id": "none", "session_id": "s", "release": "1"}"#),
    ),
    (
        "POST /api/app-sessions/end",
        ALL,
        Some(r#"{"project_id": "none", "session_id": "s", "release": "1"}"#),
    ),
    ("GET /api/app-sessions", ALL, None),
    ("GET /api/app-sessions/series", ALL, None),
    ("GET /api/app-sessions/stream", ALL, None),
    ("GET /api/app-sessions/releases", ALL, None),
    ("GET /api/app-sessions/releases/{version}", ALL, None),
    ("GET /api/app-sessions/alerts", ALL, None),
    (
        "POST /api/app-sessions/alerts",
        OWN_ADMINS,
        Some(r#"{"project_id": "none", "name": "a", "kind": "regression", "emails": ["a@b.c"]}"#),
    ),
    ("GET /api/app-sessions/alerts/{id}", ALL, None),
    ("PATCH /api/app-sessions/alerts/{id}", OWN_ADMINS, Some("{}")),
    ("DELETE /api/app-sessions/alerts/{id}", OWN_ADMINS, None),
    ("GET /api/threads", ALL, None),
    ("GET /api/threads/{id}", ALL, None),
    ("GET /api/threads/search", ALL, None),
    ("PUT /api/threads/{id}", ALL, Some(r#"{"messages": 7}"#)),
    ("PATCH /api/threads/{id}", ALL, Some("{}")),
    ("DELETE /api/threads/{id}", ALL, None),
    ("POST /api/threads/{id}/messages", ALL, Some(r#"{"messages": []}"#)),
    ("GET /api/threads/{id}/messages/{seq}", ALL, None),
    ("GET /api/threads/{id}/events", ALL, None),
    // With a question that is none, instead of a stream without end.
    ("GET /api/threads/events", ALL, None),
    ("POST /api/threads/{id}/deltas", ALL, Some(r#"{"id": "", "offset": 0, "text": ""}"#)),
    ("PUT /api/threads/{id}/lease", ALL, Some(r#"{"ttl_secs": 0, "holder": ""}"#)),
    ("DELETE /api/threads/{id}/lease", ALL, None),
    ("POST /api/threads/{id}/restore", ALL, None),
    ("GET /api/threads/{id}/share", ALL, None),
    ("POST /api/threads/{id}/share", ALL, Some("{}")),
    ("DELETE /api/threads/{id}/share", ALL, None),
    ("GET /api/threads/shared/{token}", PUBLIC, None),
    ("GET /api/threads/{id}/export", ALL, None),
    ("POST /api/threads/import", ALL, Some(r#"{"messages": 7}"#)),
    ("GET /api/orgs/{org}/threads/settings", MEMBERS, None),
    ("PUT /api/orgs/{org}/threads/settings", ORG_ADMINS, Some(r#"{"redact_secrets": false}"#)),
    // Repositories, likewise.
    ("GET /api/crash/projects/{project}/artifacts", ALL, None),
    ("POST /api/crash/projects/{project}/artifacts", ALL, None),
    ("POST /api/crash/projects/{project}/artifacts/reprocess", ALL, None),
    ("GET /api/crash/projects/{project}/artifacts/{artifact}", ALL, None),
    ("DELETE /api/crash/projects/{project}/artifacts/{artifact}", OWN_ADMINS, None),
    ("GET /api/crash/projects/{project}/artifacts/{artifact}/download", OWN_ADMINS, None),
    ("GET /api/crash/projects/{project}/releases", ALL, None),
    ("POST /api/crash/projects/{project}/releases", ALL, Some(r#"{"version": ""}"#)),
    ("GET /api/crash/projects/{project}/releases/{version}", ALL, None),
    ("PATCH /api/crash/projects/{project}/releases/{version}", ALL, Some("{}")),
    ("DELETE /api/crash/projects/{project}/releases/{version}", OWN_ADMINS, None),
    ("GET /api/crash/projects/{project}/releases/{version}/commits", ALL, None),
    (
        "PUT /api/crash/projects/{project}/releases/{version}/commits",
        ALL,
        Some(r#"{"commits": []}"#),
    ),
    ("GET /api/crash/projects/{project}/releases/{version}/deploys", ALL, None),
    (
        "POST /api/crash/projects/{project}/releases/{version}/deploys",
        ALL,
        Some(r#"{"environment": ""}"#),
    ),
    ("GET /api/crash/projects/{project}/issues/{issue}/suspects", ALL, None),
    ("GET /api/crash/projects", ALL, None),
    ("POST /api/crash/projects", OWN_ADMINS, Some(r#"{"name": ""}"#)),
    ("GET /api/crash/projects/{project}", ALL, None),
    ("PATCH /api/crash/projects/{project}", OWN_ADMINS, Some("{}")),
    ("DELETE /api/crash/projects/{project}", OWN_ADMINS, None),
    ("GET /api/crash/projects/{project}/keys", ALL, None),
    ("POST /api/crash/projects/{project}/keys", OWN_ADMINS, Some("{}")),
    ("PATCH /api/crash/projects/{project}/keys/{key}", OWN_ADMINS, Some("{}")),
    ("DELETE /api/crash/projects/{project}/keys/{key}", OWN_ADMINS, None),
    ("GET /api/crash/projects/{project}/alerts", ALL, None),
    (
        "POST /api/crash/projects/{project}/alerts",
        OWN_ADMINS,
        Some(r#"{"name": "", "condition": {"type": "new_issue"}, "actions": []}"#),
    ),
    ("GET /api/crash/projects/{project}/alerts/{alert}", ALL, None),
    ("PATCH /api/crash/projects/{project}/alerts/{alert}", OWN_ADMINS, Some("{}")),
    ("DELETE /api/crash/projects/{project}/alerts/{alert}", OWN_ADMINS, None),
    ("POST /api/crash/projects/{project}/alerts/{alert}/test", OWN_ADMINS, None),
    ("POST /api/crash/projects/{project}/alerts/{alert}/snooze", ALL, Some(r#"{"minutes": 1}"#)),
    ("GET /api/crash/projects/{project}/alerts/deliveries", OWN_ADMINS, None),
    ("GET /api/crash/projects/{project}/parked", ALL, None),
    ("POST /api/crash/projects/{project}/parked/retry", OWN_ADMINS, None),
    ("POST /api/crash/projects/{project}/issues/{issue}/reprocess", ALL, None),
    ("GET /api/crash/projects/{project}/events/{event}/attachments", ALL, None),
    ("GET /api/crash/projects/{project}/events/{event}/attachments/{attachment}", ALL, None),
    ("GET /api/crash/projects/{project}/events/{event}/feedback", ALL, None),
    ("GET /api/crash/projects/{project}/issues", ALL, None),
    (
        "POST /api/crash/projects/{project}/issues/bulk",
        ALL,
        Some(r#"{"action": "resolve", "issues": ["x"]}"#),
    ),
    ("GET /api/crash/projects/{project}/issues/{issue}", ALL, None),
    ("PATCH /api/crash/projects/{project}/issues/{issue}", ALL, Some(r#"{"priority": "low"}"#)),
    ("DELETE /api/crash/projects/{project}/issues/{issue}", OWN_ADMINS, None),
    ("GET /api/crash/projects/{project}/issues/{issue}/tags", ALL, None),
    ("GET /api/crash/projects/{project}/issues/{issue}/tags/{key}", ALL, None),
    ("GET /api/crash/projects/{project}/issues/{issue}/series", ALL, None),
    ("GET /api/crash/projects/{project}/series", ALL, None),
    ("GET /api/crash/series", ALL, None),
    ("GET /api/crash/projects/{project}/issues/{issue}/activity", ALL, None),
    ("POST /api/crash/projects/{project}/issues/{issue}/comments", ALL, Some(r#"{"text": "x"}"#)),
    ("GET /api/crash/projects/{project}/issues/{issue}/events", ALL, None),
    ("GET /api/crash/projects/{project}/issues/{issue}/events/{event}", ALL, None),
    ("GET /api/crash/projects/{project}/events/{event}", ALL, None),
    ("POST /api/crash/projects/{project}/issues/{issue}/resolve", ALL, Some(r#"{}"#)),
    ("POST /api/crash/projects/{project}/issues/{issue}/unresolve", ALL, None),
    ("POST /api/crash/projects/{project}/issues/{issue}/ignore", ALL, Some(r#"{}"#)),
    (
        "POST /api/crash/projects/{project}/issues/{issue}/assign",
        ALL,
        Some(r#"{"assigned_to": null}"#),
    ),
    ("POST /api/crash/projects/{project}/issues/{issue}/merge", ALL, Some(r#"{"issues": ["x"]}"#)),
    (
        "POST /api/crash/projects/{project}/issues/{issue}/unmerge",
        ALL,
        Some(r#"{"hashes": ["x"]}"#),
    ),
    ("GET /api/crash/projects/{project}/stream", ALL, None),
    ("GET /api/crash/issues", ALL, None),
    ("GET /api/crash/stream", ALL, None),
    ("POST /api/crash/capture", ALL, Some("{}")),
    ("POST /api/crash/batch", ALL, Some(r#"{"events": []}"#)),
    ("GET /api/repos", ALL, None),
    ("POST /api/repos", ALL, Some(r#"{"name": ".."}"#)),
    ("GET /api/repos/{id}", ALL, None),
    ("PATCH /api/repos/{id}", ALL, Some("{}")),
    ("DELETE /api/repos/{id}", ALL, None),
    ("GET /api/repos/{id}/maintenance", ALL, None),
    ("POST /api/repos/{id}/maintenance", ALL, None),
    // Models.
    ("GET /v1/models", ALL, None),
    ("GET /v1/models/{id}", ALL, None),
    ("POST /v1/messages", ALL, Some(MESSAGES)),
    ("POST /v1/messages/count_tokens", ALL, Some(MESSAGES)),
    ("POST /v1/chat/completions", ALL, Some(CHAT)),
    ("POST /v1/responses", ALL, Some(r#"{"model": "gpt-4o-mini", "input": "hi"}"#)),
    ("GET /api/llm/usage", ALL, None),
    ("GET /api/llm/usage/stream", ALL, None),
    ("GET /api/llm/requests", ALL, None),
    ("GET /api/llm/requests/{id}", ALL, None),
    ("GET /api/llm/models", ALL, None),
    ("GET /api/orgs/{org}/llm/prices", ORG_ADMINS, None),
    (
        "POST /api/orgs/{org}/llm/prices",
        ORG_ADMINS,
        Some(r#"{"provider": "", "model": "", "input": 1, "output": 1}"#),
    ),
    ("PUT /api/orgs/{org}/llm/prices/{id}", ORG_ADMINS, Some(r#"{"input": 1, "output": 1}"#)),
    ("DELETE /api/orgs/{org}/llm/prices/{id}", ORG_ADMINS, None),
    ("POST /v1/embeddings", ALL, Some(r#"{"model": "text-embedding-3-small", "input": "hi"}"#)),
    ("POST /proxy/{provider}/complete", ALL, Some(CHAT)),
    ("POST /proxy/{provider}/stream", ALL, Some(CHAT)),
];

struct World {
    app: TestApp,
    team: String,
    callers: Vec<Caller>,
}

impl World {
    async fn new() -> Self {
        let app = Setup::default()
            .set("LOOM_SERVER_GITHUB_CLIENT_ID", "loom")
            .set("LOOM_SERVER_GITHUB_CLIENT_SECRET", "hunter2")
            .start()
            .await;
        let ada = app.user("ada@example.com").await;
        let new = json!({"slug": "engines", "name": "Engines"});
        let team = ada.post("/api/orgs", &new).await.expect(201).json()["id"].clone();
        let team = team.as_str().unwrap().to_owned();
        let org = team.parse().unwrap();
        let bob = app.user("bob@example.com").await;
        let cleo = app.user("cleo@example.com").await;
        app.join(bob.id, org, OrgRole::Admin).await;
        app.join(cleo.id, org, OrgRole::Member).await;
        let all: Vec<_> = Scopes::all().iter().collect();
        let new = json!({"name": "robot", "kind": "service", "scopes": all});
        let made = ada.post(&format!("/api/orgs/{team}/api-keys"), &new).await.expect(201).json();
        let robot = app.anonymous().with_key(made["secret"].as_str().unwrap());
        let grant = WeaverGrant {
            weaver: WeaverId::new(app.clock.now()),
            org,
            owner: Some(cleo.id),
            scopes: Scopes::all(),
            expires_at: app.clock.now() + std::time::Duration::from_secs(3600),
        };
        let weaver = app.running.features.auth.issue(grant).await.unwrap();
        let weaver = app.anonymous().with_key(weaver.expose());
        let stranger = app.user("stranger@example.com").await;
        stranger.post("/api/orgs", &json!({"slug": "others", "name": "O"})).await.expect(201);
        let auditor = app.user("auditor@example.com").await;
        sqlx::query("UPDATE users SET is_auditor = true WHERE id = $1")
            .bind(auditor.id.0)
            .execute(app.database.pool())
            .await
            .unwrap();
        let chief = app.admin("chief@example.com").await;
        let here = |caller: &Caller| caller.with("x-loom-org", &team);
        let callers = vec![
            app.anonymous(),
            here(&cleo),
            here(&bob),
            here(&ada),
            robot,
            weaver,
            stranger.with("x-loom-org", "others"),
            auditor.caller,
            chief.caller,
        ];
        let thread = format!("/api/threads/T-{}", loom_core::id::new_uuid(app.clock.now()));
        let document = json!({"title": "t", "messages": []});
        here(&ada).put(&thread, &document).await.expect(201);
        Self { app, team, callers }
    }
}

#[tokio::test]
async fn every_documented_operation_lets_through_whom_its_row_says() {
    let mut rows: BTreeMap<&str, (&str, Option<&str>)> = BTreeMap::new();
    for &(name, expected, body) in ROWS {
        assert_eq!(expected.len(), ROLES.len(), "{name}");
        assert!(rows.insert(name, (expected, body)).is_none(), "{name} is there twice");
    }
    let world = World::new().await;
    let operations = operations().await;
    let mut wrong = Vec::new();
    for operation in &operations {
        let name = operation.name();
        let Some((expected, body)) = rows.remove(name.as_str()) else {
            wrong.push(format!("{name} has no row in ROWS: who may do it? ({LEGEND})"));
            continue;
        };
        let path = if operation.path.contains("{org}") {
            operation
                .path
                .replace("{org}", &world.team)
                .replace("{user}", NOBODY)
                .replace("{id}", NOBODY)
        } else {
            operation.some_path()
        };
        let path = path.replace("/logs/stream", "/logs/stream?level=loud");
        let path = path.replace("/jobs/stream", "/jobs/stream?job=none");
        let path = path.replace("/api/live", "/api/live?of=nothing");
        let path = path.replace("/crash/stream", "/crash/stream?event=nothing");
        let one = format!("/weavers/stream?weaver={NOBODY}");
        let path = path.replace("/weavers/stream", &one);
        let path = path.replace("/threads/events", "/threads/events?after=1&after=2");
        let path = path.replace("/crons/stream", "/crons/stream?monitor=none");
        let path = path.replace("/usage/stream", "/usage/stream?of=nothing");
        // Of those who can be asked for it, one that is configured.
        let path = path.replace("/identities/openai/", "/identities/github/");
        let (mut found, mut statuses) = (String::new(), Vec::new());
        for caller in &world.callers {
            let mut request = caller.request(operation.method.clone(), &path);
            if let Some(body) = body {
                request = request.json(&serde_json::from_str::<Value>(body).unwrap());
            }
            let answer = caller.send(request).await;
            statuses.push(answer.status.as_u16());
            found.push(match answer.status.as_u16() {
                401 => '-',
                403 => 'x',
                404 if answer.text.contains("no such organisation") => '0',
                429 => '!',
                _ => '+',
            });
        }
        if found != expected {
            wrong.push(format!(
                "{name}: expected {expected}, found {found}, {statuses:?} ({ROLES:?}; {LEGEND})"
            ));
        }
    }
    wrong.extend(rows.keys().map(|name| format!("{name} is no operation (any more)")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // All of them are still who they were.
    world.callers[3].get("/auth/me").await.expect(200);
    assert_eq!(world.app.rows("SELECT 1 FROM users WHERE disabled_at IS NOT NULL").await.len(), 0);
}
