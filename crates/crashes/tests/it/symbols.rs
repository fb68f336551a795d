//! Symbols in events: from the upload to the stack that is shown.

use loom_testkit::{TestApp, User, eventually};
use serde_json::{Value, json};

use crate::artifacts::{project, symbols, upload};

const DEBUG_ID: &str = "c0bcc3f1-9827-fe65-3058-404b2831d9e6";

async fn capture(user: &User, project: &str, mut event: Value) -> Value {
    event["project_id"] = json!(project);
    user.post("/api/crash/capture", &event).await.expect(200).json()
}

async fn shown(user: &User, captured: &Value) -> Value {
    let id = captured["event_id"].as_str().unwrap();
    user.get(&format!("/api/crash/projects/shop/events/{id}")).await.expect(200).json()
}

/// The frame that crashed, as it is shown.
fn newest(event: &Value) -> Value {
    event["exceptions"][0]["frames"].as_array().unwrap().last().unwrap().clone()
}

fn native(address: &str) -> Value {
    json!({
        "platform": "native",
        "exception": {"values": [{"type": "SIGSEGV", "value": "Segfault", "stacktrace": {"frames": [
            {"instruction_addr": "0x40002000"}, {"instruction_addr": address}]}}]},
        "debug_meta": {"images": [{"type": "elf", "debug_id": DEBUG_ID, "code_file": "/app/crash",
            "image_addr": "0x40000000", "image_size": 65536}]},
    })
}

#[tokio::test]
async fn a_native_crash_is_shown_in_functions_files_and_lines_and_the_addresses_stay_beside() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    upload(&ada, "shop", "crash.sym", symbols(DEBUG_ID), &[]).await.expect(201);
    let captured = capture(&ada, "shop", native("0x40001004")).await;
    let event = shown(&ada, &captured).await;
    let frame = newest(&event);
    assert_eq!(
        (&frame["function"], &frame["filename"], &frame["lineno"]),
        (&json!("boom"), &json!("crash.c"), &json!(3)),
        "{event:#}"
    );
    assert_eq!(frame["symbolication"], json!({"status": "symbolicated", "file": "crash.sym"}));
    let raw = event["exceptions"][0]["raw_frames"].as_array().unwrap();
    assert_eq!(raw.last().unwrap(), &json!({"instruction_addr": "0x40001004"}));
    assert_eq!(event["missing_files"], json!([]));
}

#[tokio::test]
async fn a_file_that_comes_late_is_used_once_its_events_are_processed_again() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    let captured = capture(&ada, "shop", native("0x40001004")).await;
    let event = shown(&ada, &captured).await;
    let frame = newest(&event);
    assert_eq!(frame["symbolication"]["status"], "missing_file");
    assert_eq!(frame["symbolication"]["wanted"], format!("crash {DEBUG_ID}"));
    assert_eq!(event["missing_files"], json!([{"kind": "debug_file", "debug_id": DEBUG_ID}]));

    upload(&ada, "shop", "crash.sym", symbols(DEBUG_ID), &[]).await.expect(201);
    let again = ada.post("/api/crash/projects/shop/artifacts/reprocess", &json!({})).await;
    assert_eq!(again.json()["events"], 1, "{}", again.json());
    let frame = eventually(async || {
        let frame = newest(&shown(&ada, &captured).await);
        (frame["function"] == "boom").then_some(frame)
    })
    .await;
    assert_eq!(frame["lineno"], 3);
}

const MAPPING: &str = "com.example.shop.Cart -> a.b:\n    1:3:void checkout(int):17:19 -> a\ncom.example.shop.TooDearException -> a.c:\n";

#[tokio::test]
async fn the_class_of_a_java_exception_is_shown_as_it_is_in_the_source() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    let made = upload(&ada, "shop", "mapping.txt", MAPPING, &[]).await.expect(201);
    let detail = ada.get(made.header("location").unwrap()).await.expect(200).json();
    let event = json!({
        "platform": "java",
        "exception": {"values": [{"type": "c", "module": "a", "value": "over 100", "stacktrace": {"frames": [
            {"module": "a.b", "function": "a", "lineno": 2, "filename": "SourceFile"}]}}]},
        "debug_meta": {"images": [{"type": "proguard", "uuid": detail["objects"][0]["debug_id"]}]},
    });
    let captured = capture(&ada, "shop", event).await;
    let event = shown(&ada, &captured).await;
    let exception = &event["exceptions"][0];
    assert_eq!(
        (&exception["type"], &exception["module"]),
        (&json!("TooDearException"), &json!("com.example.shop")),
        "{event:#}"
    );
    assert_eq!((&exception["raw_type"], &exception["raw_module"]), (&json!("c"), &json!("a")));
    assert_eq!(newest(&event)["function"], "checkout");
    assert_eq!(event["title"], "TooDearException: over 100");
}

#[tokio::test]
async fn a_minified_script_is_shown_as_its_source_by_release_and_url() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    let map = json!({"version": 3, "sources": ["../src/cart.ts"], "names": ["checkout"],
        "sourcesContent": ["line one\nline two\nline three"], "mappings": "IAECA"});
    let fields = [("release", "shop@1"), ("url", "~/static/app.js.map")];
    upload(&ada, "shop", "app.js.map", map.to_string(), &fields).await.expect(201);
    let event = json!({
        "platform": "javascript",
        "release": "shop@1",
        "exception": {"values": [{"type": "TypeError", "value": "x is undefined", "stacktrace": {"frames": [
            {"abs_path": "https://shop.example/static/app.js", "function": "t", "lineno": 1, "colno": 5}]}}]},
    });
    let captured = capture(&ada, "shop", event).await;
    let event = shown(&ada, &captured).await;
    let frame = newest(&event);
    assert_eq!(frame["abs_path"], "https://shop.example/src/cart.ts", "{event:#}");
    assert_eq!((&frame["lineno"], &frame["context_line"]), (&json!(3), &json!("line three")));
    assert_eq!(frame["pre_context"], json!(["line one", "line two"]));
}
