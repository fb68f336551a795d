//! Programs with the vendors' SDKs, which the tests run against a server.

use std::path::PathBuf;

use axum::{Router, body::Body, extract::Path, http::Response, response::Html, routing::get};
use tokio::{net::TcpListener, task::JoinHandle};

/// What a variable names, or what `make test` installs into the target folder.
fn installed(variable: &str, otherwise: &str) -> PathBuf {
    let named = std::env::var_os(variable).filter(|path| !path.is_empty());
    named.map_or_else(
        || {
            // target/debug/deps/<this program>
            let program = std::env::current_exe().unwrap();
            program.ancestors().nth(3).unwrap().join(otherwise)
        },
        PathBuf::from,
    )
}

/// A Python with the SDKs.
pub fn python() -> PathBuf {
    let python = installed("LOOM_TEST_PYTHON", "sdk-venv/bin/python");
    assert!(
        python.is_file(),
        "there is no Python with the SDKs: run `make test`, which installs it, or name one in LOOM_TEST_PYTHON"
    );
    python
}

/// A folder with the SDKs, and the Node that they were installed with.
pub fn node() -> PathBuf {
    let folder = installed("LOOM_TEST_NODE_SDKS", "sdk-node");
    assert!(
        folder.join("node").is_file() && folder.join("node_modules/openai").is_dir(),
        "there is no Node with the SDKs: run `make test`, which installs it, or name the folder in LOOM_TEST_NODE_SDKS"
    );
    folder
}

/// The program sentry-cli of a major version, 2 or 3, for this machine.
pub fn sentry_cli(major: u32) -> PathBuf {
    let modules = node().join("node_modules");
    // The packages of the platform lie beside the first, and within the second.
    let places =
        [modules.join(format!("sentry-cli-{major}/node_modules/@sentry")), modules.join("@sentry")];
    let found = places.iter().flat_map(|place| std::fs::read_dir(place).into_iter().flatten());
    let mut found = found.map(|entry| entry.unwrap().path().join("bin/sentry-cli"));
    found
        .find(|path| path.is_file())
        .expect("the platform's package of sentry-cli: run `make test`")
}

/// Where the modules of the SDK for browsers are, for the page's imports.
const MODULES: [(&str, &str); 9] = [
    ("@sentry/browser", "@sentry/browser/build/npm/esm/prod/index.js"),
    ("@sentry/core", "@sentry/core/build/esm/index.js"),
    ("@sentry/core/browser", "@sentry/core/build/esm/browser.js"),
    ("@sentry/browser-utils", "@sentry/browser-utils/build/esm/index.js"),
    ("@sentry/feedback", "@sentry/feedback/build/npm/esm/index.js"),
    ("@sentry/replay", "@sentry/replay/build/npm/esm/index.js"),
    ("@sentry/replay-canvas", "@sentry/replay-canvas/build/npm/esm/index.js"),
    ("@sentry/conventions/", "@sentry/conventions/dist/"),
    ("web-vitals", "web-vitals/dist/web-vitals.js"),
];

/// A page of an origin of its own with a script, a module that may import `@sentry/browser`: its address,
/// and the task that serves it.
pub async fn page(script: &str) -> (String, JoinHandle<()>) {
    let imports: serde_json::Map<String, serde_json::Value> = MODULES
        .iter()
        .map(|(name, path)| ((*name).to_owned(), format!("/{path}").into()))
        .collect();
    let html = format!(
        "<!doctype html><script type=importmap>{}</script><script type=module>{script}</script>",
        serde_json::json!({"imports": imports}),
    );
    let folder = node().join("node_modules");
    let file = move |Path(path): Path<String>| {
        let folder = folder.clone();
        async move {
            // The browser also asks for an icon.
            let is_module = ["@sentry/", "web-vitals/"].iter().any(|of| path.starts_with(of))
                && !path.contains("..");
            let found = [
                path.clone(),
                format!("{path}.js"),
                format!("{path}.mjs"),
                format!("{path}/index.mjs"),
            ]
            .into_iter()
            .filter(|_| is_module)
            .find_map(|name| std::fs::read(folder.join(name)).ok());
            Response::builder()
                .status(if found.is_none() { 404 } else { 200 })
                .header("content-type", "text/javascript")
                .body(Body::from(found.unwrap_or_default()))
                .unwrap()
        }
    };
    let routes =
        Router::new().route("/", get(|| async move { Html(html) })).route("/{*path}", get(file));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    (url, tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() }))
}
