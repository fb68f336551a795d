//! API keys: made, shown once, limited, expired, revoked, audited.

use std::time::Duration;

use http::Request;
use loom_auth::Auth;
use loom_core::{
    Clock,
    principal::{Authentication, OrgRole, Scope, Scopes},
};
use loom_notify::Notify;
use loom_testkit::{Answer, Caller, Setup, TestApp, User, eventually};
use serde_json::{Value, json};

const YEAR: u32 = 366 * 24 * 3600;

fn path(user: &User) -> String {
    format!("/api/orgs/{}/api-keys", user.org)
}

fn new(kind: &str) -> Value {
    json!({"name": "laptop", "kind": kind, "scopes": ["threads:read", "admin:read"]})
}

async fn make(by: &Caller, path: &str, key: &Value) -> (Value, Caller) {
    let made = by.post(path, key).await.expect(201).json();
    let caller = by.with_key(made["secret"].as_str().unwrap());
    (made, caller)
}

fn ids(list: &Answer) -> Vec<String> {
    let json = list.json();
    let keys = json["api_keys"].as_array().unwrap();
    keys.iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_key_is_made_shown_once_and_works_with_its_scopes() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    for (kind, prefix) in [("personal", "loom_pat_"), ("service", "loom_svc_")] {
        let answer = ada.post(&path(&ada), &new(kind)).await.expect(201);
        let made = answer.json();
        let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
        assert_eq!(answer.header("location"), Some(format!("{}/{id}", path(&ada)).as_str()));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(secret.starts_with(prefix) && secret.len() == prefix.len() + 36, "{secret}");
        assert_eq!(made["hint"], format!("{prefix}…{}", &secret[secret.len() - 4..]));
        assert_eq!((&made["kind"], &made["name"]), (&json!(kind), &json!("laptop")));
        assert_eq!(made["expires_at"], Value::Null);

        let list = ada.get(&path(&ada)).await.expect(200);
        assert!(!list.text.contains(secret), "{}", list.text);
        let mut shown = made.clone();
        shown.as_object_mut().unwrap().remove("secret");
        assert!(list.json()["api_keys"].as_array().unwrap().contains(&shown), "{}", list.text);

        let caller = ada.with_key(secret);
        let me = caller.get("/auth/me").await.expect(200).json();
        assert_eq!((&me["via"]["id"], &me["scopes"]), (&json!(id), &made["scopes"]));
        caller.get("/api/threads").await.expect(200);
        let refused = caller.post("/api/orgs", &json!({"slug": "x", "name": "X"})).await;
        assert!(refused.expect(403).text.contains("admin:write"));
    }
}

#[tokio::test]
async fn the_database_has_the_digest_of_a_key_and_nowhere_the_key() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let mut secrets = vec![ada.key.clone().unwrap()];
    for kind in ["personal", "service"] {
        let (made, caller) = make(&ada, &path(&ada), &new(kind)).await;
        caller.get("/auth/me").await.expect(200);
        secrets.push(made["secret"].as_str().unwrap().to_owned());
    }
    let tables =
        app.rows("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'").await;
    assert!(tables.len() > 8);
    for table in tables {
        let table = table["name"].as_str().unwrap();
        // Every column in text, bytes also as the characters they may be.
        let dump = format!(
            "SELECT t::text || coalesce((SELECT string_agg(encode(decode(substr(v, 3), 'hex'), 'escape'), ' ') \
               FROM jsonb_each_text(to_jsonb(t)) AS c(k, v) WHERE v ~ '^\\\\x([0-9a-f]{{2}})+$'), '') AS line FROM {table} t"
        );
        for row in app.rows(&dump).await {
            let line = row["line"].as_str().unwrap();
            for secret in &secrets {
                // Neither the whole nor the part that is secret.
                let body = &secret[9..30];
                assert!(!line.contains(body), "{table} has a key in clear: {line}");
            }
        }
    }
    let stored = app.rows("SELECT octet_length(secret_sha256) AS n FROM api_keys").await;
    assert_eq!(stored, vec![json!({"n": 32}); 3]);
}

#[tokio::test]
async fn a_key_cannot_give_scopes_that_it_lacks() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let narrow = app.with_scopes(&ada, &[Scope::AdminWrite, Scope::ThreadsRead]).await;
    let key = |scopes: Value| json!({"name": "k", "kind": "personal", "scopes": scopes});
    narrow.post(&path(&ada), &key(json!(["threads:read"]))).await.expect(201);
    for more in [json!(["threads:write"]), json!(["threads:read", "llm:use"])] {
        let answer = narrow.post(&path(&ada), &key(more)).await.expect(403);
        assert_eq!(answer.code(), "forbidden");
    }
    // And without admin:write none at all.
    let reader = app.with_scopes(&ada, &[Scope::AdminRead, Scope::ThreadsRead]).await;
    reader.post(&path(&ada), &key(json!(["threads:read"]))).await.expect(403);
    reader.get(&path(&ada)).await.expect(200);
    let writer = app.with_scopes(&ada, &[Scope::AdminWrite]).await;
    writer.get(&path(&ada)).await.expect(403);
}

#[tokio::test]
async fn a_key_cannot_lift_its_own_limits_by_changing_itself_or_making_another() {
    let app = Setup::default().manual_clock().start().await;
    let ada = app.user("ada@example.com").await;
    let limited = json!({"name": "k", "kind": "personal", "scopes": ["admin:read", "admin:write"],
        "expires_in_secs": 3600, "allowed_networks": ["127.0.0.0/16"], "monthly_budget_usd": 5});
    let (made, key) = make(&ada, &path(&ada), &limited).await;
    let own = format!("{}/{}", path(&ada), made["id"].as_str().unwrap());
    for (member, wider) in [
        ("expires_in_secs", json!(null)),
        ("expires_in_secs", json!(3601)),
        ("allowed_networks", json!([])),
        ("allowed_networks", json!(["127.0.0.0/8"])),
        ("allowed_networks", json!(["127.0.0.1", "192.0.2.1"])),
        ("monthly_budget_usd", json!(null)),
        ("monthly_budget_usd", json!(6)),
    ] {
        let refused = key.patch(&own, &json!({ member: wider })).await.expect(403);
        assert_eq!(refused.code(), "forbidden", "{member}");
        for kind in ["personal", "service"] {
            let mut another = limited.clone();
            another["kind"] = json!(kind);
            another[member] = wider.clone();
            assert_eq!(key.post(&path(&ada), &another).await.expect(403).code(), "forbidden");
        }
    }
    assert_eq!(ids(&key.get(&path(&ada)).await.expect(200)).len(), 1 + 1);
    // As narrow or narrower is well, and so is what is no limit; who has no limits sets any.
    key.post(&path(&ada), &limited).await.expect(201);
    let narrower = json!({"name": "n", "expires_in_secs": 60, "allowed_networks": ["127.0.0.1"],
        "monthly_budget_usd": 1});
    key.patch(&own, &narrower).await.expect(200);
    key.patch(&own, &json!({"name": "m"})).await.expect(200);
    let open = json!({"expires_in_secs": null, "allowed_networks": [], "monthly_budget_usd": null});
    ada.patch(&own, &open).await.expect(200);
}

#[tokio::test]
async fn what_is_wrong_with_a_new_key_is_told_with_its_path() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    for (member, value, wrong) in [
        ("name", json!(""), "name"),
        ("name", json!("two\nlines"), "name"),
        ("name", json!("n".repeat(101)), "name"),
        ("scopes", json!([]), "scopes"),
        ("scopes", json!(["threads:read", "threads:eat"]), "scopes[1]"),
        ("kind", json!("royal"), "kind"),
        ("expires_in_secs", json!(0), "expires_in_secs"),
        ("expires_in_secs", json!(YEAR + 1), "expires_in_secs"),
        ("expires_in_secs", json!(-1), "expires_in_secs"),
    ] {
        let mut key = new("personal");
        key[member] = value;
        let answer = ada.post(&path(&ada), &key).await.expect(422);
        assert_eq!(answer.code(), "invalid_request");
        assert_eq!(answer.json()["errors"][0]["path"], wrong, "{key}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_key_ends_at_its_time() {
    let app = Setup::default().manual_clock().start().await;
    let ada = app.user("ada@example.com").await;
    let mut key = new("personal");
    key["expires_in_secs"] = json!(3600);
    let (made, caller) = make(&ada, &path(&ada), &key).await;
    assert_eq!(made["expires_at"], "2027-01-15T09:00:00.000Z");
    app.clock.advance(Duration::from_secs(3599));
    caller.get("/auth/me").await.expect(200);
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(caller.get("/auth/me").await.expect(401).code(), "unauthenticated");
    ada.get("/auth/me").await.expect(200);
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_and_no_longer_listed() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    for kind in ["personal", "service"] {
        let (made, caller) = make(&ada, &path(&ada), &new(kind)).await;
        caller.get("/auth/me").await.expect(200);
        let one = format!("{}/{}", path(&ada), made["id"].as_str().unwrap());
        ada.delete(&one).await.expect(204);
        caller.get("/auth/me").await.expect(401);
        assert!(!ada.get(&path(&ada)).await.text.contains(made["id"].as_str().unwrap()));
        // There is no such key any more.
        assert_eq!(ada.delete(&one).await.expect(404).code(), "not_found");
    }
    ada.delete(&format!("{}/nonsense", path(&ada))).await.expect(404);
}

#[tokio::test]
async fn members_see_and_revoke_their_own_keys_and_admins_all() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let team = ada.post("/api/orgs", &json!({"slug": "engines", "name": "E"})).await.expect(201);
    let team = team.json()["id"].as_str().unwrap().parse().unwrap();
    let (bob, eve) = (app.user("bob@example.com").await, app.user("eve@example.com").await);
    app.join(bob.id, team, OrgRole::Member).await;
    app.join(eve.id, team, OrgRole::Admin).await;
    let keys = "/api/orgs/engines/api-keys";
    let id = |(made, _): (Value, Caller)| made["id"].as_str().unwrap().to_owned();
    let of_ada = id(make(&ada, keys, &new("personal")).await);
    let of_team = id(make(&ada, keys, &new("service")).await);
    let of_bob = id(make(&bob, keys, &new("personal")).await);
    let of_eve = id(make(&eve, keys, &new("service")).await);

    // A member makes no key that outlives the membership.
    let refused = bob.post(keys, &new("service")).await.expect(403);
    assert_eq!(refused.code(), "forbidden");

    assert_eq!(ids(&bob.get(keys).await.expect(200)), std::slice::from_ref(&of_bob));
    for admin in [&ada, &eve] {
        let all = ids(&admin.get(keys).await.expect(200));
        // Newest first.
        assert_eq!(all, [&of_eve, &of_bob, &of_team, &of_ada].map(String::clone));
    }
    for other in [&of_ada, &of_team, &of_eve] {
        bob.delete(&format!("{keys}/{other}")).await.expect(404);
    }
    bob.delete(&format!("{keys}/{of_bob}")).await.expect(204);
    eve.delete(&format!("{keys}/{of_ada}")).await.expect(204);
    assert_eq!(ids(&ada.get(keys).await.expect(200)), [of_eve, of_team]);
}

#[tokio::test]
async fn the_list_of_keys_is_walked_page_by_page() {
    let app = Setup::default().manual_clock().start().await;
    let ada = app.user("ada@example.com").await;
    let mut made = Vec::new();
    for _ in 0..4 {
        // Two at a time in the same instant.
        if made.len() % 2 == 0 {
            app.clock.advance(Duration::from_secs(1));
        }
        made.push(
            make(&ada, &path(&ada), &new("personal")).await.0["id"].as_str().unwrap().to_owned(),
        );
    }
    let (mut seen, mut next) = (Vec::new(), String::new());
    for _ in 0..5 {
        let page = ada.get(&format!("{}?limit=1{next}", path(&ada))).await.expect(200);
        assert_eq!(ids(&page).len(), 1);
        seen.extend(ids(&page));
        match page.json()["next_cursor"].as_str() {
            Some(cursor) => next = format!("&cursor={cursor}"),
            None => break,
        }
    }
    // With the one that `user` made.
    assert_eq!(seen.len(), 5);
    let mut newest = made.clone();
    newest.sort_by_key(|id| (made.iter().position(|m| m == id).unwrap() / 2, id.clone()));
    newest.reverse();
    assert_eq!(seen[..4], newest);
}

/// A replica that has never seen a key, with a time of its own: does it know whose it is?
async fn is_known(app: &TestApp, clock: &Clock, key: &str) -> bool {
    let pool = app.database.pool();
    let notify = Notify::silent(pool.clone(), clock.clone(), &[]).unwrap();
    let auth = Auth::new(pool.clone(), clock.clone(), notify, Default::default()).unwrap();
    let (request, ()) = Request::get("/").header("x-api-key", key).body(()).unwrap().into_parts();
    matches!(auth.authenticate(&request).await, Authentication::Known(_))
}

/// Notes of each statement that updates keys how many rows it changed.
const NOTE_UPDATES: &str = "
    CREATE TABLE updates (n bigserial, changed bigint);
    CREATE FUNCTION note_update() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO updates (changed) SELECT count(*) FROM changed; RETURN NULL; END';
    CREATE TRIGGER note AFTER UPDATE ON api_keys REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION note_update()";

#[tokio::test]
async fn the_last_use_of_a_key_is_noted_at_most_once_in_five_minutes() {
    let app = TestApp::start().await;
    let clock = Clock::manual("2027-03-01T10:00:00Z".parse().unwrap());
    app.user("ada@example.com").await;
    sqlx::raw_sql(NOTE_UPDATES).execute(app.database.pool()).await.unwrap();
    let auth = &app.running.features.auth;
    let key = auth.key_for("ada@example.com", Scopes::all(), None).await.unwrap();
    let noted = async || {
        let query = format!("SELECT last_used_at FROM api_keys WHERE id = '{}'", key.id);
        app.rows(&query).await[0]["last_used_at"].clone()
    };
    assert_eq!(noted().await, Value::Null);
    let mut updates = Vec::new();
    // (seconds on, rows written, time noted)
    for (secs, changed, at) in [
        (0, 1, "2027-03-01T10:00:00+00:00"),
        (299, 0, "2027-03-01T10:00:00+00:00"),
        (2, 1, "2027-03-01T10:05:01+00:00"),
    ] {
        clock.advance(Duration::from_secs(secs));
        assert!(is_known(&app, &clock, key.secret.expose()).await);
        if changed > 0 {
            updates.push(json!({ "changed": changed }));
        }
        // It is noted behind the answer.
        let seen = eventually(async || {
            let seen = app.rows("SELECT changed FROM updates ORDER BY n").await;
            (seen.len() == updates.len()).then_some(seen)
        })
        .await;
        assert_eq!(seen, updates);
        assert_eq!(noted().await, at);
    }
}

#[tokio::test]
async fn the_key_of_a_disabled_user_is_refused() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    sqlx::query("UPDATE users SET disabled_at = now() WHERE id = $1")
        .bind(ada.id.0)
        .execute(app.database.pool())
        .await
        .unwrap();
    assert_eq!(ada.get("/auth/me").await.expect(401).code(), "unauthenticated");
    assert_eq!(ada.get("/api/threads").await.expect(401).code(), "unauthenticated");
}

#[tokio::test]
async fn making_and_revoking_keys_is_in_the_audit_without_their_secrets() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let secret_of_cli = ada.key.clone().unwrap();
    let (made, _) = make(&ada.with("x-request-id", "req-1"), &path(&ada), &new("service")).await;
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let one = format!("{}/{id}", path(&ada));
    ada.with("x-request-id", "req-2").delete(&one).await.expect(204);
    // What was refused changes nothing and is not recorded as done.
    ada.delete(&one).await.expect(404);

    let rows = app.rows("SELECT * FROM audit_log ORDER BY at, id").await;
    let all = serde_json::to_string(&rows).unwrap();
    for secret in [secret, &secret_of_cli] {
        assert!(!all.contains(&secret[9..30]), "{all}");
    }
    let shown: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!([
                row["action"],
                row["actor_kind"],
                row["actor_name"],
                row["via"],
                row["target"],
                row["ip"],
                row["request_id"],
                row["outcome"]
            ])
        })
        .collect();
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert_eq!(shown[0][0], "api_key.create");
    assert_eq!(shown[0][1], "system");
    let by_ada = |action: &str, request: &str| {
        json!([action, "user", "ada@example.com", "api_key", id, "127.0.0.1", request, "success"])
    };
    assert_eq!(shown[1], by_ada("api_key.create", "req-1"));
    assert_eq!(shown[2], by_ada("api_key.revoke", "req-2"));
    assert_eq!(rows[1]["actor_id"], json!(ada.id));
    assert_eq!(rows[1]["org_id"], json!(ada.org));
    assert_eq!(rows[1]["details"]["kind"], "service");
}

#[tokio::test]
async fn a_key_is_also_good_as_the_password_of_basic_under_any_name() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let key = ada.key.clone().unwrap();
    let ask = async |user: &str, password: &str| {
        let caller = app.anonymous();
        let request = caller.request(reqwest::Method::GET, "/auth/me");
        caller.send(request.basic_auth(user, Some(password))).await
    };
    for user in ["", "ada", "x-token", "ada@example.com"] {
        let me = ask(user, &key).await.expect(200).json();
        assert_eq!(me["user"]["email"], "ada@example.com", "{user}");
    }
    // The key in the wrong place, or with something before it.
    ask(&key, "").await.expect(401);
    ask("ada", &format!("x:{key}")).await.expect(401);
    let broken = app.anonymous().with("authorization", "Basic %%%");
    broken.get("/auth/me").await.expect(401);
}
