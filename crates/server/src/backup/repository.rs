//! Copies of git repositories that may be pushed to and repacked meanwhile. Branches are copied before
//! objects, which are only ever added under them; git then looks whether all is there, and what a repack
//! moved away in that moment is copied again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail};

use super::files;

const ATTEMPTS: usize = 3;

/// Returns how many there were.
pub(super) async fn copy_all(from: &Path, to: &Path) -> anyhow::Result<usize> {
    let mut count = 0;
    for org in folders(from)? {
        for repository in folders(&org)? {
            // One that is only being made has another ending.
            if repository.extension().is_none_or(|kind| kind != "git") {
                continue;
            }
            let target = to.join(repository.strip_prefix(from)?);
            copy(&repository, &target).await?;
            count += 1;
        }
    }
    Ok(count)
}

fn folders(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    match fs::read_dir(path) {
        Ok(entries) => {
            let mut found = Vec::new();
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    found.push(entry.path());
                }
            }
            found.sort();
            Ok(found)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

async fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut said = String::new();
    for _ in 0..ATTEMPTS {
        let (source, target) = (from.to_owned(), to.to_owned());
        files::blocking(move || copy_once(&source, &target)).await?;
        match check(to).await? {
            None => return Ok(()),
            Some(output) => said = output,
        }
        fs::remove_dir_all(to)?;
        if !from.exists() {
            // Deleted meanwhile: its row is in the dump, and nobody can reach it.
            return Ok(());
        }
    }
    bail!("the repository {} cannot be copied whole: {said}", from.display())
}

fn copy_once(from: &Path, to: &Path) -> anyhow::Result<()> {
    files::make_directory(to)?;
    let mut names: Vec<_> =
        fs::read_dir(from)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
    names.sort_by_key(|name| name == "objects");
    for name in names {
        let (source, target) = (from.join(&name), to.join(&name));
        if source.is_dir() {
            files::copy_tree(&source, &target, is_kept)?;
        } else if source.is_file() && is_kept(&name.to_string_lossy()) {
            files::copy(&source, &target)?;
        }
    }
    Ok(())
}

/// Locks, and objects of a push that is under way, are not.
fn is_kept(name: &str) -> bool {
    !name.ends_with(".lock") && !name.starts_with("tmp_")
}

/// What git says when something is missing.
async fn check(repository: &Path) -> anyhow::Result<Option<String>> {
    let output = tokio::process::Command::new("git")
        .args(["fsck", "--connectivity-only", "--no-dangling", "--no-progress"])
        .current_dir(repository)
        .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("LC_ALL", "C")])
        .env("GIT_DIR", ".")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("git cannot be run")?;
    let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect();
    Ok((!output.status.success()).then_some(said))
}
