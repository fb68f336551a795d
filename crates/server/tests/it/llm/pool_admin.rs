//! Credentials as admins see and change them.

use loom_testkit::{Setup, TestApp, User, app::UPSTREAM_KEY, google};
use serde_json::{Value, json};

use super::{GPT, Op, ask};

const PROVIDERS: &str = "/api/admin/llm/providers";

async fn start() -> (TestApp, User) {
    let app = TestApp::start().await;
    let admin = app.admin("root@example.com").await;
    (app, admin)
}

#[tokio::test]
async fn each_kind_is_stored_and_shown_without_what_is_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("assertion").display().to_string();
    let app = Setup::default().set("LOOM_SERVER_LLM_ASSERTION_FILES", &*file).start().await;
    let admin = app.admin("root@example.com").await;
    let account = google::service_account("https://oauth2.googleapis.com/token");
    let kinds = [
        json!({"name": "key", "secret": "sk-very-secret-1234567890"}),
        json!({"name": "oauth", "kind": "oauth", "token_url": "https://auth.example.com/token", "client_id": "c1",
               "client_secret": "cs-very-secret", "refresh_token": "rt-very-secret", "access_token": "at-very-secret", "expires_in": 600}),
        json!({"name": "google", "kind": "google_service_account", "service_account": account}),
        json!({"name": "text", "kind": "google_service_account", "service_account": account.to_string()}),
        json!({"name": "workload", "kind": "workload_identity", "assertion_file": file, "federation_rule_id": "fdrl_1",
               "organization_id": "o1"}),
    ];
    let path = format!("{PROVIDERS}/anthropic/credentials");
    let mut told = String::new();
    for new in &kinds {
        let view = admin.post(&path, new).await.expect(201);
        told += &view.text;
        let location = view.header("location").map(str::to_owned);
        let view = view.json();
        assert_eq!(view["name"], new["name"]);
        assert_eq!(view["kind"], new.get("kind").cloned().unwrap_or(json!("api_key")));
        let id = view["id"].as_str().unwrap();
        assert_eq!(location, Some(format!("{path}/{id}")));
        told += &admin.get(&format!("{path}/{id}")).await.expect(200).text;
    }
    let list = admin.get(&path).await.expect(200);
    told += &list.text;
    let list = list.json();
    assert_eq!(list["credentials"].as_array().unwrap().len(), 6, "the environment's is there too");
    assert_eq!(list["credentials"][0]["source"], "environment");
    assert_eq!(list["credentials"][0]["id"], Value::Null);
    assert_eq!(list["credentials"][1]["last_four"], "7890");
    assert_eq!(list["credentials"][2]["config"]["client_id"], "c1");
    assert!(list["credentials"][2]["token_expires_at"].is_string());
    assert_eq!(list["credentials"][3]["config"]["client_email"], google::CLIENT_EMAIL);
    // Anthropic's own endpoint, as none was given.
    let url = list["credentials"][5]["config"]["token_url"].as_str().unwrap();
    assert!(url.ends_with("/v1/oauth/token"), "{url}");
    told += &format!("{:?}", app.rows("SELECT * FROM audit_log").await);
    for secret in ["very-secret", google::key_line(), UPSTREAM_KEY] {
        assert!(!told.contains(secret), "{secret}");
        for table in app.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").await {
            let table = table["tablename"].as_str().unwrap();
            let all = format!("{:?}", app.rows(&format!("SELECT * FROM \"{table}\"")).await);
            let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
            assert!(!all.contains(secret) && !all.contains(&hex), "{table}");
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused_by_name() {
    let (_app, admin) = start().await;
    let path = format!("{PROVIDERS}/openai/credentials");
    for (new, field) in [
        (json!({}), "secret"),
        (json!({"secret": "a\nb"}), "secret"),
        (json!({"secret": "k", "client_id": "c"}), "client_id"),
        (json!({"secret": "k", "name": ""}), "name"),
        (json!({"secret": "k", "name": "environment"}), "name"),
        (json!({"kind": "oauth", "token_url": "https://a.example/t"}), "refresh_token"),
        (json!({"kind": "oauth", "refresh_token": "r"}), "token_url"),
        (
            json!({"kind": "oauth", "refresh_token": "r", "token_url": "http://a.example/t"}),
            "token_url",
        ),
        (
            json!({"kind": "oauth", "refresh_token": "r", "token_url": "ftp://a.example/t"}),
            "token_url",
        ),
        (
            json!({"kind": "google_service_account", "service_account": {"type": "user"}}),
            "service_account",
        ),
        (json!({"kind": "google_service_account"}), "service_account"),
        (
            json!({"kind": "workload_identity", "token_url": "https://a.example/t", "assertion_file": "/etc/passwd"}),
            "assertion_file",
        ),
    ] {
        let refused = admin.post(&path, &new).await.expect(422);
        let errors = refused.json()["errors"].to_string();
        assert!(errors.contains(&format!("\"{field}\"")), "{new}: {}", refused.text);
    }
    admin.post(&path, &json!({"secret": "k", "nonsense": 1})).await.expect(422);
    let unknown = admin
        .post(&format!("{PROVIDERS}/nobody/credentials"), &json!({"secret": "k"}))
        .await
        .expect(404);
    assert!(unknown.text.contains("anthropic, openai"), "{}", unknown.text);
    admin.post(&path, &json!({"secret": "k"})).await.expect(201);
    assert_eq!(admin.post(&path, &json!({"secret": "k"})).await.expect(409).code(), "conflict");
}

#[tokio::test]
async fn a_credential_is_changed_tested_and_deleted_and_all_of_it_is_in_the_audit_log() {
    let (app, admin) = start().await;
    let path = format!("{PROVIDERS}/openai/credentials");
    let new = json!({"name": "a", "secret": "sk-wrong-99887766554433221100"});
    let id = admin.post(&path, &new).await.expect(201).json()["id"].as_str().unwrap().to_owned();
    let one = format!("{path}/{id}");
    let tested = admin.post(&format!("{one}/test"), &json!({})).await.expect(200).json();
    assert_eq!(tested["ok"], false, "{tested}");
    assert!(tested["message"].as_str().unwrap().contains("401"), "{tested}");
    // The environment's key is a good one.
    let own = format!("{path}/environment/test");
    assert_eq!(admin.post(&own, &json!({})).await.expect(200).json()["ok"], true);
    let change = json!({"name": "b", "secret": UPSTREAM_KEY});
    let view = admin.patch(&one, &change).await.expect(200).json();
    assert_eq!((view["name"].as_str(), view["state"].as_str()), (Some("b"), Some("available")));
    assert_eq!(admin.post(&format!("{one}/test"), &json!({})).await.expect(200).json()["ok"], true);
    ask(&admin, Op::Chat, GPT).await.expect(200);
    // Of another provider there is none of this id.
    let elsewhere = format!("{PROVIDERS}/anthropic/credentials/{id}");
    admin.get(&elsewhere).await.expect(404);
    admin.delete(&elsewhere).await.expect(404);
    admin.post(&format!("{one}/disable"), &json!({"reason": "holiday"})).await.expect(200);
    admin.post(&format!("{one}/enable"), &json!({})).await.expect(200);
    admin.delete(&one).await.expect(204);
    admin.get(&one).await.expect(404);
    let acts = app
        .rows("SELECT action FROM audit_log WHERE action LIKE 'llm_credential.%' ORDER BY at, id")
        .await;
    let acts: Vec<_> = acts.iter().map(|act| act["action"].as_str().unwrap()).collect();
    let expected = ["create", "test", "test", "change", "test", "disable", "enable", "delete"];
    assert_eq!(acts, expected.map(|act| format!("llm_credential.{act}")));
    let providers = admin.get(PROVIDERS).await.expect(200).json();
    assert_eq!(providers["providers"][1]["name"], "openai");
    assert_eq!(providers["providers"][1]["credentials"]["available"], 1, "{providers}");
}

#[tokio::test]
async fn after_a_change_of_the_master_key_the_old_one_is_soon_not_needed() {
    let old = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let new = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
    let setup = |key: &str, previous: &str| {
        Setup::default()
            .set("LOOM_SERVER_OPENAI_API_KEY", "")
            .set("LOOM_SERVER_MASTER_KEY", key)
            .set("LOOM_SERVER_MASTER_KEY_PREVIOUS", previous)
    };
    let app = setup(old, "").start().await;
    let admin = app.admin("root@example.com").await;
    let path = format!("{PROVIDERS}/openai/credentials");
    admin.post(&path, &json!({"secret": UPSTREAM_KEY})).await.expect(201);
    let app = setup(new, old).start_on(app.stop().await).await;
    let app = setup(new, "").start_on(app.stop().await).await;
    let user = app.user("b@example.com").await;
    ask(&user, Op::Chat, GPT).await.expect(200);
}
