//! Minidumps as crash handlers send them, and what comes of them; attachments that are large.
#![cfg(target_arch = "x86_64")]

use std::{fs, process::Command, time::Duration};

use loom_testkit::{Setup, TestApp, User, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::artifacts::{objects, post_form, project, upload};

/// Crashes, and writes a minidump of itself.
const PROGRAM: &str = include_str!("../../../symbolication/tests/fixtures/crash.c");

/// The program, and the dump that it left.
fn crashed() -> (Vec<u8>, Vec<u8>) {
    let (program, mut dumps) = crashed_often(1);
    (program, dumps.remove(0))
}

fn crashed_often(times: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("crash.c"), PROGRAM).unwrap();
    let args =
        "-O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls -Wl,--build-id -o crash crash.c";
    let run = |program: &std::path::Path, args: &[&str]| {
        assert!(Command::new(program).args(args).current_dir(&folder).status().unwrap().success());
    };
    run("gcc".as_ref(), &args.split(' ').collect::<Vec<_>>());
    let dumps = (0..times).map(|_| {
        run(&path("crash"), &["dump"]);
        fs::read(path("dump")).unwrap()
    });
    let dumps = dumps.collect();
    (fs::read(path("crash")).unwrap(), dumps)
}

/// Where clients send to: `/api/{number}`, and the key.
fn target(project: &Value) -> (String, String) {
    let dsn = project["dsn"].as_str().unwrap();
    let key = dsn.split("://").nth(1).unwrap().split('@').next().unwrap();
    (format!("/api/{}", dsn.rsplit('/').next().unwrap()), key.to_owned())
}

async fn send_dump(ada: &User, project: &Value, dump: &[u8]) -> String {
    let (base, key) = target(project);
    let parts = vec![
        ("upload_file_minidump", Some("crash.dmp"), dump.to_vec()),
        ("sentry[release]", None, b"shop@1.0".to_vec()),
        ("sentry[tags][build]", None, b"nightly".to_vec()),
    ];
    let path = format!("{base}/minidump/?sentry_key={key}");
    post_form(ada, &path, parts).await.expect(200).text.trim().to_owned()
}

async fn envelope(ada: &User, project: &Value, body: Vec<u8>) {
    let (base, key) = target(project);
    let path = format!("{base}/envelope/?sentry_key={key}");
    let request = ada.request(Method::POST, &path).body(body);
    ada.send(request.header("content-type", "application/x-sentry-envelope")).await.expect(200);
}

/// The event, once it was processed and is as `wanted` says.
async fn shown(ada: &User, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/api/crash/projects/shop/events/{id}");
    eventually(async || {
        let answer = ada.get(&path).await;
        (answer.status == 200).then(|| answer.json()).filter(|event| wanted(event))
    })
    .await
}

/// Functions of the stack of the crash, newest first.
fn functions(event: &Value) -> Vec<String> {
    let frames = event["exceptions"][0]["frames"].as_array().unwrap();
    let name = |frame: &Value| frame["function"].as_str().unwrap_or("?").to_owned();
    frames.iter().rev().map(name).collect()
}

#[tokio::test]
async fn a_minidump_is_walked_grouped_and_walked_again_when_its_file_comes() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let shop = project(&ada, "Shop").await;
    let (program, dumps) = crashed_often(2);
    let id = send_dump(&ada, &shop, &dumps[0]).await;
    let event = shown(&ada, &id, |_| true).await;
    assert_eq!(event["title"], "SIGSEGV / SEGV_MAPERR: Fatal error at 0x10", "{event:#}");
    assert_eq!((&event["level"], &event["release"]), (&json!("fatal"), &json!("shop@1.0")));
    assert_eq!(event["tags"]["build"], "nightly");
    assert_eq!(event["contexts"]["os"]["name"], "Linux");
    let exception = &event["exceptions"][0];
    assert_eq!(exception["mechanism"]["type"], "minidump");
    assert_eq!(exception["frames"].as_array().unwrap().last().unwrap()["trust"], "context");
    assert_eq!(event["threads"][0]["crashed"], true);
    let lacks = event["missing_files"].as_array().unwrap();
    assert!(lacks.iter().any(|file| file["kind"] == "debug_file"), "{lacks:?}");
    assert_eq!(event["attachments"][0]["kind"], "event.minidump");

    upload(&ada, "shop", "crash", program, &[]).await.expect(201);
    let again = ada.post("/api/crash/projects/shop/artifacts/reprocess", &json!({})).await;
    assert_eq!(again.json()["events"], 1, "{}", again.json());
    let event = shown(&ada, &id, |event| functions(event).contains(&"main".to_owned())).await;
    let found = functions(&event);
    assert_eq!(found[..4], ["crash_here", "middle", "outer", "main"], "{found:?}");
    let frames = event["exceptions"][0]["frames"].as_array().unwrap();
    let newest = frames.last().unwrap();
    assert_eq!((&newest["filename"], &newest["in_app"]), (&json!("crash.c"), &json!(true)));
    assert!(newest["lineno"].as_u64().unwrap() > 100, "{newest}");
    assert_eq!(frames[frames.len() - 2]["trust"], "cfi");

    // The same fault again, at other addresses: the same issue.
    let other = send_dump(&ada, &shop, &dumps[1]).await;
    let other = shown(&ada, &other, |_| true).await;
    assert_eq!(functions(&other)[..4], found[..4]);
    assert_eq!(other["issue"]["short_id"], event["issue"]["short_id"]);
}

#[tokio::test]
async fn a_minidump_in_an_envelope_gives_the_event_beside_it_its_stack() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let shop = project(&ada, "Shop").await;
    let (program, dump) = crashed();
    upload(&ada, "shop", "crash", program, &[]).await.expect(201);
    let id = "9ec79c33ec9942ab8353589fcb2e04dc";
    let event = json!({"event_id": id, "platform": "native", "level": "fatal",
        "user": {"id": "7"}, "contexts": {"os": {"name": "Our Linux"}}});
    let mut body = format!(
        "{{\"event_id\":\"{id}\"}}\n{{\"type\":\"event\"}}\n{event}\n\
         {{\"type\":\"attachment\",\"attachment_type\":\"event.minidump\",\"filename\":\"m.dmp\",\"length\":{}}}\n",
        dump.len()
    )
    .into_bytes();
    body.extend(&dump);
    envelope(&ada, &shop, body).await;
    let event = shown(&ada, id, |_| true).await;
    assert_eq!(functions(&event)[..4], ["crash_here", "middle", "outer", "main"], "{event:#}");
    assert_eq!(event["user"]["id"], "7");
    assert_eq!(event["contexts"]["os"]["name"], "Our Linux");
    assert_eq!(event["contexts"]["device"]["arch"], "x86_64");
}

#[tokio::test]
async fn a_minidump_that_cannot_be_read_costs_its_stack_and_says_why() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let shop = project(&ada, "Shop").await;
    let mut dump = b"MDMP\x93\xa7\0\0".to_vec();
    dump.resize(200, 0);
    let id = send_dump(&ada, &shop, &dump).await;
    let event = shown(&ada, &id, |_| true).await;
    assert_eq!(event["exceptions"][0]["type"], "Minidump");
    let faults = event["faults"].to_string();
    assert!(faults.contains("minidump: cannot be read"), "{faults}");
}

#[tokio::test]
async fn a_large_attachment_lies_in_the_object_store_until_its_retention_is_over() {
    let app = Setup::default().manual_clock().start().await;
    let ada = app.user("ada@example.com").await;
    let shop = project(&ada, "Shop").await;
    let id = "9ec79c33ec9942ab8353589fcb2e04dc";
    let large = "0123456789".repeat(20_000);
    let event = json!({"event_id": id, "message": "hello"});
    let mut body = format!("{{\"event_id\":\"{id}\"}}\n{{\"type\":\"event\"}}\n{event}\n");
    for (name, content) in [("large.log", &*large), ("small.log", "few words")] {
        let length = content.len();
        let head = json!({"type": "attachment", "filename": name, "length": length});
        body.push_str(&format!("{head}\n{content}\n"));
    }
    envelope(&ada, &shop, body.clone().into_bytes()).await;
    // A client that sends it once more leaves nothing behind but what the clean-up removes.
    envelope(&ada, &shop, body.into_bytes()).await;
    let path = format!("/api/crash/projects/shop/events/{id}/attachments");
    let list = ada.get(&path).await.expect(200).json();
    let list = list["attachments"].as_array().unwrap();
    assert_eq!(list.len(), 2);
    for file in list {
        let (name, id) = (file["name"].as_str().unwrap(), file["id"].as_str().unwrap());
        let content = if name == "large.log" { &*large } else { "few words" };
        assert_eq!(file["size_bytes"], content.len(), "{name}");
        let read = ada.get(&format!("{path}/{id}")).await.expect(200);
        assert_eq!(read.text, content, "{name}");
        assert_eq!(read.header("content-length"), Some(&*content.len().to_string()));
    }
    let run = async |job: &str| app.running.features.jobs.run_now(job).await.unwrap();
    run("artifact-cleanup").await;
    assert_eq!(objects(&app), [large.as_bytes()]);
    app.clock.advance(Duration::from_secs(91 * 86_400));
    run("crash-event-cleanup").await;
    run("artifact-cleanup").await;
    assert!(objects(&app).is_empty());
    assert!(app.rows("SELECT id FROM crash_attachments").await.is_empty());
    assert!(app.rows("SELECT location FROM crash_loose_objects").await.is_empty());
}
