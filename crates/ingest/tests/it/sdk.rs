//! The SDKs that applications have, as they are: what they send arrives.

use std::path::{Path, PathBuf};

use loom_testkit::{
    chromium::{self, Chromium},
    eventually,
    sdk::{node, python},
};
use serde_json::Value;
use tokio::process::Command;

use crate::harness::{Bare, Given, KEY};

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk")
}

/// Runs a program to its end, and gives what it printed.
async fn run(command: &mut Command) -> String {
    let output = command
        .current_dir(scripts())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .env_remove("NODE_OPTIONS")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{told}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn of<'a>(given: &'a [Given], sink: &str) -> Vec<&'a Given> {
    given.iter().filter(|given| given.sink == sink).collect()
}

fn simple(given: &Given) -> String {
    given.id.unwrap().simple().to_string()
}

#[tokio::test]
async fn python_reports_with_brotli_and_with_gzip() {
    for compression in ["br", "gzip"] {
        let bare = Bare::start_with_database().await;
        let printed = run(Command::new(python()).args([
            "-W",
            "ignore",
            "report.py",
            &bare.dsn(),
            compression,
        ]))
        .await;
        let given = bare.given();
        let [event] = of(&given, "event")[..] else { panic!("{given:?}") };
        assert_eq!(simple(event), printed.trim());
        assert!(event.delivery.sdk.as_deref().unwrap().starts_with("sentry.python/"));
        assert!(event.delivery.sent_at.is_some());
        let json = event.json();
        let exception = &json["exception"]["values"][0];
        assert_eq!(
            (&exception["type"], &json["tags"]["flavour"]),
            (&"KeyError".into(), &"python".into())
        );
        assert_eq!(
            (&json["release"], &json["environment"]),
            (&"shop@1.2.3".into(), &"test".into())
        );
        assert_eq!(json["user"]["id"], "7");
        let [file] = of(&given, "attachment")[..] else { panic!("{given:?}") };
        assert_eq!(simple(file), printed.trim());
        assert_eq!(&*file.content, b"line one\nline two\n");
        assert_eq!(file.attachment.as_ref().unwrap().name, "log.txt");
        let runs = of(&given, "check_in");
        let states: Vec<Value> = runs.iter().map(|run| run.json()["status"].clone()).collect();
        assert_eq!(states, ["in_progress", "ok"]);
        assert_eq!(runs[0].json()["monitor_config"]["schedule"]["value"], "0 3 * * *");
        let sessions = of(&given, "session");
        let last = sessions.last().expect("a session").json();
        assert_eq!((&last["status"], &last["errors"]), (&"exited".into(), &1.into()));
    }
}

#[tokio::test]
async fn node_reports_large_and_small_events_sessions_check_ins_and_feedback() {
    let bare = Bare::start_with_database().await;
    let folder = node();
    let mut command = Command::new(folder.join("node"));
    let printed =
        run(command.args(["report.mjs", &bare.dsn()]).env("LOOM_NODE_SDKS", &folder)).await;
    let (small, large) = printed.trim().split_once(' ').unwrap();
    let given = bare.given();
    let events = of(&given, "event");
    let by_id = |id: &str| events.iter().find(|event| simple(event) == id).expect(id).json();
    assert_eq!(events.len(), 2, "{given:?}");
    assert_eq!(by_id(small)["exception"]["values"][0]["value"], "small");
    assert_eq!(by_id(large)["extra"]["text"].as_str().unwrap().len(), 40_000);
    assert_eq!(by_id(small)["tags"]["flavour"], "node");
    assert_eq!(of(&given, "check_in")[0].json()["monitor_slug"], "nightly");
    let feedback = of(&given, "feedback")[0].json();
    assert_eq!(feedback["contexts"]["feedback"]["message"], "It broke");
    let sessions = of(&given, "session");
    assert!(sessions.iter().any(|session| session.json()["status"] == "exited"), "{sessions:?}");
}

#[tokio::test]
async fn rust_reports_a_chain_of_errors_and_the_end_of_its_session() {
    let bare = Bare::start_with_database().await;
    let dsn = bare.dsn();
    let id = tokio::task::spawn_blocking(move || {
        let mut options = sentry::ClientOptions::default();
        options.release = Some("shop@1.2.3".into());
        options.environment = Some("test".into());
        options.auto_session_tracking = true;
        options.session_mode = sentry::SessionMode::Application;
        let guard = sentry::init((dsn, options));
        let inner = std::io::Error::other("the disk is full");
        let outer = std::io::Error::new(std::io::ErrorKind::InvalidData, inner);
        let id = sentry::capture_error(&outer);
        sentry::end_session();
        drop(guard);
        id
    });
    let id = id.await.unwrap();
    let given = eventually(async || {
        let given = bare.peek();
        (!of(&given, "session").is_empty() && !of(&given, "event").is_empty()).then_some(given)
    })
    .await;
    let [event] = of(&given, "event")[..] else { panic!("{given:?}") };
    assert_eq!(event.id.unwrap(), id);
    let values = &event.json()["exception"]["values"];
    assert!(values.to_string().contains("the disk is full"), "{values}");
    assert!(event.delivery.sdk.as_deref().unwrap().starts_with("sentry.rust/"));
    let last = of(&given, "session").last().unwrap().json();
    assert_eq!(last["attrs"]["release"], "shop@1.2.3");
}

/// A page that reports an error as soon as it is opened.
async fn page(options: &Value) -> (String, tokio::task::JoinHandle<()>) {
    loom_testkit::sdk::page(&format!(
        "import * as Sentry from '@sentry/browser';
         Sentry.init({options});
         Sentry.setTag('flavour', 'browser');
         window.reported = Sentry.captureException(new RangeError('in a page'));
         window.sent = await Sentry.flush(10000);"
    ))
    .await
}

async fn report_from_a_page(bare: &Bare, tunnel: bool) -> Vec<Given> {
    let mut options = serde_json::json!({
        "dsn": bare.dsn(), "release": "shop@1.2.3", "environment": "test",
    });
    if tunnel {
        // What the DSN names is not to be asked by the page at all.
        options["dsn"] = format!("https://{KEY}@elsewhere.invalid/42").into();
        options["tunnel"] = format!("{}/api/tunnel/", bare.url).into();
    }
    let (url, serving) = page(&options).await;
    let browser = chromium::find().expect("a browser");
    let id = tokio::task::spawn_blocking(move || {
        let mut browser = Chromium::start(&browser);
        let tab = browser.tab();
        browser.open(&tab, &url);
        browser.until(&tab, "window.sent === true");
        browser.value(&tab, "window.reported").as_str().unwrap().to_owned()
    })
    .await
    .unwrap();
    serving.abort();
    let given = bare.peek();
    let [event] = of(&given, "event")[..] else { panic!("{given:?}") };
    assert_eq!(simple(event), id);
    let json = event.json();
    assert_eq!(json["exception"]["values"][0]["value"], "in a page");
    assert_eq!(
        (&json["tags"]["flavour"], &json["release"]),
        (&"browser".into(), &"shop@1.2.3".into())
    );
    assert!(event.delivery.user_agent.as_deref().unwrap().contains("Chrome"));
    given
}

#[tokio::test]
async fn a_page_reports_to_another_origin() {
    if chromium::find().is_none() {
        return;
    }
    let bare = Bare::start_with_database().await;
    let given = report_from_a_page(&bare, false).await;
    let session = of(&given, "session")[0].json();
    assert_eq!(session["attrs"]["release"], "shop@1.2.3");
}

#[tokio::test]
async fn a_page_reports_through_the_tunnel() {
    if chromium::find().is_none() {
        return;
    }
    let bare = Bare::start_with_database().await;
    report_from_a_page(&bare, true).await;
}
