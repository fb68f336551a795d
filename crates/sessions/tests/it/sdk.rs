//! Sessions as the SDKs send them, through the whole server: each in the class it should be in.

use std::process::Output;

use loom_testkit::{
    Setup,
    chromium::{self, Chromium},
    eventually,
    sdk::{node, page, python},
};
use serde_json::Value;
use tokio::process::Command;

use crate::harness::Rig;

async fn rig() -> (Rig, String) {
    let rig = Rig::with(Setup::default()).await;
    let host = rig.app.running.address;
    let dsn = format!("http://{}@{host}/{}", rig.key, rig.project.number);
    (rig, dsn)
}

async fn run(command: &mut Command) -> Output {
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .env_remove("NODE_OPTIONS")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

async fn becomes(rig: &Rig, release: &str, counts: [i64; 5]) {
    let mut last = [0; 5];
    let became = tokio::time::timeout(
        std::time::Duration::from_secs(20),
        eventually(async || {
            last = rig.counts(release).await;
            (last == counts).then_some(())
        }),
    )
    .await;
    assert!(became.is_ok(), "{release}: {last:?}, not {counts:?}");
}

const PYTHON: &str = r#"
import sys, sentry_sdk
from sentry_sdk.sessions import track_session
dsn, case = sys.argv[1:]
sentry_sdk.init(dsn, release=case, environment="test", auto_session_tracking=True)
sentry_sdk.set_user({"id": "7"})
scope = sentry_sdk.get_isolation_scope()
if case.startswith("requests"):
    for n in range(5):
        with sentry_sdk.isolation_scope() as scope:
            with track_session(scope, session_mode="request"):
                if n == 0:
                    sentry_sdk.capture_exception(ValueError("x"))
else:
    with track_session(scope, session_mode="application"):
        if case == "errored":
            sentry_sdk.capture_exception(ValueError("x"))
        if case == "unhandled":
            event = {"exception": {"values": [{"type": "E", "mechanism": {"type": "x", "handled": False}}]}, "level": "error"}
            sentry_sdk.capture_event(event)
sentry_sdk.flush(10)
"#;

#[tokio::test]
async fn python_tells_of_applications_and_of_requests() {
    let (rig, dsn) = rig().await;
    for (case, counts) in [
        ("well", [1, 0, 0, 0, 0]),
        ("errored", [0, 1, 0, 0, 0]),
        ("unhandled", [0, 0, 0, 0, 1]),
        ("requests", [4, 1, 0, 0, 0]),
    ] {
        let mut command = Command::new(python());
        let output = run(command.args(["-W", "ignore", "-c", PYTHON, &dsn, case])).await;
        assert!(output.status.success(), "{output:?}");
        becomes(&rig, case, counts).await;
    }
}

const NODE: &str = r#"
import { createRequire } from "node:module";
const require = createRequire(process.env.LOOM_NODE_SDKS + "/");
const Sentry = require("@sentry/node");
const [dsn, release] = process.argv.slice(2);
Sentry.init({ dsn, release, environment: "test" });
if (release === "errored") Sentry.captureException(new Error("x"));
if (release === "crashed") setTimeout(() => { throw new Error("x"); }, 50);
else if (release === "rejected") { Promise.reject(new Error("x")); setTimeout(() => Sentry.flush(10000), 200); }
else { await Sentry.flush(10000); Sentry.endSession(); await Sentry.flush(10000); process.exit(0); }
"#;

#[tokio::test]
async fn node_tells_of_what_ended_well_of_errors_and_of_a_crash() {
    let (rig, dsn) = rig().await;
    let folder = node();
    let dir = std::env::temp_dir().join(format!("loom-sessions-{}.mjs", rig.project.id));
    std::fs::write(&dir, NODE).unwrap();
    for (case, counts) in [
        ("well", [1, 0, 0, 0, 0]),
        ("errored", [0, 1, 0, 0, 0]),
        ("rejected", [0, 0, 0, 0, 1]),
        ("crashed", [0, 0, 0, 0, 1]),
    ] {
        let mut command = Command::new(folder.join("node"));
        let output = run(command.arg(&dir).args([&dsn, case]).env("LOOM_NODE_SDKS", &folder)).await;
        assert_eq!(output.status.success(), case != "crashed", "{output:?}");
        becomes(&rig, case, counts).await;
    }
    std::fs::remove_file(&dir).unwrap();
    let list: Value = rig.get("/api/app-sessions?project=shop&class=crashed").await;
    assert_eq!(list["sessions"].as_array().unwrap().len(), 2);
}

/// What a page does once its session has begun.
const PAGES: [(&str, &str, [i64; 5]); 4] = [
    ("well", "", [1, 0, 0, 0, 0]),
    ("errored", "Sentry.captureException(new Error('x'));", [0, 1, 0, 0, 0]),
    // A page goes on after it.
    ("thrown", "setTimeout(() => { throw new Error('x'); }, 0);", [0, 0, 1, 0, 0]),
    ("rejected", "Promise.reject(new Error('x'));", [0, 0, 1, 0, 0]),
];

#[tokio::test]
async fn a_page_tells_of_what_went_well_of_errors_and_of_what_nobody_caught() {
    let Some(browser) = chromium::find() else { return };
    let (rig, dsn) = rig().await;
    for (case, what, counts) in PAGES {
        let (url, serving) = page(&format!(
            "import * as Sentry from '@sentry/browser';
             Sentry.init({{dsn: '{dsn}', release: '{case}', environment: 'test'}});
             {what}
             await new Promise(resolve => setTimeout(resolve, 100));
             window.sent = await Sentry.flush(10000);"
        ))
        .await;
        let browser = browser.clone();
        tokio::task::spawn_blocking(move || {
            let mut browser = Chromium::start(&browser);
            let tab = browser.tab();
            browser.open(&tab, &url);
            browser.until(&tab, "window.sent === true");
        })
        .await
        .unwrap();
        becomes(&rig, case, counts).await;
        serving.abort();
    }
}

/// What a program in Rust does in the session of an application.
fn program(case: &str) {
    match case {
        "errored" => {
            sentry::capture_error(&std::io::Error::other("the disk is full"));
            sentry::end_session();
        }
        "crashed" => {
            let mut event = sentry::protocol::Event::default();
            let exception = sentry::protocol::Exception {
                ty: "panic".to_owned(),
                mechanism: Some(sentry::protocol::Mechanism {
                    ty: "panic".to_owned(),
                    handled: Some(false),
                    ..Default::default()
                }),
                ..Default::default()
            };
            event.exception.values.push(exception);
            sentry::capture_event(event);
            sentry::end_session();
        }
        "abnormal" => {
            sentry::end_session_with_status(sentry::protocol::SessionStatus::Abnormal);
        }
        "requests" => {
            for n in 0..5 {
                sentry::start_session();
                if n == 0 {
                    sentry::capture_error(&std::io::Error::other("no"));
                }
                sentry::end_session();
            }
        }
        // Ended by the guard, as at the end of `main`.
        _ => {}
    }
}

#[tokio::test]
async fn rust_tells_of_applications_in_each_class_and_of_requests() {
    let (rig, dsn) = rig().await;
    for (case, counts) in [
        ("well", [1, 0, 0, 0, 0]),
        ("errored", [0, 1, 0, 0, 0]),
        ("crashed", [0, 0, 0, 0, 1]),
        ("abnormal", [0, 0, 0, 1, 0]),
        ("requests", [4, 1, 0, 0, 0]),
    ] {
        let dsn = dsn.clone();
        tokio::task::spawn_blocking(move || {
            let mut options = sentry::ClientOptions::default();
            options.release = Some(case.into());
            options.environment = Some("test".into());
            let of_requests = case == "requests";
            options.auto_session_tracking = !of_requests;
            options.session_mode = if of_requests {
                sentry::SessionMode::Request
            } else {
                sentry::SessionMode::Application
            };
            let guard = sentry::init((dsn, options));
            program(case);
            drop(guard);
        })
        .await
        .unwrap();
        becomes(&rig, case, counts).await;
    }
}
