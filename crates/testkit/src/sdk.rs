//! Programs with the vendors' SDKs, which the tests run against a server.

use std::path::PathBuf;

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
