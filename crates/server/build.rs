//! Which commit this is and when it was built, for `/health` and `--version`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a build script speaks to cargo by variables and standard output"
)]

use std::{env, fs, process::Command};

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}

fn main() {
    println!("cargo:rerun-if-env-changed=LOOM_GIT_SHA");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // Every commit and checkout writes to the first; where git keeps no log, to the others.
    let branch = git(&["rev-parse", "--symbolic-full-name", "HEAD"]);
    for name in ["logs/HEAD"].into_iter().chain(["HEAD", "packed-refs"]).chain(branch.as_deref()) {
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            && let Ok(path) = fs::canonicalize(path)
        {
            println!("cargo:rerun-if-changed={}", path.display());
            if name == "logs/HEAD" {
                break;
            }
        }
    }
    println!("cargo:rerun-if-changed=build.rs");
    // A build without git (an archive, a container) says it by variable.
    let sha = env::var("LOOM_GIT_SHA")
        .ok()
        .filter(|sha| !sha.is_empty())
        .or_else(|| git(&["rev-parse", "HEAD"]));
    println!("cargo:rustc-env=LOOM_GIT_SHA={}", sha.as_deref().unwrap_or("unknown"));
    let built = match env::var("SOURCE_DATE_EPOCH").ok().and_then(|secs| secs.parse().ok()) {
        Some(secs) => chrono::DateTime::from_timestamp(secs, 0).unwrap_or_default(),
        None => chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()),
    };
    println!(
        "cargo:rustc-env=LOOM_BUILT_AT={}",
        built.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    );
}
