//! The real sentry-cli, 2 and 3, against the server.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use loom_symbolication::Wanted;
use loom_testkit::{TestApp, User, sdk::sentry_cli};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::artifacts::{find, project};

struct Cli {
    major: u32,
    program: PathBuf,
    folder: tempfile::TempDir,
    url: String,
    token: String,
    org: String,
    dsn: String,
}

impl Cli {
    fn new(app: &TestApp, user: &User, major: u32, project: &Value) -> Self {
        Self {
            major,
            program: sentry_cli(major),
            folder: tempfile::tempdir().unwrap(),
            url: app.url(),
            token: user.key.clone().unwrap(),
            org: user.org.to_string(),
            dsn: project["dsn"].as_str().unwrap().to_owned(),
        }
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("NO_PROXY", "*")
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.command(&self.program)
            .args(arguments)
            .env("SENTRY_URL", &self.url)
            .env("SENTRY_AUTH_TOKEN", &self.token)
            .env("SENTRY_ORG", &self.org)
            .env("SENTRY_PROJECT", "shop")
            .env("SENTRY_DSN", &self.dsn)
            .env("SENTRY_DISABLE_UPDATE_CHECK", "1")
            .output()
            .await
            .unwrap()
    }

    /// What it says, when it is content.
    async fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "sentry-cli {} {arguments:?}: {told}\n{errors}",
            self.major
        );
        told + &errors
    }

    /// What it complains of.
    async fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success(), "sentry-cli {} {arguments:?}: {told}", self.major);
        told + &String::from_utf8_lossy(&output.stderr)
    }

    async fn git(&self, arguments: &[&str]) {
        let mut command = self.command(Path::new("git"));
        command.args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]).args(arguments);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
    }
}

async fn each(test: impl AsyncFn(&TestApp, &User, &Value, Cli)) {
    for major in [2, 3] {
        let app = TestApp::start().await;
        let ada = app.user("ada@example.com").await;
        let shop = project(&ada, "Shop").await;
        let cli = Cli::new(&app, &ada, major, &shop);
        test(&app, &ada, &shop, cli).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn info_tells_who_is_asking_and_a_bad_token_is_said_to_be_one() {
    each(async |_, _, _, mut cli| {
        let told = cli.ok(&["info"]).await;
        assert!(told.contains("ada@example.com") && told.contains("shop"), "{told}");
        cli.ok(&["info", "--no-defaults"]).await;
        let told = cli.ok(&["organizations", "list"]).await;
        assert!(told.contains("u-"), "{told}");
        let told = cli.ok(&["projects", "list"]).await;
        assert!(told.contains("shop"), "{told}");
        cli.token = "loom_none".to_owned();
        let told = cli.fails(&["releases", "list"]).await;
        assert!(told.contains("401"), "{told}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_made_given_commits_brought_out_deployed_and_deleted() {
    each(async |app, ada, _, cli| {
        cli.git(&["init", "-q", "-b", "main"]).await;
        cli.git(&["remote", "add", "origin", "https://github.com/acme/shop"]).await;
        cli.write("src/cart.py", "1");
        cli.git(&["add", "."]).await;
        cli.git(&["commit", "-qm", "Cart"]).await;
        cli.write("src/total.py", "2");
        cli.git(&["add", "."]).await;
        cli.git(&["commit", "-qm", "Totals"]).await;

        cli.ok(&["releases", "new", "shop@1.0.0", "--url", "https://ci.example.com/1"]).await;
        // A build that runs again.
        cli.ok(&["releases", "new", "shop@1.0.0"]).await;
        cli.ok(&["releases", "set-commits", "shop@1.0.0", "--local"]).await;
        cli.ok(&["releases", "finalize", "shop@1.0.0"]).await;
        match cli.major {
            2 => cli.ok(&["releases", "deploys", "shop@1.0.0", "new", "-e", "production"]).await,
            _ => cli.ok(&["deploys", "new", "--release", "shop@1.0.0", "-e", "production"]).await,
        };
        let base = "/api/crash/projects/shop/releases/shop%401.0.0";
        let release = ada.get(base).await.expect(200).json();
        assert_eq!(release["url"], "https://ci.example.com/1");
        assert!(release["released_at"].is_string(), "{release}");
        assert_eq!(release["commit_count"], 2);
        assert_eq!(release["deploy_count"], 1);
        let commits = ada.get(&format!("{base}/commits")).await.expect(200).json();
        assert_eq!(commits["commits"][0]["message"].as_str().unwrap().trim(), "Totals");
        assert_eq!(commits["commits"][0]["author_email"], "ada@example.com");
        assert_eq!(commits["commits"][0]["files"], json!(["src/total.py"]));
        assert_eq!(commits["commits"][0]["sha"].as_str().unwrap().len(), 40);
        let deploys = ada.get(&format!("{base}/deploys")).await.expect(200).json();
        assert_eq!(deploys["deploys"][0]["environment"], "production");

        // The next one brings what came since.
        cli.write("src/total.py", "3");
        cli.git(&["commit", "-qam", "Round totals"]).await;
        cli.ok(&["releases", "new", "shop@1.1.0"]).await;
        cli.ok(&["releases", "set-commits", "shop@1.1.0", "--local"]).await;
        let base = "/api/crash/projects/shop/releases/shop%401.1.0";
        assert_eq!(ada.get(base).await.expect(200).json()["commit_count"], 1);

        let list = cli.ok(&["releases", "list"]).await;
        assert!(list.contains("shop@1.0.0") && list.contains("shop@1.1.0"), "{list}");
        let info = cli.ok(&["releases", "info", "shop@1.0.0"]).await;
        assert!(info.contains("shop@1.0.0"), "{info}");
        let deploys = match cli.major {
            2 => cli.ok(&["releases", "deploys", "shop@1.0.0", "list"]).await,
            _ => cli.ok(&["deploys", "list", "--release", "shop@1.0.0"]).await,
        };
        assert!(deploys.contains("production"), "{deploys}");
        cli.ok(&["releases", "delete", "shop@1.0.0"]).await;
        assert_eq!(app.rows("SELECT version FROM crash_releases").await.len(), 1);
        cli.fails(&["releases", "info", "shop@1.0.0"]).await;
        cli.fails(&["releases", "new", "a/b"]).await;
    })
    .await;
}

const SCRIPT: &str =
    "function boom(){throw new Error('x')}boom();\n//# sourceMappingURL=app.min.js.map\n";
const MAP: &str = r#"{"version":3,"file":"app.min.js","sources":["app.ts"],"sourcesContent":["function boom() {\n  throw new Error('x');\n}\nboom();\n"],"names":["boom"],"mappings":"AAAA,SAASA,OACP,MAAM"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn source_maps_are_injected_uploaded_and_found_by_debug_id_and_by_url() {
    each(async |app, _, shop, cli| {
        let script = cli.write("dist/app.min.js", SCRIPT);
        cli.write("dist/app.min.js.map", MAP);
        cli.ok(&["sourcemaps", "inject", "dist"]).await;
        let injected = std::fs::read_to_string(&script).unwrap();
        let debug_id = injected.split("//# debugId=").nth(1).unwrap().trim().to_owned();
        let told = cli.ok(&["sourcemaps", "upload", "--wait", "dist"]).await;
        assert!(told.to_lowercase().contains("upload"), "{told}");
        for source_map in [false, true] {
            let wanted = Wanted::ScriptById { debug_id: debug_id.clone(), source_map };
            let file = find(app, shop, wanted).await.unwrap();
            let content = std::fs::read_to_string(file.path).unwrap();
            assert!(
                content.contains(if source_map { "sourcesContent" } else { "throw" }),
                "{content}"
            );
        }
        // The same again sends nothing.
        cli.ok(&["sourcemaps", "upload", "--wait", "dist"]).await;
        assert_eq!(app.rows("SELECT id FROM crash_artifacts").await.len(), 1);

        let plain = tempfile::tempdir_in(cli.folder.path()).unwrap();
        let folder = plain.path().file_name().unwrap().to_str().unwrap().to_owned();
        cli.write(&format!("{folder}/old.min.js"), SCRIPT.replace("app.min", "old.min"));
        cli.write(&format!("{folder}/old.min.js.map"), MAP.replace("app.min", "old.min"));
        let arguments =
            ["sourcemaps", "upload", "--release", "shop@1.0", "--dist", "7", "--url-prefix"];
        let arguments = [&arguments[..], &["~/static", "--wait", &folder]].concat();
        cli.ok(&arguments).await;
        let wanted = |source_map| Wanted::ScriptByUrl {
            release: "shop@1.0".to_owned(),
            dist: Some("7".to_owned()),
            url: "https://shop.example.com/static/old.min.js".to_owned(),
            source_map,
        };
        let file = find(app, shop, wanted(false)).await.unwrap();
        assert!(file.source_map.unwrap().contains("old.min.js.map"));
        // Its map is where the script says.
        let file = find(app, shop, wanted(true)).await.unwrap();
        assert!(std::fs::read_to_string(file.path).unwrap().contains("sourcesContent"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn debug_files_are_uploaded_with_their_sources_and_found() {
    each(async |app, _, shop, cli| {
        cli.write("crash.c", "int boom(int x) { return 1 / x; }\nint main(void) { return boom(0); }\n");
        let mut cc = cli.command(Path::new("cc"));
        cc.args(["-g", "-O0", "-Wl,--build-id", "-o", "crash", "crash.c"]);
        assert!(cc.status().await.unwrap().success());
        let told = cli.ok(&["debug-files", "upload", "--include-sources", "--wait", "crash"]).await;
        assert!(told.contains("crash"), "{told}");
        let rows = app.rows("SELECT kind, name FROM crash_artifacts ORDER BY kind").await;
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert_eq!([&rows[0]["kind"], &rows[1]["kind"]], ["elf", "source_bundle"]);
        let ids = app.rows("SELECT DISTINCT debug_id, code_id FROM crash_artifact_objects WHERE what = 'debug'").await;
        let debug_id = ids[0]["debug_id"].as_str().unwrap().to_owned();
        let wanted = Wanted::Debug { debug_id: Some(debug_id.clone()), code_id: None, symbols: true };
        let file = find(app, shop, wanted).await.unwrap();
        let sent = std::fs::read(cli.folder.path().join("crash")).unwrap();
        assert_eq!(std::fs::read(file.path).unwrap(), sent);
        let unwind = Wanted::Debug { debug_id: Some(debug_id.clone()), code_id: None, symbols: false };
        assert!(find(app, shop, unwind).await.is_some());
        let sources = find(app, shop, Wanted::SourceBundle { debug_id }).await.unwrap();
        let bundle = std::fs::read(sources.path).unwrap();
        let bundle = loom_symbolication::bundle::Bundle::parse(&bundle).unwrap();
        assert!(bundle.entries.iter().any(|e| e.path.as_deref().unwrap_or("").ends_with("crash.c")));
        // Nothing is sent that is there.
        let again = cli.ok(&["debug-files", "upload", "--include-sources", "--wait", "crash"]).await;
        assert!(again.contains("Nothing to upload") || again.contains("already"), "{again}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_envelopes_are_sent_from_the_command_line() {
    each(async |app, _, _, cli| {
        let told =
            cli.ok(&["send-event", "-m", "Deploy of %s", "-a", "shop", "-t", "step:3"]).await;
        assert!(told.to_lowercase().contains("event"), "{told}");
        let event =
            json!({"event_id": "9ec79c33ec9942ab8353589fcb2e04dc", "message": "from a file"});
        cli.write("event.json", event.to_string());
        cli.ok(&["send-event", "--raw", "event.json"]).await;
        let id = "9ec79c33ec9942ab8353589fcb2e04dd";
        let event = json!({"event_id": id, "message": "in an envelope"});
        cli.write(
            "one.envelope",
            format!("{{\"event_id\":\"{id}\"}}\n{{\"type\":\"event\"}}\n{event}\n"),
        );
        cli.ok(&["send-envelope", "one.envelope"]).await;
        let titles = loom_testkit::eventually(async || {
            let rows = app.rows("SELECT title, tags FROM crash_events ORDER BY title").await;
            (rows.len() == 3).then_some(rows)
        });
        let titles = titles.await;
        assert_eq!(titles[0]["title"], "Deploy of shop");
        assert_eq!(titles[0]["tags"]["step"], "3");
        assert_eq!([&titles[1]["title"], &titles[2]["title"]], ["from a file", "in an envelope"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issues_are_listed_resolved_muted_and_opened_again() {
    each(async |app, ada, _, cli| {
        for kind in ["ValueError", "KeyError"] {
            let event = json!({"project_id": "shop", "exception_type": kind, "exception_value": "no",
                "stacktrace": {"frames": [{"function": kind, "filename": "a.py", "in_app": true}]}});
            ada.post("/api/crash/capture", &event).await.expect(200);
        }
        let list = cli.ok(&["issues", "list"]).await;
        assert!(list.contains("ValueError") && list.contains("SHOP-1"), "{list}");
        cli.ok(&["issues", "resolve", "--id", "1"]).await;
        let statuses = async || {
            let rows = app.rows("SELECT status FROM crash_issues ORDER BY number").await;
            rows.iter().map(|row| row["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(statuses().await, ["resolved", "unresolved"]);
        let list = cli.ok(&["issues", "list", "--query", "is:unresolved"]).await;
        assert!(list.contains("KeyError") && !list.contains("ValueError"), "{list}");
        cli.ok(&["issues", "mute", "--id", "2"]).await;
        assert_eq!(statuses().await, ["resolved", "ignored"]);
        cli.ok(&["issues", "unresolve", "--all"]).await;
        assert_eq!(statuses().await, ["unresolved", "unresolved"]);
        // Written down as on the native route.
        let acts = app.rows("SELECT action FROM crash_issue_activity ORDER BY id").await;
        assert_eq!(acts.len(), 4, "{acts:?}");
    })
    .await;
}
