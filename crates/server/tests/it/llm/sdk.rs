//! The vendors' own SDKs for Python and Node against the server: the scripts are in `tests/sdk`.

use std::path::Path;

use loom_testkit::{
    Setup, TestApp,
    app::UPSTREAM_KEY,
    sdk::{node, python},
};
use tokio::process::Command;

pub(super) async fn run(app: TestApp, script: &str) {
    let user = app.user("sdk@example.com").await;
    let output = Command::new(python())
        .args(["-W", "ignore", "-m", "unittest", script])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk"))
        .env("LOOM_URL", app.url())
        .env("LOOM_KEY", user.key.as_deref().unwrap())
        .env("LOOM_PROVIDER_TOKEN", UPSTREAM_KEY)
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

/// The scripts also have errors of all kinds come: with the callers' own tokens, as ours would be
/// disabled, or rest, for all that comes after.
async fn with_own_tokens(setup: Setup) -> TestApp {
    setup.set("LOOM_SERVER_LLM_CALLER_TOKENS", "anthropic,openai").start().await
}

async fn run_in_node(app: TestApp, script: &str) {
    let user = app.user("sdk@example.com").await;
    let folder = node();
    let output = Command::new(folder.join("node"))
        .args(["--test-reporter=tap", script])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/node"))
        .env("LOOM_URL", app.url())
        .env("LOOM_KEY", user.key.as_deref().unwrap())
        .env("LOOM_PROVIDER_TOKEN", UPSTREAM_KEY)
        .env("LOOM_NODE_SDKS", &folder)
        .env("NO_PROXY", "*")
        .env_remove("NODE_OPTIONS")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {}\n{told}\n{errors}", output.status);
    assert!(told.contains("\n# fail 0\n") && !told.contains("\n# pass 0\n"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anthropic_sdk_for_node_works_as_with_its_vendor() {
    run_in_node(with_own_tokens(Setup::default()).await, "test_anthropic.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_sdk_for_node_works_as_with_its_vendor() {
    run_in_node(with_own_tokens(Setup::default()).await, "test_openai.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sdks_for_node_work_with_the_models_of_other_wires() {
    let (_mock, app) = with_a_compatible_provider().await;
    run_in_node(app, "test_translated.mjs").await;
}

/// One that only knows chat.
async fn with_a_compatible_provider() -> (loom_testkit::llm::MockLlm, TestApp) {
    let mock = loom_testkit::llm::MockLlm::start("sk-compatible");
    let app = Setup::default()
        .set("LOOM_SERVER_LLM_PROVIDERS", "other")
        .set("LOOM_SERVER_LLM_OTHER_BASE_URL", format!("{}/openai/v1", mock.url()))
        .set("LOOM_SERVER_LLM_OTHER_API_KEY", "sk-compatible");
    let app = with_own_tokens(app).await;
    (mock, app)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anthropic_sdk_works_as_with_its_vendor() {
    run(with_own_tokens(Setup::default()).await, "test_anthropic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_sdk_works_as_with_its_vendor() {
    run(with_own_tokens(Setup::default()).await, "test_openai").await;
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
    let (_mock, app) = with_a_compatible_provider().await;
    run(app, "test_translated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sdks_work_with_the_models_of_vertex() {
    let mock = loom_testkit::llm::MockLlm::start("ya29.mock-access-token");
    run(super::vertex::with_vertex(&mock).start().await, "test_vertex").await;
}
