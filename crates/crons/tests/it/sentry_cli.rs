//! The real sentry-cli, 2 and 3: `monitors run` and `monitors list`.

use std::process::Output;

use loom_testkit::{User, sdk::sentry_cli};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    sdk::{ended, shop},
    support::read,
};

async fn cli(major: u32, url: &str, ada: &User, project: &Value, arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(sentry_cli(major))
        .args(arguments)
        .current_dir(&home)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .env("NO_PROXY", "*")
        .env("SENTRY_URL", url)
        .env("SENTRY_AUTH_TOKEN", ada.key.as_deref().unwrap())
        .env("SENTRY_ORG", ada.org.to_string())
        .env("SENTRY_DSN", project["dsn"].as_str().unwrap())
        .env("SENTRY_DISABLE_UPDATE_CHECK", "1")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sentry_cli_runs_a_command_as_a_monitor_and_lists_it() {
    for major in [2, 3] {
        let (app, ada, shop) = shop().await;
        let url = app.url();
        let run = async |slug: &str, more: &[&str], script: &str| {
            let mut arguments = vec!["monitors", "run", slug];
            arguments.extend(more);
            arguments.extend(["--", "sh", "-c", script]);
            cli(major, &url, &ada, &shop, &arguments).await
        };
        let config = [
            "--schedule",
            "30 2 * * *",
            "--timezone",
            "Europe/Berlin",
            "--check-in-margin",
            "10",
            "--max-runtime",
            "60",
            "--failure-issue-threshold",
            "2",
            "-e",
            "staging",
        ];
        let output = run("nightly", &config, "echo done").await;
        assert!(output.status.success(), "sentry-cli {major}: {output:?}");
        let runs = ended(&ada, "nightly", 1).await;
        assert_eq!(
            (&runs[0]["status"], &runs[0]["environment"]),
            (&json!("ok"), &json!("staging"))
        );
        let made = read(&ada, "nightly").await;
        assert_eq!(made["schedule"]["expression"], "30 2 * * *");
        assert_eq!(
            (&made["timezone"], &made["checkin_margin_minutes"], &made["max_runtime_minutes"]),
            (&json!("Europe/Berlin"), &json!(10.0), &json!(60.0))
        );
        // It is known by now; the command's status is the program's.
        let output = run("nightly", &["-e", "staging"], "exit 3").await;
        assert_eq!(output.status.code(), Some(3), "sentry-cli {major}: {output:?}");
        let runs = ended(&ada, "nightly", 2).await;
        assert_eq!(runs[0]["status"], "error");
        let output = cli(major, &url, &ada, &shop, &["monitors", "list"]).await;
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("nightly"), "{major}: {output:?}");
    }
}
