//! The audit log: read, filtered, exported; never changed; kept by the month.

use std::time::Duration;

use chrono::Datelike;
use loom_core::principal::OrgRole;
use loom_jobs::RunStatus;
use loom_testkit::{Caller, Setup, TestApp, User, eventually};
use serde_json::{Value, json};

async fn actions(who: &Caller, path: &str) -> Vec<String> {
    let page = who.get(path).await.expect(200).json();
    let entries = page["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry["action"].as_str().unwrap().to_owned()).collect()
}

async fn make_key(user: &User) -> Value {
    let new = json!({"name": "k", "kind": "service", "scopes": ["threads:read"]});
    user.post(&format!("/api/orgs/{}/api-keys", user.org), &new).await.expect(201).json()
}

#[tokio::test]
async fn admins_and_auditors_read_all_of_it_filtered_page_by_page() {
    let app = TestApp::start().await;
    let (chief, ada) = (app.admin("chief@example.com").await, app.user("ada@example.com").await);
    let auditor = app.user("auditor@example.com").await;
    let path = format!("/api/admin/users/{}/roles", auditor.id);
    chief.patch(&path, &json!({"auditor": true})).await.expect(200);
    let key = make_key(&ada).await;
    let id = key["id"].as_str().unwrap();
    ada.delete(&format!("/api/orgs/{}/api-keys/{id}", ada.org)).await.expect(204);
    ada.get("/api/admin/audit-log").await.expect(403);
    // What was denied is on record, beside the answer.
    let denied = "/api/admin/audit-log?outcome=denied";
    eventually(async || (actions(&chief, denied).await.len() == 1).then_some(())).await;
    assert_eq!(actions(&auditor, denied).await, ["access.deny"]);

    let all = "/api/admin/audit-log";
    for (filter, expected) in [
        (format!("target={id}"), vec!["api_key.revoke", "api_key.create"]),
        (format!("actor={}&action=api_key.", ada.id), vec!["api_key.revoke", "api_key.create"]),
        (format!("org_id={}&action=api_key.revoke", ada.org), vec!["api_key.revoke"]),
        ("action=user.".to_owned(), vec!["user.change_roles"]),
        ("ip=192.0.2.1".to_owned(), vec![]),
        ("ip=127.0.0.1&action=user.".to_owned(), vec!["user.change_roles"]),
        ("from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z".to_owned(), vec![]),
        ("outcome=failed".to_owned(), vec![]),
        (format!("credential={}", uuid::Uuid::nil()), vec![]),
    ] {
        assert_eq!(actions(&auditor, &format!("{all}?{filter}")).await, expected, "{filter}");
    }
    let entry = &auditor.get(&format!("{all}?target={id}")).await.json()["entries"][0];
    assert_eq!(entry["actor_name"], "ada@example.com");
    let by = entry["credential_id"].as_str().unwrap();
    assert!(actions(&auditor, &format!("{all}?credential={by}")).await.len() >= 2);
    for wrong in ["outcome=nice", "from=0001-01-01T00:00:00Z", "action=%00", "actor=me"] {
        let status = auditor.get(&format!("{all}?{wrong}")).await.status;
        assert!(status == 422 || status == 400, "{wrong}: {status}");
    }
    let (mut seen, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = auditor.get(&format!("{all}?{query}")).await.expect(200).json();
        seen.extend(page["entries"].as_array().unwrap().iter().map(|e| e["id"].to_string()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        auditor.get(&format!("{all}?{query}&cursor={cursor}&outcome=denied")).await.expect(400);
        query = format!("limit=2&cursor={cursor}");
    }
    assert_eq!(seen.len(), app.rows("SELECT 1 FROM audit_log").await.len());
}

#[tokio::test]
async fn an_export_has_every_entry_on_a_line_of_its_own() {
    let app = TestApp::start().await;
    let chief = app.admin("chief@example.com").await;
    // More than is read at a time, many of the same moment.
    sqlx::query(
        "INSERT INTO audit_log (id, at, actor_kind, actor_name, via, action, target, outcome)
         SELECT gen_random_uuid(), now() - (n / 100) * interval '1 second', 'system', '', 'system', 'test.fill', n::text, 'success'
           FROM generate_series(1, 1234) n",
    )
    .execute(app.database.pool())
    .await
    .unwrap();
    let path = "/api/admin/audit-log?action=test.&format=ndjson";
    let export = chief.get(path).await.expect(200);
    assert_eq!(export.header("content-type"), Some("application/x-ndjson"));
    let mut targets: Vec<u32> = export
        .text
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["target"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    targets.sort_unstable();
    assert_eq!(targets, (1..=1234).collect::<Vec<_>>());
    assert_eq!(
        actions(&chief, "/api/admin/audit-log?action=audit_log.").await,
        ["audit_log.export"]
    );
    let nothing = chief.get("/api/admin/audit-log?action=nothing&format=ndjson").await.expect(200);
    assert_eq!(nothing.text, "");
}

#[tokio::test]
async fn an_organisations_admins_read_their_own_part() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user("ada@example.com").await, app.user("bob@example.com").await);
    make_key(&bob).await;
    make_key(&ada).await;
    let own = format!("/api/orgs/{}/audit-log", ada.org);
    let shown = actions(&ada, &own).await;
    assert!(shown.iter().all(|action| action == "api_key.create") && shown.len() == 2, "{shown:?}");
    assert!(actions(&ada, &format!("{own}?org_id={}", bob.org)).await.is_empty());
    let lines = ada.get(&format!("{own}?format=ndjson")).await.expect(200).text;
    assert!(!lines.contains("bob@") && lines.contains("ada@"), "{lines}");
    let team = json!({"slug": "engines", "name": "Engines"});
    let team = ada.post("/api/orgs", &team).await.expect(201).json()["id"].clone();
    let team = team.as_str().unwrap();
    app.join(bob.id, team.parse().unwrap(), OrgRole::Member).await;
    bob.get(&format!("/api/orgs/{team}/audit-log")).await.expect(403);
}

#[tokio::test]
async fn nobody_changes_what_is_on_record() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    make_key(&ada).await;
    let before = app.rows("SELECT * FROM audit_log ORDER BY id").await;
    assert!(!before.is_empty());
    for statement in [
        "UPDATE audit_log SET actor_name = 'nobody'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "TRUNCATE audit_log_default",
        "DELETE FROM audit_log_default",
    ] {
        let error = sqlx::query(statement).execute(app.database.pool()).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{statement}: {error}");
    }
    assert_eq!(app.rows("SELECT * FROM audit_log ORDER BY id").await, before);
}

#[tokio::test]
async fn bad_credentials_are_on_record_without_their_text_and_cannot_flood_it() {
    let app = Setup::default().manual_clock().start().await;
    let ada = app.user("ada@example.com").await;
    let key = make_key(&ada).await;
    let secret = key["secret"].as_str().unwrap();
    let one = format!("/api/orgs/{}/api-keys/{}", ada.org, key["id"].as_str().unwrap());
    ada.delete(&one).await.expect(204);
    let robot = ada.with_key(secret);
    for _ in 0..30 {
        robot.get("/api/threads").await.expect(401);
    }
    let query =
        "SELECT org_id, target, ip, details FROM audit_log WHERE action = 'credential.refuse'";
    let rows = eventually(async || {
        let rows = app.rows(query).await;
        (rows.len() >= 10).then_some(rows)
    })
    .await;
    assert_eq!(rows.len(), 10);
    let expected = json!({"org_id": ada.org, "target": key["id"], "ip": "127.0.0.1", "details": {"reason": "revoked"}});
    assert_eq!(rows[0], expected);
    let all = serde_json::to_string(&app.rows("SELECT * FROM audit_log").await).unwrap();
    assert!(!all.contains(&secret[9..30]), "{all}");
}

async fn run_job(app: &TestApp, id: &str) {
    let ended = app.running.features.jobs.run_now(id).await.unwrap();
    assert_eq!(ended.status, RunStatus::Succeeded, "{ended:?}");
}

async fn partition_of(app: &TestApp, action: &str) -> Vec<String> {
    let query = format!(
        "SELECT DISTINCT tableoid::regclass::text AS p FROM audit_log WHERE action = '{action}'"
    );
    let mut names: Vec<String> =
        app.rows(&query).await.iter().map(|row| row["p"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn months_are_made_ahead_and_rows_that_came_before_them_move_in() {
    let app = Setup::default().manual_clock().start().await;
    let ada = app.user("ada@example.com").await;
    make_key(&ada).await;
    let made =
        app.rows("SELECT * FROM audit_log WHERE action = 'api_key.create' ORDER BY id").await;
    assert_eq!(partition_of(&app, "api_key.create").await, ["audit_log_default"]);
    run_job(&app, "partition-maintenance").await;
    let month = |months: u32| {
        let now = app.clock.now().date_naive().with_day(1).unwrap();
        let month = now.checked_add_months(chrono::Months::new(months)).unwrap();
        format!("audit_log_{}", month.format("%Y_%m"))
    };
    assert_eq!(partition_of(&app, "api_key.create").await, [month(0)]);
    let moved =
        app.rows("SELECT * FROM audit_log WHERE action = 'api_key.create' ORDER BY id").await;
    assert_eq!(moved, made);
    for n in 0..=3 {
        let name = month(n);
        let there = format!("SELECT 1 FROM pg_class WHERE relname = '{name}'");
        assert_eq!(app.rows(&there).await.len(), 1, "{name}");
        for statement in [format!("TRUNCATE {name}"), format!("DELETE FROM {name}")] {
            let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone()))
                .execute(app.database.pool())
                .await;
            let refused = done.is_err_and(|error| error.to_string().contains("append-only"));
            // A DELETE that finds no row asks no row trigger.
            assert!(refused || statement.starts_with("DELETE") && n > 0, "{statement}");
        }
    }
    // What comes next month goes where it belongs, and the default partition is guarded as before.
    app.clock.advance(Duration::from_secs(31 * 24 * 3600));
    make_key(&ada).await;
    assert_eq!(partition_of(&app, "api_key.create").await, [month(0), made_month(&made)].sorted());
    run_job(&app, "partition-maintenance").await;
    sqlx::query("TRUNCATE audit_log_default").execute(app.database.pool()).await.unwrap_err();
}

fn made_month(made: &[Value]) -> String {
    let at = made[0]["at"].as_str().unwrap();
    format!("audit_log_{}_{}", &at[..4], &at[5..7])
}

trait Sorted {
    fn sorted(self) -> Self;
}

impl<const N: usize> Sorted for [String; N] {
    fn sorted(mut self) -> Self {
        self.sort();
        self
    }
}

#[tokio::test]
async fn months_older_than_the_retention_go_and_no_others() {
    let app =
        Setup::default().manual_clock().set("LOOM_SERVER_AUDIT_RETENTION_DAYS", "60").start().await;
    // 2027-01-15, by the clock of the test; in the default partition all of them.
    for at in [
        "2026-10-31T23:59:59Z",
        "2026-11-01T00:00:00Z",
        "2026-11-16T10:00:00Z",
        "2027-01-02T00:00:00Z",
    ] {
        sqlx::query(
            "INSERT INTO audit_log (id, at, actor_kind, actor_name, via, action, target, outcome)
             VALUES (gen_random_uuid(), $1::text::timestamptz, 'system', '', 'system', 'test.fill', $1, 'success')",
        )
        .bind(at)
        .execute(app.database.pool())
        .await
        .unwrap();
    }
    let left = async || {
        app.rows("SELECT target FROM audit_log WHERE action = 'test.fill' ORDER BY at").await
    };
    run_job(&app, "audit-cleanup").await;
    // Sixty days before is in November: the whole month stays.
    assert_eq!(left().await.len(), 3);
    assert_eq!(left().await[0]["target"], "2026-11-01T00:00:00Z");
    let dropped =
        app.rows("SELECT target FROM audit_log WHERE action = 'audit_log.drop_month'").await;
    assert_eq!(dropped, [json!({"target": "2026-10"})]);
    app.clock.advance(Duration::from_secs(16 * 24 * 3600));
    run_job(&app, "audit-cleanup").await;
    assert_eq!(left().await.len(), 1);
}
