//! What is the same issue, why, and what of an event is never stored.

use loom_testkit::{TestApp, User};
use serde_json::{Value, json};

async fn app() -> (TestApp, User) {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    ada.post("/api/crash/projects", &json!({"name": "Shop"})).await.expect(201);
    (app, ada)
}

async fn capture(ada: &User, mut event: Value) -> Value {
    event["project_id"] = "shop".into();
    ada.post("/api/crash/capture", &event).await.expect(200).json()
}

fn error(kind: &str, value: &str, function: &str, line: u32) -> Value {
    json!({
        "exception_type": kind, "exception_value": value, "platform": "python",
        "stacktrace": {"frames": [
            {"module": "django.core", "function": "get_response", "in_app": false},
            {"module": "shop.cart", "function": function, "lineno": line},
        ]},
    })
}

async fn rules(ada: &User, rules: Value) {
    ada.patch("/api/crash/projects/shop", &json!({"grouping_rules": rules})).await.expect(200);
}

#[tokio::test]
async fn the_same_fault_is_one_issue_and_another_is_another() {
    let (_app, ada) = app().await;
    let first = capture(&ada, error("ValueError", "order 1 is empty", "total", 3)).await;
    assert_eq!(first["is_new_issue"], true);
    let moved = capture(&ada, error("ValueError", "order 2 is empty", "total", 90)).await;
    assert_eq!(moved["issue_id"], first["issue_id"]);
    assert_eq!(moved["is_new_issue"], false);
    for other in [error("KeyError", "x", "total", 3), error("ValueError", "x", "discount", 3)] {
        assert_ne!(capture(&ada, other).await["issue_id"], first["issue_id"]);
    }
    let named = |name: &str| json!({"message": format!("user {name} of 10.0.0.7 is gone")});
    let message = capture(&ada, named("17")).await;
    assert_eq!(capture(&ada, named("18")).await["issue_id"], message["issue_id"]);
    let mut printed = error("ValueError", "x", "total", 3);
    printed["fingerprint"] = json!(["{{ default }}", "eu"]);
    assert_ne!(capture(&ada, printed).await["issue_id"], first["issue_id"]);
}

#[tokio::test]
async fn why_an_event_is_in_its_issue_is_kept_beside_it() {
    let (app, ada) = app().await;
    capture(&ada, error("ValueError", "order 1 is empty", "Cart.total", 3)).await;
    let rows = app.rows("SELECT algorithm, components FROM crash_grouping_hashes").await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["algorithm"], "loom-1");
    let components = &rows[0]["components"];
    assert_eq!(components["by"], "stack");
    let frames = &components["parts"][0]["frames"];
    assert_eq!(frames[0]["why"], "not of the application");
    assert_eq!(frames[1]["as"], json!({"place": "shop.cart", "function": "total"}));
}

#[tokio::test]
async fn rules_hold_from_the_moment_they_are_set() {
    let (_app, ada) = app().await;
    let wrong = json!({"grouping_rules": [{"match": {"colour": "red"}, "group": "maybe"}]});
    let refused = ada.patch("/api/crash/projects/shop", &wrong).await.expect(422).json();
    let paths: Vec<_> =
        refused["errors"].as_array().unwrap().iter().map(|error| &error["path"]).collect();
    assert_eq!(paths, ["grouping_rules[0].match.colour", "grouping_rules[0].group"]);

    let before = capture(&ada, error("ValueError", "", "total", 1)).await;
    rules(&ada, json!([{"match": {"exception_type": "*Error"}, "fingerprint": ["{{ module }}"], "title": "Cart"}])).await;
    let after = capture(&ada, error("ValueError", "", "total", 1)).await;
    assert_ne!(before["issue_id"], after["issue_id"]);
    let other = capture(&ada, error("KeyError", "", "discount", 1)).await;
    assert_eq!(after["issue_id"], other["issue_id"]);
}

/// All that the database has of events.
async fn stored(app: &TestApp) -> Vec<String> {
    let mut texts = Vec::new();
    for column in ["crash_raw.payload", "crash_events.processed"] {
        let (table, column) = column.split_once('.').unwrap();
        let query = format!("SELECT encode({column}, 'hex') AS bytes FROM {table}");
        for row in app.rows(&query).await {
            let bytes = hex::decode(row["bytes"].as_str().unwrap()).unwrap();
            let bytes = zstd::bulk::decompress(&bytes, 1 << 20).unwrap();
            texts.push(String::from_utf8(bytes).unwrap());
        }
    }
    for table in ["crash_events", "crash_issues", "crash_issue_tags", "crash_grouping_hashes"] {
        for row in app.rows(&format!("SELECT * FROM {table}")).await {
            texts.push(row.to_string());
        }
    }
    texts
}

#[tokio::test]
async fn a_secret_in_an_event_is_nowhere_in_the_database() {
    let (app, ada) = app().await;
    let secret = "zq81HunterHunter2x7";
    let settings = json!({"scrubbing": {"sensitive_fields": ["shoe_size"], "ip": "anonymise", "patterns": ["CUST-\\d+"]}});
    ada.patch("/api/crash/projects/shop", &settings).await.expect(200);
    let mut event =
        error("ValueError", &format!("login with password={secret} of CUST-4711"), "total", 1);
    event["stacktrace"]["frames"][1]["vars"] =
        json!({"db_password": secret, "token": [secret], "n": "keep me"});
    event["request"] = json!({
        "url": format!("https://e.org/a?access_token={secret}"), "headers": {"Authorization": format!("Bearer {secret}")},
        "cookies": {"session": secret}, "data": format!("{{\"password\":\"{secret}\"}}"),
    });
    event["extra"] = json!({"shoeSize": secret, "card": "4111 1111 1111 1111"});
    event["user"] = json!({"id": "7", "ip_address": "203.0.113.77"});
    capture(&ada, event).await;
    let stored = stored(&app).await;
    assert!(stored.iter().any(|text| text.contains("keep me")));
    for gone in [secret, "4111 1111", "203.0.113.77", "CUST-4711"] {
        let found: Vec<_> = stored.iter().filter(|text| text.contains(gone)).collect();
        assert!(found.is_empty(), "{gone}: {found:?}");
    }
    assert!(stored.iter().any(|text| text.contains("203.0.113.0")));
    assert!(stored.iter().any(|text| text.contains("[Filtered]")));

    let wrong = json!({"scrubbing": {"patterns": ["("]}});
    let refused = ada.patch("/api/crash/projects/shop", &wrong).await.expect(422).json();
    assert_eq!(refused["errors"][0]["path"], "scrubbing.patterns[0]");
}
