//! The vendors' own SDKs for Python against the server: the scripts are in `tests/sdk`.

use std::path::{Path, PathBuf};

use loom_testkit::{Setup, TestApp};
use tokio::process::Command;

/// As `make test` installs it.
fn python() -> PathBuf {
    let named = std::env::var_os("LOOM_TEST_PYTHON").filter(|path| !path.is_empty());
    let python = named.map_or_else(
        || {
            // target/debug/deps/<this program>
            let program = std::env::current_exe().unwrap();
            program.ancestors().nth(3).unwrap().join("sdk-venv/bin/python")
        },
        PathBuf::from,
    );
    assert!(
        python.is_file(),
        "there is no Python with the SDKs: run `make test`, which installs it, or name one in LOOM_TEST_PYTHON"
    );
    python
}

async fn run(app: TestApp, script: &str) {
    let user = app.user("sdk@example.com").await;
    let output = Command::new(python())
        .args(["-W", "ignore", "-m", "unittest", script])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk"))
        .env("LOOM_URL", app.url())
        .env("LOOM_KEY", user.key.as_deref().unwrap())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {}\n{told}", output.status);
    assert!(told.contains("OK") && !told.contains("Ran 0 tests"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anthropic_sdk_works_as_with_its_vendor() {
    run(TestApp::start().await, "test_anthropic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_sdk_works_as_with_its_vendor() {
    run(TestApp::start().await, "test_openai").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sdks_understand_a_limit_that_is_reached() {
    run(TestApp::start().await, "test_limits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sdks_work_with_the_demo() {
    run(Setup::default().demo().start().await, "test_demo").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sdks_work_with_the_models_of_other_wires() {
    let mock = loom_testkit::llm::MockLlm::start("sk-compatible");
    let app = Setup::default()
        .set("LOOM_SERVER_LLM_PROVIDERS", "other")
        .set("LOOM_SERVER_LLM_OTHER_BASE_URL", format!("{}/openai/v1", mock.url()))
        .set("LOOM_SERVER_LLM_OTHER_API_KEY", "sk-compatible")
        .start()
        .await;
    run(app, "test_translated").await;
}
