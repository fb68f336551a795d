//! What belongs to one organisation does not exist for the members of another: a case for every
//! documented operation, run by each kind of stranger.

use std::collections::BTreeSet;

use loom_core::port::BoxFuture;
use loom_testkit::{Answer, Caller, TestApp, User};
use reqwest::Method;
use serde_json::{Value, json};

use crate::document::{Operation, operations};

/// What Ada made, and what a stranger would need to get at it.
struct World {
    app_project: String,
    app_alert: String,
    app: TestApp,
    ada: User,
    /// An organisation of hers: id and slug.
    team: (String, String),
    personal_key: String,
    service_key: String,
    /// An invitation to her organisation: id and token.
    invitation: (String, String),
    /// One that only she sees, and one that all of her organisation see.
    threads: [String; 2],
    /// The same of repositories.
    repositories: [String; 2],
    /// A sign-in of hers, and an identity at a provider.
    session: String,
    identity: String,
    /// A request to a model of hers that was captured.
    captured: String,
    checkin: String,
    weaver: String,
    ping_key: String,
    /// What she asked of a model, and a price of her own: ids.
    llm_request: String,
    llm_price: String,
    /// A project of hers: id, number, slug; its key; an event, its issue and a file that came with it.
    crash_project: [String; 3],
    crash_key: String,
    crash_event: String,
    crash_issue: String,
    crash_file: String,
    crash_alert: String,
    /// A file that was uploaded for it.
    crash_artifact: String,
}

/// Somebody of another organisation, with one of their own.
struct Stranger {
    what: &'static str,
    caller: Caller,
    own_org: String,
}

const TITLE: &str = "the plans of Ada";
/// What GitHub calls her.
const LOGIN: &str = "countess-of-lovelace";
/// What her requests to models are for.
const TAG: &str = "analytical-engine";

impl World {
    async fn new() -> Self {
        let app = TestApp::start().await;
        let ada = app.user("ada@example.com").await;
        let team = json!({"slug": "engines", "name": "Engines"});
        let team = ada.post("/api/orgs", &team).await.expect(201).json();
        let (id, slug) = (text(&team["id"]), text(&team["slug"]));
        let mut keys = Vec::new();
        for kind in ["personal", "service"] {
            let new = json!({"name": kind, "kind": kind, "scopes": ["threads:read"]});
            let path = format!("/api/orgs/{slug}/api-keys");
            keys.push(text(&ada.post(&path, &new).await.expect(201).json()["id"]));
        }
        let path = format!("/api/orgs/{slug}/invitations");
        let new = json!({"email": "grace@example.com", "role": "owner"});
        let invitation = text(&ada.post(&path, &new).await.expect(201).json()["id"]);
        let token = "a-token-of-an-invitation".to_owned();
        sqlx::query("UPDATE organisation_invitations SET token_sha256 = sha256($1)")
            .bind(token.as_bytes())
            .execute(app.database.pool())
            .await
            .unwrap();
        for org in [ada.org.to_string(), slug.clone()] {
            let draft = json!({"targets": [{"provider": "openai", "model": TITLE}]});
            ada.put(&format!("/api/orgs/{org}/llm/routes/fast"), &draft).await.expect(201);
        }
        let threads = ["private", "organization"]
            .map(|_| format!("T-{}", loom_core::id::new_uuid(app.clock.now())));
        for (thread, visibility) in threads.iter().zip(["private", "organization"]) {
            let document = json!({
                "title": TITLE, "visibility": visibility, "tags": ["engine"],
                "messages": [{"id": "m1", "role": "user", "content": TITLE}],
            });
            ada.put(&format!("/api/threads/{thread}"), &document).await.expect(201);
        }
        let new = json!({"name": "Analytical engine", "slug": "analytical"});
        let project = ada.post("/api/crash/projects", &new).await.expect(201).json();
        let event =
            json!({"project_id": "analytical", "exception_type": "Jam", "exception_value": TITLE});
        let crashed = ada.post("/api/crash/capture", &event).await.expect(200).json();
        let crash_event = text(&crashed["event_id"]);
        let path = "/api/crash/projects/analytical/keys";
        let crash_key = ada.get(path).await.expect(200).json();
        let crash_key = text(&crash_key["keys"][0]["id"]);
        let crash_file = loom_core::id::new_uuid(app.clock.now()).to_string();
        sqlx::query(
            "INSERT INTO crash_attachments (id, org_id, project_id, event_id, received_at, name, kind, size, sha256, content)
             SELECT $1::uuid, org_id, project_id, event_id, received_at, 'plan', 'event.attachment', 1, '\\x00', '\\x00'
               FROM crash_events",
        )
        .bind(&crash_file)
        .execute(app.database.pool())
        .await
        .unwrap();
        let new = json!({"name": TITLE, "condition": {"type": "regression"}, "actions": [{"type": "email"}]});
        let alert = ada.post("/api/crash/projects/analytical/alerts", &new).await.expect(201);
        let crash_alert = text(&alert.json()["id"]);
        let mut repositories = Vec::new();
        for visibility in ["private", "organization"] {
            let new = json!({"name": format!("plans-{visibility}"), "visibility": visibility,
                "description": TITLE});
            let made = ada.post("/api/repos", &new).await.expect(201).json();
            repositories.push(text(&made["id"]));
        }
        let [session, identity] =
            [(); 2].map(|()| loom_core::id::new_uuid(app.clock.now()).to_string());
        let signed_in = format!(
            "WITH session AS (INSERT INTO user_sessions
                 (id, user_id, kind, secret_sha256, method, created_at, last_used_at, expires_at, last_expires_at)
                 VALUES ('{session}', '{user}', 'web', sha256('secret'), 'github', now(), now(),
                         now() + interval '60 days', now() + interval '180 days'))
             INSERT INTO identities (id, user_id, provider, issuer, subject, login, created_at, last_used_at)
             VALUES ('{identity}', '{user}', 'github', 'https://github.com', '1815', '{LOGIN}', now(), now())",
            user = ada.id
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(signed_in)).execute(app.database.pool()).await.unwrap();
        let chat = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]});
        ada.with("x-loom-tags", TAG).post("/v1/chat/completions", &chat).await.expect(200);
        let llm_request = text(&app.llm_requests(1).await[0]["id"]);
        let new =
            json!({"provider": "openai", "model": "gpt-4o-mini", "input": 77.25, "output": 1});
        let path = format!("/api/orgs/{}/llm/prices", ada.org);
        let llm_price = text(&ada.post(&path, &new).await.expect(201).json()["id"]);
        let settings = json!({"capture": {"enabled": true}});
        ada.patch(&format!("/api/orgs/{}/llm/settings", ada.org), &settings).await.expect(200);
        let ask = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": TITLE}]});
        ada.post("/v1/chat/completions", &ask).await.expect(200);
        let captured = loom_testkit::eventually(async || {
            let rows = app.rows("SELECT request_id FROM llm_captures").await;
            rows.first().map(|row| text(&row["request_id"]))
        })
        .await;
        let release = json!({"version": "1.0", "url": "https://example.com/engine-room"});
        ada.post("/api/crash/projects/analytical/releases", &release).await.expect(201);
        let form = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"engine-room.sym\"\r\n\r\n\
            MODULE Linux x86_64 C0BCC3F19827FE653058404B2831D9E60 engine\nPUBLIC 2000 0 main\n\r\n--b--\r\n";
        let upload = ada
            .request(Method::POST, "/api/crash/projects/analytical/artifacts")
            .header("content-type", "multipart/form-data; boundary=b")
            .body(form);
        let crash_artifact = text(&ada.send(upload).await.expect(201).json()["id"]);
        let app_project = "shop-of-ada".to_owned();
        let new = json!({"name": TITLE, "slug": app_project});
        ada.post("/api/crash/projects", &new).await.expect(201);
        let new = json!({"project_id": app_project, "session_id": "s1", "release": TITLE});
        ada.post("/api/app-sessions/start", &new).await.expect(200);
        let new = json!({"project_id": app_project, "name": TITLE, "kind": "crash_free_sessions",
            "emails": [ada.email]});
        let made = ada.post("/api/app-sessions/alerts", &new).await.expect(201).json();
        let app_alert = text(&made["id"]);
        let monitor = json!({"slug": "plans", "name": TITLE, "tags": [TAG],
            "schedule": {"type": "crontab", "expression": "@yearly"}});
        ada.post("/api/crons/monitors", &monitor).await.expect(201);
        let run = json!({"status": "in_progress", "output": TITLE});
        let run = ada.post("/api/crons/monitors/plans/checkins", &run).await.expect(201).json();
        let key =
            ada.post("/api/crons/ping-keys", &json!({"name": TITLE})).await.expect(201).json();
        let weaver = app.weaver_of(&ada).await;
        sqlx::query("UPDATE weavers SET tags = jsonb_build_object('task', $1::text)")
            .bind(TITLE)
            .execute(app.database.pool())
            .await
            .unwrap();
        let mut keys = keys.into_iter();
        Self {
            weaver: weaver.to_string(),
            crash_artifact,
            app_project,
            app_alert,
            checkin: text(&run["id"]),
            ping_key: text(&key["id"]),
            llm_request,
            llm_price,
            session,
            identity,
            captured,
            personal_key: keys.next().unwrap(),
            service_key: keys.next().unwrap(),
            invitation: (invitation, token),
            team: (id, slug),
            threads,
            crash_project: [
                text(&project["id"]),
                project["number"].to_string(),
                text(&project["slug"]),
            ],
            crash_key,
            crash_event,
            crash_issue: text(&crashed["issue_id"]),
            crash_file,
            crash_alert,
            repositories: repositories.try_into().unwrap(),
            ada,
            app,
        }
    }

    async fn strangers(&self) -> Vec<Stranger> {
        let bob = self.app.user("bob@example.com").await;
        let chief = self.app.admin("chief@example.com").await;
        let new = json!({"name": "robot", "kind": "service", "scopes": [
            "llm:use", "threads:read", "threads:write", "repos:read", "repos:write", "admin:read", "admin:write",
            "crashes:read", "crashes:write", "sessions:read", "sessions:write",
            "crons:read", "crons:write", "weavers:read", "weavers:write"
        ]});
        let path = format!("/api/orgs/{}/api-keys", bob.org);
        let key = text(&bob.post(&path, &new).await.expect(201).json()["secret"]);
        let robot = self.app.anonymous().with_key(&key);
        let own_org = bob.org.to_string();
        vec![
            Stranger { what: "a user", caller: bob.caller, own_org: own_org.clone() },
            Stranger { what: "a service key", caller: robot, own_org },
            Stranger {
                what: "a system admin",
                own_org: chief.org.to_string(),
                caller: chief.caller,
            },
        ]
    }

    /// Everything that is Ada's, as it is stored.
    async fn stored(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for (table, org) in [
            ("organisations", "id"),
            ("organisation_members", "org_id"),
            ("api_keys", "org_id"),
            ("threads", "org_id"),
            ("thread_messages", "org_id"),
            ("thread_commits", "org_id"),
            ("thread_events", "org_id"),
            ("thread_blobs", "org_id"),
            ("repositories", "org_id"),
            ("repository_maintenance", "org_id"),
            ("llm_org_settings", "org_id"),
            ("llm_captures", "org_id"),
            ("organisation_invitations", "org_id"),
            ("audit_log", "org_id"),
            ("crash_projects", "org_id"),
            ("crash_project_keys", "org_id"),
            ("crash_issues", "org_id"),
            ("crash_events", "org_id"),
            ("crash_queue", "org_id"),
            ("crash_alert_rules", "org_id"),
            ("crash_alerts", "org_id"),
            ("llm_routes", "org_id"),
            ("llm_requests", "org_id"),
            ("llm_prices", "org_id"),
            ("crash_releases", "org_id"),
            ("crash_artifacts", "org_id"),
            ("app_sessions", "org_id"),
            ("app_session_alerts", "org_id"),
            ("cron_monitors", "org_id"),
            ("cron_environments", "org_id"),
            ("cron_checkins", "org_id"),
            ("cron_ping_keys", "org_id"),
            ("weavers", "org_id"),
        ] {
            // When a key was used last changes by itself.
            let query = format!(
                "SELECT to_jsonb(t) - 'last_used_at' AS row FROM {table} t \
                  WHERE {org} IN ('{}', '{}') ORDER BY 1",
                self.ada.org, self.team.0
            );
            all.extend(self.app.rows(&query).await);
        }
        for table in ["user_sessions", "identities"] {
            let query = format!(
                "SELECT to_jsonb(t) AS row FROM {table} t WHERE user_id = '{}'",
                self.ada.id
            );
            let rows = self.app.rows(&query).await;
            assert_eq!(rows.len(), 1, "{table}");
            all.extend(rows);
        }
        assert!(all.len() > 10);
        all
    }

    /// Every way to name an organisation of hers.
    fn orgs(&self) -> Vec<String> {
        vec![self.ada.org.to_string(), self.team.0.clone(), self.team.1.clone()]
    }

    /// Nothing that came back tells of her.
    #[track_caller]
    fn assert_silent(&self, answer: &Answer) {
        let mut telling = self.orgs();
        telling.extend(self.threads.clone());
        telling.extend(self.repositories.clone());
        telling.extend([&self.personal_key, &self.service_key, &self.ada.email].map(String::clone));
        telling.push(self.ada.id.to_string());
        telling.push("grace@example.com".to_owned());
        telling.push(self.invitation.0.clone());
        telling.extend([TAG, &self.llm_request, &self.llm_price].map(str::to_owned));
        telling.extend([&self.crash_artifact, "engine-room.sym"].map(str::to_owned));
        telling.push(self.app_alert.clone());
        telling.push(self.weaver.clone());
        telling.extend([TITLE, LOGIN, &self.session, &self.identity].map(str::to_owned));
        telling.extend(self.crash_project.first().cloned());
        telling.extend(
            [
                &self.crash_key,
                &self.crash_event,
                &self.crash_issue,
                &self.crash_file,
                &self.crash_alert,
            ]
            .map(String::clone),
        );
        for word in telling {
            assert!(!answer.text.contains(&word), "tells {word}: {}", answer.text);
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

type Case = for<'a> fn(&'a World, &'a Stranger) -> BoxFuture<'a, ()>;

/// Every organisation of hers is not there for a stranger.
async fn org_case(world: &World, stranger: &Stranger, method: Method, path: &str, body: Value) {
    for org in world.orgs() {
        let path = format!("/api/orgs/{org}{path}");
        let request = stranger.caller.request(method.clone(), &path).json(&body);
        world.assert_silent(&stranger.caller.send(request).await.expect(404));
    }
}

/// Her threads are not there.
async fn thread_case(world: &World, stranger: &Stranger, method: Method, path: &str, body: Value) {
    for thread in &world.threads {
        let path = format!("/api/threads/{thread}{path}");
        let request = stranger.caller.request(method.clone(), &path).json(&body);
        world.assert_silent(&stranger.caller.send(request).await.expect(404));
    }
}

/// Her project is not there, and what is in it is not in one of the stranger's own. `manages`: a service
/// key is told that it may not do so in its own organisation, and no more.
async fn crash_case(
    world: &World,
    stranger: &Stranger,
    method: Method,
    path: &str,
    body: Value,
    manages: bool,
) {
    let status = if manages && stranger.what == "a service key" { 403 } else { 404 };
    for project in &world.crash_project {
        let path = format!("/api/crash/projects/{project}{path}");
        let request = stranger.caller.request(method.clone(), &path).json(&body);
        world.assert_silent(&stranger.caller.send(request).await.expect(status));
    }
    if path.is_empty() || stranger.what == "a service key" {
        return;
    }
    let new = json!({"name": "Own"});
    let own = stranger.caller.post("/api/crash/projects", &new).await.expect(201).json();
    let own = format!("/api/crash/projects/{}", text(&own["id"]));
    let request = stranger.caller.request(method, &format!("{own}{path}")).json(&body);
    world.assert_silent(&stranger.caller.send(request).await);
    stranger.caller.delete(&own).await.expect(204);
}

/// Her monitor, her check-in and her ping key are not there.
async fn cron_case(world: &World, stranger: &Stranger, method: Method, path: &str, body: Value) {
    let path = path.replace("{checkin}", &world.checkin).replace("{key}", &world.ping_key);
    let request = stranger.caller.request(method, &format!("/api/crons{path}")).json(&body);
    let answer = stranger.caller.send(request).await;
    // Whom its alerts go to is for admins, wherever it is.
    let refused =
        stranger.what == "a service key" && path.ends_with("/alerts") && answer.status == 403;
    world.assert_silent(&if refused { answer } else { answer.expect(404) });
}

/// Her weaver is not there.
async fn weaver_case(world: &World, stranger: &Stranger, method: Method, path: &str, body: Value) {
    let path = format!("/api/weaver/{}{path}", world.weaver);
    let request = stranger.caller.request(method, &path).json(&body);
    world.assert_silent(&stranger.caller.send(request).await.expect(404));
}

/// Nothing of hers is in what a stranger reads of all.
async fn cron_list_case(world: &World, stranger: &Stranger, path: &str) {
    world.assert_silent(&stranger.caller.get(path).await.expect(200));
}

/// Her keys are not there, neither in her organisations nor in the stranger's own.
async fn key_case(world: &World, stranger: &Stranger, method: Method) {
    let mut orgs = world.orgs();
    orgs.push(stranger.own_org.clone());
    for org in orgs {
        for key in [&world.personal_key, &world.service_key] {
            let path = format!("/api/orgs/{org}/api-keys/{key}");
            let request = stranger.caller.request(method.clone(), &path);
            let answer = stranger.caller.send(request.json(&json!({"name": "mine now"}))).await;
            let own = stranger.what == "a service key" && org == stranger.own_org;
            world.assert_silent(&answer.expect(if own { 403 } else { 404 }));
        }
    }
}

/// What is a user's own is not there for another user, and not for what is no user at all.
async fn own_case(world: &World, stranger: &Stranger, method: Method, path: &str) {
    let request = stranger.caller.request(method.clone(), path);
    let answer = stranger.caller.send(request).await;
    world.assert_silent(&answer.expect(match stranger.what {
        "a service key" => 403,
        _ if method == Method::GET => 200,
        _ => 404,
    }));
}

/// Her project is not there.
async fn app_sessions_case(
    world: &World,
    stranger: &Stranger,
    method: Method,
    path: &str,
    body: Value,
) {
    let path = format!("/api/app-sessions{path}").replace("{project}", &world.app_project);
    // Whom alerts go to is for admins, wherever it is.
    let manages = path.contains("/alerts") && method != Method::GET;
    let status = if manages && stranger.what == "a service key" { 403 } else { 404 };
    let request = stranger.caller.request(method, &path).json(&body);
    let answer = stranger.caller.send(request).await.expect(status);
    assert!(!answer.text.contains(&world.app_alert), "{}", answer.text);
}

/// One for each operation under which something of an organisation can be reached.
const CASES: &[(&str, Case)] = &[
    ("GET /api/crash/projects/{project}/discarded", |world, stranger| {
        Box::pin(async move {
            for name in &world.crash_project {
                let path = format!("/api/crash/projects/{name}/discarded");
                world.assert_silent(&stranger.caller.get(&path).await.expect(404));
                world.ada.get(&path).await.expect(200);
            }
        })
    }),
    ("POST /api/app-sessions/start", |world, stranger| {
        Box::pin(async move {
            let body = json!({"project_id": world.app_project, "session_id": "s1", "release": "1"});
            app_sessions_case(world, stranger, Method::POST, "/start", body).await;
        })
    }),
    ("POST /api/app-sessions/update", |world, stranger| {
        Box::pin(async move {
            let body = json!({"project_id": world.app_project, "session_id": "s1", "release": "1"});
            app_sessions_case(world, stranger, Method::POST, "/update", body).await;
        })
    }),
    ("POST /api/app-sessions/end", |world, stranger| {
        Box::pin(async move {
            let body = json!({"project_id": world.app_project, "session_id": "s1", "release": "1"});
            app_sessions_case(world, stranger, Method::POST, "/end", body).await;
        })
    }),
    ("GET /api/app-sessions", |world, stranger| {
        Box::pin(async move {
            let body = Value::Null;
            app_sessions_case(world, stranger, Method::GET, "?project={project}", body).await;
        })
    }),
    ("GET /api/app-sessions/series", |world, stranger| {
        Box::pin(async move {
            let body = Value::Null;
            app_sessions_case(world, stranger, Method::GET, "/series?project={project}", body)
                .await;
        })
    }),
    ("GET /api/app-sessions/stream", |world, stranger| {
        Box::pin(async move {
            let body = Value::Null;
            app_sessions_case(world, stranger, Method::GET, "/stream?project={project}", body)
                .await;
        })
    }),
    ("GET /api/app-sessions/releases", |world, stranger| {
        Box::pin(async move {
            let body = Value::Null;
            app_sessions_case(world, stranger, Method::GET, "/releases?project={project}", body)
                .await;
        })
    }),
    ("GET /api/app-sessions/releases/{version}", |world, stranger| {
        Box::pin(async move {
            let body = Value::Null;
            app_sessions_case(world, stranger, Method::GET, "/releases/1?project={project}", body)
                .await;
        })
    }),
    ("GET /api/app-sessions/alerts", |world, stranger| {
        Box::pin(async move {
            let body = Value::Null;
            app_sessions_case(world, stranger, Method::GET, "/alerts?project={project}", body)
                .await;
        })
    }),
    ("POST /api/app-sessions/alerts", |world, stranger| {
        Box::pin(async move {
            let body = json!({"project_id": world.app_project, "name": "a", "kind": "regression", "emails": ["a@b.c"]});
            app_sessions_case(world, stranger, Method::POST, "/alerts", body).await;
        })
    }),
    ("GET /api/app-sessions/alerts/{id}", |world, stranger| {
        Box::pin(async move {
            let body = Value::Null;
            app_sessions_case(
                world,
                stranger,
                Method::GET,
                &format!("/alerts/{}", world.app_alert),
                body,
            )
            .await;
        })
    }),
    ("PATCH /api/app-sessions/alerts/{id}", |world, stranger| {
        Box::pin(async move {
            let body = json!({"enabled": false});
            app_sessions_case(
                world,
                stranger,
                Method::PATCH,
                &format!("/alerts/{}", world.app_alert),
                body,
            )
            .await;
        })
    }),
    ("DELETE /api/app-sessions/alerts/{id}", |world, stranger| {
        Box::pin(async move {
            let body = Value::Null;
            app_sessions_case(
                world,
                stranger,
                Method::DELETE,
                &format!("/alerts/{}", world.app_alert),
                body,
            )
            .await;
        })
    }),
    ("GET /api/crons/monitors/{slug}", |world, stranger| {
        Box::pin(cron_case(world, stranger, Method::GET, "/monitors/plans", json!({})))
    }),
    ("PATCH /api/crons/monitors/{slug}", |world, stranger| {
        Box::pin(cron_case(
            world,
            stranger,
            Method::PATCH,
            "/monitors/plans",
            json!({"name": "mine now"}),
        ))
    }),
    ("DELETE /api/crons/monitors/{slug}", |world, stranger| {
        Box::pin(cron_case(world, stranger, Method::DELETE, "/monitors/plans", json!({})))
    }),
    ("POST /api/crons/monitors/{slug}/pause", |world, stranger| {
        Box::pin(cron_case(world, stranger, Method::POST, "/monitors/plans/pause", json!({})))
    }),
    ("POST /api/crons/monitors/{slug}/resume", |world, stranger| {
        Box::pin(cron_case(world, stranger, Method::POST, "/monitors/plans/resume", json!({})))
    }),
    ("POST /api/crons/monitors/{slug}/rotate-key", |world, stranger| {
        Box::pin(cron_case(world, stranger, Method::POST, "/monitors/plans/rotate-key", json!({})))
    }),
    ("GET /api/crons/monitors/{slug}/alerts", |world, stranger| {
        Box::pin(cron_case(world, stranger, Method::GET, "/monitors/plans/alerts", json!({})))
    }),
    ("PUT /api/crons/monitors/{slug}/alerts", |world, stranger| {
        Box::pin(cron_case(world, stranger, Method::PUT, "/monitors/plans/alerts", json!({})))
    }),
    ("GET /api/crons/monitors/{slug}/checkins", |world, stranger| {
        Box::pin(cron_case(world, stranger, Method::GET, "/monitors/plans/checkins", json!({})))
    }),
    ("POST /api/crons/monitors/{slug}/checkins", |world, stranger| {
        Box::pin(cron_case(
            world,
            stranger,
            Method::POST,
            "/monitors/plans/checkins",
            json!({"status": "ok"}),
        ))
    }),
    ("GET /api/crons/monitors/{slug}/stats", |world, stranger| {
        Box::pin(cron_case(world, stranger, Method::GET, "/monitors/plans/stats", json!({})))
    }),
    ("GET /api/crons/monitors/{slug}/calendar", |world, stranger| {
        Box::pin(cron_case(world, stranger, Method::GET, "/monitors/plans/calendar", json!({})))
    }),
    ("GET /api/crons/monitors/{slug}/incidents", |world, stranger| {
        Box::pin(cron_case(world, stranger, Method::GET, "/monitors/plans/incidents", json!({})))
    }),
    ("GET /api/crons/checkins/{id}", |world, stranger| {
        Box::pin(cron_case(world, stranger, Method::GET, "/checkins/{checkin}", json!({})))
    }),
    ("PATCH /api/crons/checkins/{id}", |world, stranger| {
        Box::pin(cron_case(
            world,
            stranger,
            Method::PATCH,
            "/checkins/{checkin}",
            json!({"status": "ok"}),
        ))
    }),
    ("DELETE /api/crons/ping-keys/{id}", |world, stranger| {
        Box::pin(cron_case(world, stranger, Method::DELETE, "/ping-keys/{key}", json!({})))
    }),
    ("GET /api/weaver/{id}", |world, stranger| {
        Box::pin(weaver_case(world, stranger, Method::GET, "", json!({})))
    }),
    ("PATCH /api/weaver/{id}", |world, stranger| {
        Box::pin(weaver_case(world, stranger, Method::PATCH, "", json!({"tags": {"mine": "now"}})))
    }),
    ("DELETE /api/weaver/{id}", |world, stranger| {
        Box::pin(weaver_case(world, stranger, Method::DELETE, "", json!({})))
    }),
    ("GET /api/weaver/{id}/timeline", |world, stranger| {
        Box::pin(weaver_case(world, stranger, Method::GET, "/timeline", json!({})))
    }),
    ("GET /api/weaver/{id}/logs", |world, stranger| {
        Box::pin(weaver_case(world, stranger, Method::GET, "/logs", json!({})))
    }),
    ("GET /api/weaver/{id}/attach", |world, stranger| {
        Box::pin(weaver_case(world, stranger, Method::GET, "/attach", json!({})))
    }),
    ("POST /api/weaver/{id}/exec", |world, stranger| {
        Box::pin(weaver_case(world, stranger, Method::POST, "/exec", json!({"command": ["id"]})))
    }),
    ("GET /api/weavers/stream", |world, stranger| {
        Box::pin(async move {
            let path = format!("/api/weavers/stream?weaver={}", world.weaver);
            world.assert_silent(&stranger.caller.get(&path).await.expect(404));
        })
    }),
    ("GET /api/weavers", |world, stranger| {
        Box::pin(cron_list_case(world, stranger, "/api/weavers"))
    }),
    ("POST /api/weaver", |world, stranger| {
        Box::pin(async move {
            for org in world.orgs() {
                let new = json!({"image": "agent", "org_id": org});
                world.assert_silent(&stranger.caller.post("/api/weaver", &new).await.expect(404));
            }
        })
    }),
    ("GET /api/crons/stream", |world, stranger| {
        Box::pin(cron_case(world, stranger, Method::GET, "/stream?monitor=plans", json!({})))
    }),
    ("GET /api/crons/monitors", |world, stranger| {
        Box::pin(cron_list_case(world, stranger, "/api/crons/monitors"))
    }),
    ("GET /api/crons/overview", |world, stranger| {
        Box::pin(cron_list_case(world, stranger, "/api/crons/overview"))
    }),
    ("GET /api/crons/ping-keys", |world, stranger| {
        Box::pin(cron_list_case(world, stranger, "/api/crons/ping-keys"))
    }),
    ("POST /api/crons/monitors", |world, stranger| {
        Box::pin(async move {
            // The same slug is free in another organisation.
            let new =
                json!({"slug": "plans", "schedule": {"type": "crontab", "expression": "@yearly"}});
            world.assert_silent(
                &stranger.caller.post("/api/crons/monitors", &new).await.expect(201),
            );
            stranger.caller.delete("/api/crons/monitors/plans").await.expect(204);
        })
    }),
    ("POST /api/crons/ping-keys", |world, stranger| {
        Box::pin(async move {
            let new = json!({"name": "mine"});
            world.assert_silent(
                &stranger.caller.post("/api/crons/ping-keys", &new).await.expect(201),
            );
        })
    }),
    ("GET /api/0/organizations/{org}/monitors/", |world, stranger| {
        Box::pin(async move {
            for org in world.orgs() {
                let path = format!("/api/0/organizations/{org}/monitors/");
                world.assert_silent(&stranger.caller.get(&path).await.expect(404));
            }
        })
    }),
    ("GET /api/llm/usage", |world, stranger| {
        Box::pin(async move {
            for by in ["day", "user", "tag", "api_key"] {
                let path = format!("/api/llm/usage?group_by={by}");
                let answer = stranger.caller.get(&path).await.expect(200);
                world.assert_silent(&answer);
                assert_eq!(answer.json()["total"]["requests"], 0);
                for org in world.orgs() {
                    let caller = stranger.caller.with("x-loom-org", &org);
                    world.assert_silent(&caller.get(&path).await);
                }
            }
        })
    }),
    ("GET /api/llm/requests", |world, stranger| {
        Box::pin(async move {
            for filter in
                ["".to_owned(), format!("?tag={TAG}"), format!("?user_id={}", world.ada.id)]
            {
                let answer =
                    stranger.caller.get(&format!("/api/llm/requests{filter}")).await.expect(200);
                world.assert_silent(&answer);
                assert_eq!(answer.json()["requests"], json!([]));
            }
        })
    }),
    ("GET /api/llm/requests/{id}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/api/llm/requests/{}", world.llm_request);
            stranger.caller.get(&path).await.expect(404);
        })
    }),
    ("GET /api/llm/models", |world, stranger| {
        Box::pin(async move {
            let answer = stranger.caller.get("/api/llm/models").await.expect(200);
            world.assert_silent(&answer);
            assert!(!answer.text.contains("77.25"), "{}", answer.text);
        })
    }),
    ("GET /api/orgs/{org}/llm/prices", |world, stranger| {
        Box::pin(async move {
            org_case(world, stranger, Method::GET, "/llm/prices", Value::Null).await;
        })
    }),
    ("POST /api/orgs/{org}/llm/prices", |world, stranger| {
        Box::pin(async move {
            let new = json!({"provider": "openai", "model": "gpt-4o", "input": 1, "output": 1});
            org_case(world, stranger, Method::POST, "/llm/prices", new).await;
        })
    }),
    ("PUT /api/orgs/{org}/llm/prices/{id}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/llm/prices/{}", world.llm_price);
            let numbers = json!({"input": 1, "output": 1});
            org_case(world, stranger, Method::PUT, &path, numbers.clone()).await;
            // Nor in an organisation of one's own.
            let path = format!("/api/orgs/{}{path}", stranger.own_org);
            stranger.caller.put(&path, &numbers).await;
        })
    }),
    ("DELETE /api/orgs/{org}/llm/prices/{id}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/llm/prices/{}", world.llm_price);
            org_case(world, stranger, Method::DELETE, &path, Value::Null).await;
            let path = format!("/api/orgs/{}{path}", stranger.own_org);
            stranger.caller.delete(&path).await;
        })
    }),
    ("GET /auth/me", |world, stranger| {
        Box::pin(async move {
            let me = stranger.caller.get("/auth/me").await.expect(200);
            world.assert_silent(&me);
            assert_eq!(me.json()["org_id"], stranger.own_org.as_str());
        })
    }),
    ("GET /api/sessions", |world, stranger| {
        Box::pin(async move { own_case(world, stranger, Method::GET, "/api/sessions").await })
    }),
    ("DELETE /api/sessions/{id}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/api/sessions/{}", world.session);
            own_case(world, stranger, Method::DELETE, &path).await;
        })
    }),
    ("POST /auth/logout", |world, stranger| {
        Box::pin(async move {
            let answer = stranger.caller.post("/auth/logout", &json!({})).await;
            world.assert_silent(&answer.expect(409));
        })
    }),
    ("GET /api/account/identities", |world, stranger| {
        Box::pin(async move {
            own_case(world, stranger, Method::GET, "/api/account/identities").await;
        })
    }),
    ("DELETE /api/account/identities/{id}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/api/account/identities/{}", world.identity);
            own_case(world, stranger, Method::DELETE, &path).await;
        })
    }),
    ("GET /api/orgs", |world, stranger| {
        Box::pin(async move {
            let orgs = stranger.caller.get("/api/orgs").await;
            world.assert_silent(&orgs);
            if stranger.what == "a service key" {
                orgs.expect(403);
            } else {
                let orgs = orgs.expect(200).json()["orgs"].as_array().unwrap().clone();
                // System admins are in Loom's own, too.
                let theirs = orgs.iter().filter(|org| org["slug"] != "loom-internal").count();
                assert_eq!(theirs, 1);
            }
        })
    }),
    ("POST /api/orgs", |world, stranger| {
        Box::pin(async move {
            // The slug of hers, which is a name of all: it is told to be taken and no more.
            let new = json!({"slug": world.team.1, "name": "Mine now"});
            let answer = stranger.caller.post("/api/orgs", &new).await;
            let status = if stranger.what == "a service key" { 403 } else { 409 };
            assert!(!answer.expect(status).text.contains(&world.team.0));
        })
    }),
    ("GET /api/orgs/{org}/llm/routes", |world, stranger| {
        Box::pin(async move {
            org_case(world, stranger, Method::GET, "/llm/routes", json!({})).await;
        })
    }),
    ("GET /api/orgs/{org}/llm/routes/{name}", |world, stranger| {
        Box::pin(async move {
            let draft = json!({"targets": [{"provider": "openai", "model": "gpt-4o"}]});
            org_case(world, stranger, Method::GET, "/llm/routes/fast", draft).await;
        })
    }),
    ("PUT /api/orgs/{org}/llm/routes/{name}", |world, stranger| {
        Box::pin(async move {
            let draft = json!({"targets": [{"provider": "openai", "model": "gpt-4o"}]});
            org_case(world, stranger, Method::PUT, "/llm/routes/fast", draft).await;
        })
    }),
    ("DELETE /api/orgs/{org}/llm/routes/{name}", |world, stranger| {
        Box::pin(async move {
            let draft = json!({"targets": [{"provider": "openai", "model": "gpt-4o"}]});
            org_case(world, stranger, Method::DELETE, "/llm/routes/fast", draft).await;
        })
    }),
    ("GET /api/orgs/{org}/llm/settings", |world, stranger| {
        Box::pin(async move {
            org_case(world, stranger, Method::GET, "/llm/settings", json!({})).await;
        })
    }),
    ("PATCH /api/orgs/{org}/llm/settings", |world, stranger| {
        Box::pin(async move {
            let body = json!({"capture": {"enabled": true}});
            org_case(world, stranger, Method::PATCH, "/llm/settings", body).await;
        })
    }),
    ("DELETE /api/orgs/{org}/llm/captures", |world, stranger| {
        Box::pin(async move {
            org_case(world, stranger, Method::DELETE, "/llm/captures", json!({})).await;
        })
    }),
    ("GET /api/llm/requests/{id}/capture", |world, stranger| {
        Box::pin(async move {
            let path = format!("/api/llm/requests/{}/capture", world.captured);
            let answer = stranger.caller.get(&path).await;
            let status = if stranger.what == "a service key" { 403 } else { 404 };
            world.assert_silent(&answer.expect(status));
        })
    }),
    ("GET /api/orgs/{org}/api-keys", |world, stranger| {
        Box::pin(async move {
            for org in world.orgs() {
                let keys = stranger.caller.get(&format!("/api/orgs/{org}/api-keys")).await;
                world.assert_silent(&keys.expect(404));
            }
            let own = format!("/api/orgs/{}/api-keys", stranger.own_org);
            world.assert_silent(&stranger.caller.get(&own).await);
        })
    }),
    ("POST /api/orgs/{org}/api-keys", |world, stranger| {
        Box::pin(async move {
            for (org, kind) in world.orgs().iter().flat_map(|o| [(o, "personal"), (o, "service")]) {
                let new = json!({"name": "mine", "kind": kind, "scopes": ["threads:read"]});
                let path = format!("/api/orgs/{org}/api-keys");
                world.assert_silent(&stranger.caller.post(&path, &new).await.expect(404));
            }
        })
    }),
    ("DELETE /api/orgs/{org}/api-keys/{id}", |world, stranger| {
        Box::pin(async move {
            let mut orgs = world.orgs();
            orgs.push(stranger.own_org.clone());
            for org in orgs {
                for key in [&world.personal_key, &world.service_key] {
                    let path = format!("/api/orgs/{org}/api-keys/{key}");
                    let answer = stranger.caller.delete(&path).await;
                    // In its own organisation a service key may revoke nothing at all.
                    let own = stranger.what == "a service key" && org == stranger.own_org;
                    world.assert_silent(&answer.expect(if own { 403 } else { 404 }));
                }
            }
        })
    }),
    ("GET /api/orgs/{org}/api-keys/{id}", |world, stranger| {
        Box::pin(async move { key_case(world, stranger, Method::GET).await })
    }),
    ("PATCH /api/orgs/{org}/api-keys/{id}", |world, stranger| {
        Box::pin(async move { key_case(world, stranger, Method::PATCH).await })
    }),
    ("GET /api/orgs/{org}", |world, stranger| {
        Box::pin(async move { org_case(world, stranger, Method::GET, "", json!({})).await })
    }),
    ("PATCH /api/orgs/{org}", |world, stranger| {
        Box::pin(async move {
            org_case(world, stranger, Method::PATCH, "", json!({"name": "mine now"})).await;
        })
    }),
    ("DELETE /api/orgs/{org}", |world, stranger| {
        Box::pin(async move { org_case(world, stranger, Method::DELETE, "", json!({})).await })
    }),
    ("GET /api/orgs/{org}/llm/limits", |world, stranger| {
        Box::pin(org_case(world, stranger, Method::GET, "/llm/limits", Value::Null))
    }),
    ("PUT /api/orgs/{org}/llm/limits/{kind}/{subject}", |world, stranger| {
        let body = json!({"requests_per_minute": 0});
        Box::pin(org_case(world, stranger, Method::PUT, "/llm/limits/organisation/all", body))
    }),
    ("DELETE /api/orgs/{org}/llm/limits/{kind}/{subject}", |world, stranger| {
        let path = "/llm/limits/organisation/all";
        Box::pin(org_case(world, stranger, Method::DELETE, path, Value::Null))
    }),
    ("GET /api/orgs/{org}/members", |world, stranger| {
        Box::pin(async move {
            org_case(world, stranger, Method::GET, "/members", json!({})).await;
            let own = format!("/api/orgs/{}/members", stranger.own_org);
            world.assert_silent(&stranger.caller.get(&own).await.expect(200));
        })
    }),
    ("PATCH /api/orgs/{org}/members/{user}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/members/{}", world.ada.id);
            org_case(world, stranger, Method::PATCH, &path, json!({"role": "member"})).await;
        })
    }),
    ("DELETE /api/orgs/{org}/members/{user}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/members/{}", world.ada.id);
            org_case(world, stranger, Method::DELETE, &path, json!({})).await;
        })
    }),
    ("POST /api/orgs/{org}/transfer", |world, stranger| {
        Box::pin(async move {
            let to = json!({"user_id": world.ada.id});
            org_case(world, stranger, Method::POST, "/transfer", to).await;
        })
    }),
    ("GET /api/orgs/{org}/invitations", |world, stranger| {
        Box::pin(async move {
            org_case(world, stranger, Method::GET, "/invitations", json!({})).await;
        })
    }),
    ("POST /api/orgs/{org}/invitations", |world, stranger| {
        Box::pin(async move {
            let new = json!({"email": "me@example.com", "role": "owner"});
            org_case(world, stranger, Method::POST, "/invitations", new).await;
        })
    }),
    ("DELETE /api/orgs/{org}/invitations/{id}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/invitations/{}", world.invitation.0);
            org_case(world, stranger, Method::DELETE, &path, json!({})).await;
            let own = format!("/api/orgs/{}{path}", stranger.own_org);
            let status = if stranger.what == "a service key" { 403 } else { 404 };
            world.assert_silent(&stranger.caller.delete(&own).await.expect(status));
        })
    }),
    ("POST /api/orgs/invitations/accept", |world, stranger| {
        Box::pin(async move {
            // Even with the token in hand: it is for somebody else.
            let token = json!({"token": world.invitation.1});
            let answer = stranger.caller.post("/api/orgs/invitations/accept", &token).await;
            world.assert_silent(&answer.expect(403));
        })
    }),
    ("GET /api/orgs/{org}/audit-log", |world, stranger| {
        Box::pin(async move {
            for path in ["/audit-log", "/audit-log?format=ndjson"] {
                org_case(world, stranger, Method::GET, path, json!({})).await;
            }
            let own = format!("/api/orgs/{}/audit-log", stranger.own_org);
            for query in [String::new(), format!("?org_id={}", world.ada.org)] {
                world.assert_silent(&stranger.caller.get(&format!("{own}{query}")).await);
            }
        })
    }),
    ("GET /api/threads", |world, stranger| {
        Box::pin(async move {
            for query in [
                String::new(),
                "?tag=engine".to_owned(),
                format!("?owner={}", world.ada.id),
                "?limit=200&pinned=false".to_owned(),
            ] {
                let list = stranger.caller.get(&format!("/api/threads{query}")).await.expect(200);
                assert_eq!(list.json()["threads"], json!([]), "{query}");
                world.assert_silent(&list);
            }
        })
    }),
    ("GET /api/threads/search", |world, stranger| {
        Box::pin(async move {
            for query in [
                "q=plans".to_owned(),
                "q=planz".to_owned(),
                "q=ada%20or%20engine".to_owned(),
                format!("q=plans&owner={}", world.ada.id),
            ] {
                let page = stranger.caller.get(&format!("/api/threads/search?{query}")).await;
                let page = page.expect(200);
                assert_eq!(page.json()["hits"], json!([]), "{query}");
                assert_eq!(page.json()["total"], 0, "{query}");
                assert_eq!(page.json()["corrected"], json!(null), "{query}");
                for (facet, values) in page.json()["facets"].as_object().unwrap() {
                    assert_eq!(*values, json!([]), "{query} {facet}");
                }
                world.assert_silent(&page);
            }
        })
    }),
    ("GET /api/threads/{id}", |world, stranger| {
        Box::pin(async move {
            for thread in &world.threads {
                for query in ["", "?messages_after=0"] {
                    let path = format!("/api/threads/{thread}{query}");
                    world.assert_silent(&stranger.caller.get(&path).await.expect(404));
                }
            }
        })
    }),
    ("PUT /api/threads/{id}", |world, stranger| {
        Box::pin(async move {
            let document = json!({"title": "mine now", "messages": []});
            for thread in &world.threads {
                let path = format!("/api/threads/{thread}");
                for (header, value) in [("if-match", "\"1\""), ("if-match", "*"), ("x-no", "x")] {
                    let caller = stranger.caller.with(header, value);
                    world.assert_silent(&caller.put(&path, &document).await.expect(404));
                }
                let caller = stranger.caller.with("if-none-match", "*");
                world.assert_silent(&caller.put(&path, &document).await.expect(404));
            }
        })
    }),
    ("PATCH /api/threads/{id}", |world, stranger| {
        Box::pin(async move {
            for thread in &world.threads {
                let path = format!("/api/threads/{thread}");
                for change in [json!({"title": "mine now"}), json!({"visibility": "public"})] {
                    world.assert_silent(&stranger.caller.patch(&path, &change).await.expect(404));
                }
            }
        })
    }),
    ("DELETE /api/threads/{id}", |world, stranger| {
        Box::pin(async move {
            for thread in &world.threads {
                let path = format!("/api/threads/{thread}");
                world.assert_silent(&stranger.caller.delete(&path).await.expect(404));
            }
        })
    }),
    ("POST /api/threads/{id}/messages", |world, stranger| {
        Box::pin(async move {
            for thread in &world.threads {
                let path = format!("/api/threads/{thread}/messages");
                // A new message, and one that is there already.
                for id in ["m2", "m1"] {
                    let messages = json!([{"id": id, "role": "user", "content": "psst"}]);
                    let answer = stranger.caller.post(&path, &json!({"messages": messages})).await;
                    world.assert_silent(&answer.expect(404));
                }
            }
        })
    }),
    ("GET /api/threads/{id}/messages/{seq}", |world, stranger| {
        Box::pin(async move {
            thread_case(world, stranger, Method::GET, "/messages/1", json!({})).await;
        })
    }),
    ("GET /api/threads/{id}/events", |world, stranger| {
        Box::pin(async move {
            thread_case(world, stranger, Method::GET, "/events", json!({})).await;
        })
    }),
    ("POST /api/threads/{id}/deltas", |world, stranger| {
        Box::pin(async move {
            let piece = json!({"id": "m9", "offset": 0, "text": "psst"});
            thread_case(world, stranger, Method::POST, "/deltas", piece).await;
        })
    }),
    ("PUT /api/threads/{id}/lease", |world, stranger| {
        Box::pin(async move {
            let lease = json!({"ttl_secs": 60, "holder": "psst"});
            thread_case(world, stranger, Method::PUT, "/lease", lease).await;
        })
    }),
    ("DELETE /api/threads/{id}/lease", |world, stranger| {
        Box::pin(async move {
            thread_case(world, stranger, Method::DELETE, "/lease", json!({})).await;
        })
    }),
    ("POST /api/threads/{id}/restore", |world, stranger| {
        Box::pin(async move {
            for thread in &world.threads {
                let path = format!("/api/threads/{thread}/restore");
                world.assert_silent(&stranger.caller.post(&path, &json!({})).await.expect(404));
            }
        })
    }),
    ("GET /api/threads/{id}/share", |world, stranger| {
        Box::pin(async move {
            for thread in &world.threads {
                let path = format!("/api/threads/{thread}/share");
                world.assert_silent(&stranger.caller.get(&path).await.expect(404));
            }
        })
    }),
    ("POST /api/threads/{id}/share", |world, stranger| {
        Box::pin(async move {
            for thread in &world.threads {
                let path = format!("/api/threads/{thread}/share");
                world.assert_silent(&stranger.caller.post(&path, &json!({})).await.expect(404));
            }
        })
    }),
    ("DELETE /api/threads/{id}/share", |world, stranger| {
        Box::pin(async move {
            for thread in &world.threads {
                let path = format!("/api/threads/{thread}/share");
                world.assert_silent(&stranger.caller.delete(&path).await.expect(404));
            }
        })
    }),
    ("GET /api/threads/{id}/export", |world, stranger| {
        Box::pin(async move {
            for thread in &world.threads {
                for format in ["md", "json", "jsonl"] {
                    let path = format!("/api/threads/{thread}/export?format={format}");
                    world.assert_silent(&stranger.caller.get(&path).await.expect(404));
                }
            }
        })
    }),
    ("POST /api/threads/import", |world, stranger| {
        Box::pin(async move {
            // An id that is taken is taken, by whomever; more is not said.
            for thread in &world.threads {
                let document = json!({"id": thread, "title": "mine now", "messages": []});
                let answer = stranger.caller.post("/api/threads/import", &document).await;
                let told = answer.expect(409).text.replace(thread.as_str(), "");
                assert!(told.contains("thread_exists") && !told.contains(TITLE), "{told}");
            }
        })
    }),
    ("GET /api/orgs/{org}/threads/settings", |world, stranger| {
        Box::pin(org_case(world, stranger, Method::GET, "/threads/settings", json!({})))
    }),
    ("PUT /api/orgs/{org}/threads/settings", |world, stranger| {
        let body = json!({"redact_secrets": true});
        Box::pin(org_case(world, stranger, Method::PUT, "/threads/settings", body))
    }),
    ("GET /api/crash/projects/{project}/artifacts", |world, stranger| {
        Box::pin(async move {
            crash_case(world, stranger, Method::GET, "/artifacts", Value::Null, false).await;
        })
    }),
    ("POST /api/crash/projects/{project}/artifacts", |world, stranger| {
        Box::pin(async move {
            crash_case(world, stranger, Method::POST, "/artifacts", Value::Null, false).await;
        })
    }),
    ("POST /api/crash/projects/{project}/artifacts/reprocess", |world, stranger| {
        Box::pin(async move {
            crash_case(world, stranger, Method::POST, "/artifacts/reprocess", Value::Null, false)
                .await;
        })
    }),
    ("GET /api/crash/projects/{project}/artifacts/{artifact}", |world, stranger| {
        Box::pin(async move {
            crash_case(
                world,
                stranger,
                Method::GET,
                &format!("/artifacts/{}", world.crash_artifact),
                Value::Null,
                false,
            )
            .await;
        })
    }),
    ("DELETE /api/crash/projects/{project}/artifacts/{artifact}", |world, stranger| {
        Box::pin(async move {
            crash_case(
                world,
                stranger,
                Method::DELETE,
                &format!("/artifacts/{}", world.crash_artifact),
                Value::Null,
                true,
            )
            .await;
        })
    }),
    ("GET /api/crash/projects/{project}/artifacts/{artifact}/download", |world, stranger| {
        Box::pin(async move {
            crash_case(
                world,
                stranger,
                Method::GET,
                &format!("/artifacts/{}/download", world.crash_artifact),
                Value::Null,
                true,
            )
            .await;
        })
    }),
    ("GET /api/crash/projects/{project}/releases", |world, stranger| {
        Box::pin(async move {
            crash_case(world, stranger, Method::GET, "/releases", Value::Null, false).await;
        })
    }),
    ("POST /api/crash/projects/{project}/releases", |world, stranger| {
        Box::pin(async move {
            crash_case(
                world,
                stranger,
                Method::POST,
                "/releases",
                json!({"version": "2.0"}),
                false,
            )
            .await;
        })
    }),
    ("GET /api/crash/projects/{project}/releases/{version}", |world, stranger| {
        Box::pin(async move {
            crash_case(world, stranger, Method::GET, "/releases/1.0", Value::Null, false).await;
        })
    }),
    ("PATCH /api/crash/projects/{project}/releases/{version}", |world, stranger| {
        Box::pin(async move {
            crash_case(world, stranger, Method::PATCH, "/releases/1.0", json!({}), false).await;
        })
    }),
    ("DELETE /api/crash/projects/{project}/releases/{version}", |world, stranger| {
        Box::pin(async move {
            crash_case(world, stranger, Method::DELETE, "/releases/1.0", Value::Null, true).await;
        })
    }),
    ("GET /api/crash/projects/{project}/releases/{version}/commits", |world, stranger| {
        Box::pin(async move {
            crash_case(world, stranger, Method::GET, "/releases/1.0/commits", Value::Null, false)
                .await;
        })
    }),
    ("PUT /api/crash/projects/{project}/releases/{version}/commits", |world, stranger| {
        Box::pin(async move {
            crash_case(
                world,
                stranger,
                Method::PUT,
                "/releases/1.0/commits",
                json!({"commits": []}),
                false,
            )
            .await;
        })
    }),
    ("GET /api/crash/projects/{project}/releases/{version}/deploys", |world, stranger| {
        Box::pin(async move {
            crash_case(world, stranger, Method::GET, "/releases/1.0/deploys", Value::Null, false)
                .await;
        })
    }),
    ("POST /api/crash/projects/{project}/releases/{version}/deploys", |world, stranger| {
        Box::pin(async move {
            crash_case(
                world,
                stranger,
                Method::POST,
                "/releases/1.0/deploys",
                json!({"environment": "x"}),
                false,
            )
            .await;
        })
    }),
    ("GET /api/crash/projects/{project}/issues/{issue}/suspects", |world, stranger| {
        Box::pin(async move {
            crash_case(world, stranger, Method::GET, "/issues/1/suspects", Value::Null, false)
                .await;
        })
    }),
    ("GET /api/crash/projects", |world, stranger| {
        Box::pin(async move {
            let list = stranger.caller.get("/api/crash/projects").await.expect(200);
            assert_eq!(list.json()["projects"], json!([]));
            world.assert_silent(&list);
        })
    }),
    ("POST /api/crash/projects", |world, stranger| {
        Box::pin(async move {
            // A slug is its organisation's.
            let new = json!({"name": "Engine", "slug": world.crash_project[2]});
            let made = stranger.caller.post("/api/crash/projects", &new).await;
            world.assert_silent(&made);
            if stranger.what == "a service key" {
                made.expect(403);
            } else {
                let id = text(&made.expect(201).json()["id"]);
                stranger.caller.delete(&format!("/api/crash/projects/{id}")).await.expect(204);
            }
        })
    }),
    ("POST /api/crash/capture", |world, stranger| {
        Box::pin(async move {
            for project in &world.crash_project {
                let event = json!({"project_id": project, "exception_type": "Mine"});
                let answer = stranger.caller.post("/api/crash/capture", &event).await;
                world.assert_silent(&answer.expect(404));
            }
        })
    }),
    ("POST /api/crash/batch", |world, stranger| {
        Box::pin(async move {
            let event = json!({"project_id": world.crash_project[0], "exception_type": "Mine"});
            let batch = json!({"events": [event]});
            let answer = stranger.caller.post("/api/crash/batch", &batch).await.expect(200);
            assert_eq!(answer.json()["results"][0]["error"]["status"], 404);
            world.assert_silent(&answer);
        })
    }),
    ("GET /api/crash/projects/{project}", |world, stranger| {
        Box::pin(async move {
            let path = String::new();
            crash_case(world, stranger, Method::GET, &path, Value::Null, false).await;
        })
    }),
    ("PATCH /api/crash/projects/{project}", |world, stranger| {
        Box::pin(async move {
            let path = String::new();
            crash_case(world, stranger, Method::PATCH, &path, json!({"name": "Mine now"}), true)
                .await;
        })
    }),
    ("DELETE /api/crash/projects/{project}", |world, stranger| {
        Box::pin(async move {
            let path = String::new();
            crash_case(world, stranger, Method::DELETE, &path, Value::Null, true).await;
        })
    }),
    ("GET /api/crash/projects/{project}/keys", |world, stranger| {
        Box::pin(async move {
            let path = "/keys".to_owned();
            crash_case(world, stranger, Method::GET, &path, Value::Null, false).await;
        })
    }),
    ("POST /api/crash/projects/{project}/keys", |world, stranger| {
        Box::pin(async move {
            let path = "/keys".to_owned();
            crash_case(world, stranger, Method::POST, &path, json!({}), true).await;
        })
    }),
    ("PATCH /api/crash/projects/{project}/keys/{key}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/keys/{}", world.crash_key);
            crash_case(world, stranger, Method::PATCH, &path, json!({"enabled": false}), true)
                .await;
        })
    }),
    ("DELETE /api/crash/projects/{project}/keys/{key}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/keys/{}", world.crash_key);
            crash_case(world, stranger, Method::DELETE, &path, Value::Null, true).await;
        })
    }),
    ("GET /api/crash/projects/{project}/alerts", |world, stranger| {
        Box::pin(async move {
            let path = "/alerts".to_owned();
            crash_case(world, stranger, Method::GET, &path, Value::Null, false).await;
        })
    }),
    ("POST /api/crash/projects/{project}/alerts", |world, stranger| {
        Box::pin(async move {
            let path = "/alerts".to_owned();
            crash_case(world, stranger, Method::POST, &path, json!({"name": "Mine", "condition": {"type": "new_issue"}, "actions": [{"type": "email"}]}), true).await;
        })
    }),
    ("GET /api/crash/projects/{project}/alerts/{alert}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/alerts/{}", world.crash_alert);
            crash_case(world, stranger, Method::GET, &path, Value::Null, false).await;
        })
    }),
    ("PATCH /api/crash/projects/{project}/alerts/{alert}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/alerts/{}", world.crash_alert);
            crash_case(world, stranger, Method::PATCH, &path, json!({"enabled": false}), true)
                .await;
        })
    }),
    ("DELETE /api/crash/projects/{project}/alerts/{alert}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/alerts/{}", world.crash_alert);
            crash_case(world, stranger, Method::DELETE, &path, Value::Null, true).await;
        })
    }),
    ("POST /api/crash/projects/{project}/alerts/{alert}/test", |world, stranger| {
        Box::pin(async move {
            let path = format!("/alerts/{}/test", world.crash_alert);
            crash_case(world, stranger, Method::POST, &path, Value::Null, true).await;
        })
    }),
    ("POST /api/crash/projects/{project}/alerts/{alert}/snooze", |world, stranger| {
        Box::pin(async move {
            let path = format!("/alerts/{}/snooze", world.crash_alert);
            crash_case(world, stranger, Method::POST, &path, json!({"minutes": 5}), false).await;
        })
    }),
    ("GET /api/crash/projects/{project}/alerts/deliveries", |world, stranger| {
        Box::pin(async move {
            let path = "/alerts/deliveries".to_owned();
            crash_case(world, stranger, Method::GET, &path, Value::Null, true).await;
        })
    }),
    ("GET /api/crash/projects/{project}/parked", |world, stranger| {
        Box::pin(async move {
            let path = "/parked".to_owned();
            crash_case(world, stranger, Method::GET, &path, Value::Null, false).await;
        })
    }),
    ("POST /api/crash/projects/{project}/parked/retry", |world, stranger| {
        Box::pin(async move {
            let path = "/parked/retry".to_owned();
            crash_case(world, stranger, Method::POST, &path, json!({}), true).await;
        })
    }),
    ("POST /api/crash/projects/{project}/issues/{issue}/reprocess", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}/reprocess", world.crash_issue);
            crash_case(world, stranger, Method::POST, &path, json!({}), false).await;
        })
    }),
    ("POST /api/crash/projects/{project}/issues/bulk", |world, stranger| {
        Box::pin(async move {
            let path = "/issues/bulk".to_owned();
            let body = json!({"action": "resolve", "issues": ["ANALYTICAL-1"]});
            crash_case(world, stranger, Method::POST, &path, body, false).await;
        })
    }),
    ("GET /api/crash/projects/{project}/issues/{issue}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}", world.crash_issue);
            let body = Value::Null;
            crash_case(world, stranger, Method::GET, &path, body, false).await;
        })
    }),
    ("PATCH /api/crash/projects/{project}/issues/{issue}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}", world.crash_issue);
            let body = json!({"priority": "low"});
            crash_case(world, stranger, Method::PATCH, &path, body, false).await;
        })
    }),
    ("DELETE /api/crash/projects/{project}/issues/{issue}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}", world.crash_issue);
            let body = Value::Null;
            crash_case(world, stranger, Method::DELETE, &path, body, true).await;
        })
    }),
    ("GET /api/crash/projects/{project}/issues/{issue}/tags", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}/tags", world.crash_issue);
            let body = Value::Null;
            crash_case(world, stranger, Method::GET, &path, body, false).await;
        })
    }),
    ("GET /api/crash/projects/{project}/issues/{issue}/tags/{key}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}/tags/level", world.crash_issue);
            let body = Value::Null;
            crash_case(world, stranger, Method::GET, &path, body, false).await;
        })
    }),
    ("GET /api/crash/projects/{project}/issues/{issue}/series", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}/series", world.crash_issue);
            let body = Value::Null;
            crash_case(world, stranger, Method::GET, &path, body, false).await;
        })
    }),
    ("GET /api/crash/projects/{project}/series", |world, stranger| {
        Box::pin(async move {
            let path = "/series".to_owned();
            let body = Value::Null;
            crash_case(world, stranger, Method::GET, &path, body, false).await;
        })
    }),
    ("GET /api/crash/projects/{project}/issues/{issue}/activity", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}/activity", world.crash_issue);
            let body = Value::Null;
            crash_case(world, stranger, Method::GET, &path, body, false).await;
        })
    }),
    ("POST /api/crash/projects/{project}/issues/{issue}/comments", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}/comments", world.crash_issue);
            let body = json!({"text": "mine"});
            crash_case(world, stranger, Method::POST, &path, body, false).await;
        })
    }),
    ("GET /api/crash/projects/{project}/issues/{issue}/events", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}/events", world.crash_issue);
            let body = Value::Null;
            crash_case(world, stranger, Method::GET, &path, body, false).await;
        })
    }),
    ("GET /api/crash/projects/{project}/issues/{issue}/events/{event}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}/events/{}", world.crash_issue, world.crash_event);
            let body = Value::Null;
            crash_case(world, stranger, Method::GET, &path, body, false).await;
        })
    }),
    ("GET /api/crash/projects/{project}/events/{event}", |world, stranger| {
        Box::pin(async move {
            let path = format!("/events/{}", world.crash_event);
            let body = Value::Null;
            crash_case(world, stranger, Method::GET, &path, body, false).await;
        })
    }),
    ("POST /api/crash/projects/{project}/issues/{issue}/resolve", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}/resolve", world.crash_issue);
            let body = json!({});
            crash_case(world, stranger, Method::POST, &path, body, false).await;
        })
    }),
    ("POST /api/crash/projects/{project}/issues/{issue}/unresolve", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}/unresolve", world.crash_issue);
            let body = json!({});
            crash_case(world, stranger, Method::POST, &path, body, false).await;
        })
    }),
    ("POST /api/crash/projects/{project}/issues/{issue}/ignore", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}/ignore", world.crash_issue);
            let body = json!({});
            crash_case(world, stranger, Method::POST, &path, body, false).await;
        })
    }),
    ("POST /api/crash/projects/{project}/issues/{issue}/assign", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}/assign", world.crash_issue);
            let body = json!({"assigned_to": "me"});
            crash_case(world, stranger, Method::POST, &path, body, false).await;
        })
    }),
    ("POST /api/crash/projects/{project}/issues/{issue}/merge", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}/merge", world.crash_issue);
            let body = json!({"issues": [world.crash_issue]});
            crash_case(world, stranger, Method::POST, &path, body, false).await;
        })
    }),
    ("POST /api/crash/projects/{project}/issues/{issue}/unmerge", |world, stranger| {
        Box::pin(async move {
            let path = format!("/issues/{}/unmerge", world.crash_issue);
            let body = json!({"issues": [world.crash_issue]});
            crash_case(world, stranger, Method::POST, &path, body, false).await;
        })
    }),
    ("GET /api/crash/projects/{project}/issues", |world, stranger| {
        Box::pin(async move {
            let path = "/issues?query=is%3Aunresolved";
            crash_case(world, stranger, Method::GET, path, Value::Null, false).await;
        })
    }),
    ("GET /api/crash/issues", |world, stranger| {
        Box::pin(async move {
            let list = stranger.caller.get("/api/crash/issues").await.expect(200);
            assert_eq!(list.json()["issues"], json!([]));
            world.assert_silent(&list);
        })
    }),
    ("GET /api/crash/series", |_, stranger| {
        Box::pin(async move {
            let series = stranger.caller.get("/api/crash/series").await.expect(200).json();
            let points = series["points"].as_array().unwrap();
            assert!(!points.is_empty() && points.iter().all(|point| point["events"] == 0));
        })
    }),
    ("GET /api/crash/projects/{project}/stream", |world, stranger| {
        Box::pin(async move {
            for project in &world.crash_project {
                let path = format!("/api/crash/projects/{project}/stream");
                world.assert_silent(&stranger.caller.get(&path).await.expect(404));
            }
        })
    }),
    ("GET /api/crash/projects/{project}/events/{event}/attachments", |world, stranger| {
        Box::pin(async move {
            let path = format!("/events/{}/attachments", world.crash_event);
            crash_case(world, stranger, Method::GET, &path, Value::Null, false).await;
        })
    }),
    (
        "GET /api/crash/projects/{project}/events/{event}/attachments/{attachment}",
        |world, stranger| {
            Box::pin(async move {
                let path =
                    format!("/events/{}/attachments/{}", world.crash_event, world.crash_file);
                crash_case(world, stranger, Method::GET, &path, Value::Null, false).await;
            })
        },
    ),
    ("GET /api/crash/projects/{project}/events/{event}/feedback", |world, stranger| {
        Box::pin(async move {
            let path = format!("/events/{}/feedback", world.crash_event);
            crash_case(world, stranger, Method::GET, &path, Value::Null, false).await;
        })
    }),
    ("GET /api/repos", |world, stranger| {
        Box::pin(async move {
            let list = stranger.caller.get("/api/repos?limit=200").await.expect(200);
            assert_eq!(list.json()["repositories"], json!([]));
            world.assert_silent(&list);
        })
    }),
    ("POST /api/repos", |world, stranger| {
        Box::pin(async move {
            // The name of one of hers is free to all others.
            let new = json!({"name": "plans-private"});
            let made = stranger.caller.post("/api/repos", &new).await.expect(201);
            world.assert_silent(&made);
            assert_eq!(made.json()["org_id"], stranger.own_org.as_str());
            let path = format!("/api/repos/{}", text(&made.json()["id"]));
            stranger.caller.delete(&path).await;
        })
    }),
    ("GET /api/repos/{id}", |world, stranger| {
        Box::pin(async move {
            for id in &world.repositories {
                let path = format!("/api/repos/{id}");
                world.assert_silent(&stranger.caller.get(&path).await.expect(404));
                // Nor by git, in whose paths the organisation stands.
                for org in world.orgs() {
                    for name in [id.as_str(), "plans-private.git", "plans-organization"] {
                        for service in ["git-upload-pack", "git-receive-pack"] {
                            let path = format!("/git/{org}/{name}/info/refs?service={service}");
                            world.assert_silent(&stranger.caller.get(&path).await.expect(404));
                        }
                    }
                }
            }
        })
    }),
    ("PATCH /api/repos/{id}", |world, stranger| {
        Box::pin(async move {
            for id in &world.repositories {
                let path = format!("/api/repos/{id}");
                for change in [json!({"name": "mine"}), json!({"visibility": "public"})] {
                    world.assert_silent(&stranger.caller.patch(&path, &change).await.expect(404));
                }
            }
        })
    }),
    ("DELETE /api/repos/{id}", |world, stranger| {
        Box::pin(async move {
            for id in &world.repositories {
                let path = format!("/api/repos/{id}");
                world.assert_silent(&stranger.caller.delete(&path).await.expect(404));
            }
        })
    }),
    ("GET /api/repos/{id}/maintenance", |world, stranger| {
        Box::pin(async move {
            for id in &world.repositories {
                let path = format!("/api/repos/{id}/maintenance");
                world.assert_silent(&stranger.caller.get(&path).await.expect(404));
            }
        })
    }),
    ("POST /api/repos/{id}/maintenance", |world, stranger| {
        Box::pin(async move {
            for id in &world.repositories {
                let path = format!("/api/repos/{id}/maintenance");
                world.assert_silent(&stranger.caller.post(&path, &json!({})).await.expect(404));
            }
        })
    }),
];

/// What has nothing of an organisation behind it, and why.
const EXEMPT: &[(&str, &str)] = &[
    ("POST /api/weavers/cleanup", "ends what is out of time in the installation, by its admins"),
    ("POST /api/crons/preview", "works out a schedule that is sent; reads nothing stored"),
    (
        "GET /api/crons/badge/{file}",
        "who has the badge's key may see it, as it is meant for public pages",
    ),
    ("GET /health", "the state of the installation, without names of people or organisations"),
    ("GET /health/live", "says nothing but that the process is up"),
    ("GET /health/ready", "says nothing but which build is ready"),
    ("GET /metrics", "counts by route and model, never by organisation"),
    ("GET /docs", "the guide that the binary was built with, the same for all"),
    ("GET /docs/search", "looks through the guide and nothing else"),
    ("GET /docs/{path}", "a page of the guide; nothing stored"),
    (
        "GET /api/threads/shared/{token}",
        "who has the link may read; it is no member's, and tells no organisation",
    ),
    ("GET /v1/models", "the models of the installation, the same for all"),
    ("GET /v1/models/{id}", "the models of the installation, the same for all"),
    (
        "POST /v1/messages",
        "passes the body on to a provider of the installation; reads nothing stored",
    ),
    ("POST /v1/messages/count_tokens", "as /v1/messages, without an account of it"),
    ("POST /v1/chat/completions", "as /v1/messages"),
    ("POST /v1/responses", "as /v1/messages"),
    ("POST /v1/embeddings", "as /v1/messages"),
    ("POST /proxy/{provider}/complete", "as /v1/messages, in words of our own"),
    ("POST /proxy/{provider}/stream", "as /v1/messages, in words of our own"),
    ("GET /api/admin/health", "the state of the installation, for its admins; see health.rs"),
    (
        "POST /auth/tokens/report",
        "who holds a token may end it, and learns nothing; see auth_report.rs",
    ),
    ("GET /auth/providers", "what is configured in the installation, the same for all"),
    ("GET /auth/login/{provider}", "begins to sign in; nothing of anybody is read"),
    ("GET /auth/{provider}/callback", "signs in as who the provider names; see sign_in/github.rs"),
    ("GET /auth/callback/{provider}", "as the one above"),
    ("POST /auth/magic-link", "the same answer for everybody; see sign_in/magic_link.rs"),
    ("GET /auth/magic-link/verify", "only with the token of a mail; see sign_in/scanner.rs"),
    ("POST /auth/magic-link/verify", "as the one above"),
    ("POST /auth/device/start", "begins to sign in; nothing of anybody is read"),
    ("POST /auth/device/poll", "only with the device code; see sign_in/device.rs"),
    ("POST /auth/device/complete", "acts as the one who is signed in; see sign_in/device.rs"),
    ("GET /auth/ws-token", "stands for the credential of this request; see sign_in/sessions.rs"),
    ("PATCH /api/account", "of a user, who names nothing but themselves"),
    ("POST /api/account/identities/{provider}/connect", "of a user; see sign_in/account.rs"),
    ("GET /api/admin/users", "the users of the installation, for its admins; see auth_admin.rs"),
    ("GET /api/admin/users/{id}", "as /api/admin/users"),
    ("PATCH /api/admin/users/{id}/roles", "as /api/admin/users"),
    ("POST /api/admin/users/{id}/disable", "as /api/admin/users"),
    ("POST /api/admin/users/{id}/enable", "as /api/admin/users"),
    ("GET /api/admin/audit-log", "what was done in the installation, for its admins and auditors"),
    ("GET /api/admin/jobs", "the work of the installation, for its admins; see jobs.rs"),
    (
        "GET /api/self-monitoring/web-config",
        "where the dashboard of the installation reports to, the same for all",
    ),
    ("GET /api/self-monitoring/cli-config", "as /api/self-monitoring/web-config"),
    ("GET /api/admin/jobs/{id}/history", "as /api/admin/jobs"),
    ("GET /api/admin/jobs/{id}/history/days", "as /api/admin/jobs"),
    ("POST /api/admin/jobs/{id}/run", "as /api/admin/jobs"),
    ("POST /api/admin/jobs/{id}/cancel", "as /api/admin/jobs"),
    ("POST /api/admin/jobs/{id}/enable", "as /api/admin/jobs"),
    ("POST /api/admin/jobs/{id}/disable", "as /api/admin/jobs"),
    ("GET /api/admin/llm/providers", "those of the installation, for its admins; see llm/pool.rs"),
    ("GET /api/admin/llm/providers/{provider}/credentials", "as GET /api/admin/llm/providers"),
    ("POST /api/admin/llm/providers/{provider}/credentials", "as GET /api/admin/llm/providers"),
    ("GET /api/admin/llm/providers/{provider}/credentials/{id}", "as GET /api/admin/llm/providers"),
    (
        "PATCH /api/admin/llm/providers/{provider}/credentials/{id}",
        "as GET /api/admin/llm/providers",
    ),
    (
        "DELETE /api/admin/llm/providers/{provider}/credentials/{id}",
        "as GET /api/admin/llm/providers",
    ),
    (
        "POST /api/admin/llm/providers/{provider}/credentials/{id}/enable",
        "as GET /api/admin/llm/providers",
    ),
    (
        "POST /api/admin/llm/providers/{provider}/credentials/{id}/disable",
        "as GET /api/admin/llm/providers",
    ),
    (
        "POST /api/admin/llm/providers/{provider}/credentials/{id}/test",
        "as GET /api/admin/llm/providers",
    ),
    ("GET /api/admin/webhooks", "those of the installation, for its admins; see notify.rs"),
    ("POST /api/admin/webhooks", "as GET /api/admin/webhooks"),
    ("GET /api/admin/webhooks/{id}", "as GET /api/admin/webhooks"),
    ("PATCH /api/admin/webhooks/{id}", "as GET /api/admin/webhooks"),
    ("DELETE /api/admin/webhooks/{id}", "as GET /api/admin/webhooks"),
    ("POST /api/admin/webhooks/{id}/test", "as GET /api/admin/webhooks"),
    ("GET /api/admin/deliveries", "the log of the installation, for its admins; never a content"),
    ("POST /api/admin/deliveries/{id}/retry", "sends again, for admins, what was to be sent"),
    ("POST /api/admin/mail/test", "sends a fixed text, for admins"),
    (
        "POST /api/admin/maintenance/sweep",
        "starts a job of the installation; tells of no repository",
    ),
    ("GET /api/admin/logs", "the log of the installation, for its admins; see logs.rs"),
    (
        "GET /api/crash/stream",
        "a stream: the tests of the crate read it (watchers_of_every_server_…)",
    ),
    ("GET /api/threads/events", "a stream: the tests of the crate read it (nobody_is_told_of_…)"),
    (
        "GET /api/llm/usage/stream",
        "a stream that tells of no request what it was; see llm/usage_stream.rs",
    ),
    ("GET /api/admin/logs/stream", "as /api/admin/logs"),
    ("GET /api/admin/jobs/stream", "as /api/admin/jobs"),
    ("GET /api/live", "asks the other streams, as whoever asks"),
    ("GET /api/admin/replicas", "the servers of the installation, for its admins; see logs.rs"),
];

#[tokio::test]
async fn every_documented_operation_has_a_case_of_isolation_or_a_reason_to_have_none() {
    let documented: BTreeSet<String> = operations().await.iter().map(Operation::name).collect();
    let mut covered = BTreeSet::new();
    let all = CASES.iter().map(|(name, _)| name).chain(EXEMPT.iter().map(|(name, _)| name));
    for name in all {
        assert!(covered.insert((*name).to_owned()), "{name} is there twice");
    }
    for name in &documented {
        assert!(
            covered.contains(name),
            "{name} has no case in CASES: show that members of another organisation get nothing \
             through it (or, if nothing of any organisation is behind it, say why in EXEMPT)"
        );
    }
    for name in &covered {
        assert!(documented.contains(name), "{name} is no operation (any more)");
    }
    assert!(EXEMPT.iter().all(|(_, reason)| reason.len() > 10));
}

#[tokio::test]
async fn strangers_get_nothing_of_another_organisation_and_change_nothing_in_it() {
    let world = World::new().await;
    let strangers = world.strangers().await;
    let before = world.stored().await;
    for (name, case) in CASES {
        for stranger in &strangers {
            println!("{name} by {}", stranger.what);
            case(&world, stranger).await;
            assert_eq!(world.stored().await, before, "{name} by {} changed it", stranger.what);
        }
    }
    // None of this was for want of being there.
    for thread in &world.threads {
        let path = format!("/api/threads/{thread}?org={}", world.ada.org);
        assert_eq!(world.ada.get(&path).await.expect(200).json()["title"], TITLE);
    }
}

#[tokio::test]
async fn naming_another_organisation_is_a_404_on_every_operation() {
    let world = World::new().await;
    let strangers = world.strangers().await;
    let before = world.stored().await;
    for operation in operations().await.iter().filter(|operation| !operation.is_public()) {
        for stranger in &strangers {
            for org in world.orgs() {
                let by_header = stranger.caller.with("x-loom-org", &org);
                let by_query = format!("{}?org={org}", operation.some_path());
                for (caller, path) in
                    [(&by_header, operation.some_path()), (&stranger.caller, by_query)]
                {
                    let request = caller.request(operation.method.clone(), &path);
                    let answer = caller.send(request.json(&json!({}))).await;
                    let what = (operation.name(), stranger.what, &answer);
                    assert_eq!(answer.status, 404, "{what:?}");
                    assert!(answer.text.contains("there is no such organisation"), "{what:?}");
                }
            }
        }
    }
    assert_eq!(world.stored().await, before);
}
