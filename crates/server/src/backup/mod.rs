//! `backup` and `restore`: everything that a server keeps, in one directory. The database is copied first,
//! as of one moment, and then the files that it names: those are written before their rows, and one that is
//! newer than the copy of the database does no harm.

mod files;
mod manifest;
mod repository;
mod restore;

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use loom_core::Clock;
use loom_crashes::ArtifactPlace;
use loom_db::{Database, Tools, migrate};
use loom_vault::{KEY_FILE, Vault};

use crate::{
    config::Config,
    console::{complain, say},
    health,
};
use files::Sums;
use manifest::{Artifacts, Key, Manifest};

pub(crate) use restore::restore;

/// Names within a backup.
const DUMP: &str = "database.dump";
const REPOSITORIES: &str = "repos";
const ARTIFACTS: &str = "artifacts";
const OUTBOX: &str = "outbox";

/// Writes a backup into `target`, which gets its name when all is there. Servers may run meanwhile.
pub(crate) async fn backup(config: &Config, target: &Path, with_key: bool) -> anyhow::Result<()> {
    if target.exists() {
        bail!("{} is there already; name a directory that is not", target.display());
    }
    let unfinished = unfinished(target)?;
    // Secrets are in it: it is nobody's business but the owner's, whoever writes into it.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    fs::DirBuilder::new().mode(0o700).create(&unfinished).with_context(|| {
        format!("{} cannot be made (is it left of a backup that failed?)", unfinished.display())
    })?;
    let written = write(config, &unfinished, with_key).await;
    let manifest = match written {
        Ok(manifest) => manifest,
        Err(error) => {
            let _ = fs::remove_dir_all(&unfinished);
            return Err(error);
        }
    };
    files::sync_directory(&unfinished)?;
    fs::rename(&unfinished, target)
        .with_context(|| format!("{} cannot get its name", target.display()))?;
    tell(&manifest, target);
    Ok(())
}

fn unfinished(target: &Path) -> anyhow::Result<PathBuf> {
    let name = target.file_name().context("a backup needs a directory of its own")?;
    let mut name = name.to_owned();
    name.push(".unfinished");
    Ok(target.with_file_name(name))
}

async fn write(config: &Config, into: &Path, with_key: bool) -> anyhow::Result<Manifest> {
    let mut sums = Sums::default();
    let migrations = dump(config, &into.join(DUMP)).await?;
    sums.add(into, &into.join(DUMP))?;
    let key = match Vault::key_in_force(&config.vault, &config.data_dir)? {
        None => Key::None,
        Some(key) if config.vault.master_key.is_some() => {
            Key::Configured { id: key.id().to_string() }
        }
        Some(key) if with_key => {
            files::copy(&config.data_dir.join(KEY_FILE), &into.join(KEY_FILE))?;
            sums.add(into, &into.join(KEY_FILE))?;
            Key::Included { id: key.id().to_string() }
        }
        Some(key) => Key::LeftOut { id: key.id().to_string() },
    };
    let repositories =
        repository::copy_all(config.scm.directory(), &into.join(REPOSITORIES)).await?;
    let artifacts = match config.crashes.artifact_place() {
        ArtifactPlace::Bucket(bucket) => Artifacts::Bucket { bucket: bucket.to_owned() },
        ArtifactPlace::Directory(from) => {
            let (from, to) = (from.to_owned(), into.join(ARTIFACTS));
            let files = files::blocking(move || files::copy_tree(&from, &to, is_whole)).await?;
            Artifacts::Included { files }
        }
    };
    let (from, to) = (config.notify.outbox.clone(), into.join(OUTBOX));
    files::blocking(move || files::copy_tree(&from, &to, files::every)).await?;
    for folder in [REPOSITORIES, ARTIFACTS, OUTBOX] {
        sums.add_tree(into, &into.join(folder))?;
    }
    let health::Version { version, git_sha, .. } = health::version();
    let manifest = Manifest {
        format: manifest::FORMAT,
        created_at: Clock::system().now(),
        version: version.to_owned(),
        git_sha: git_sha.to_owned(),
        migrations,
        key,
        repositories,
        artifacts,
        bytes: sums.bytes(),
    };
    manifest.write(into)?;
    sums.add(into, &into.join(manifest::FILE))?;
    sums.write(into)?;
    Ok(manifest)
}

/// An artifact that is being written has a `#` in its name, and is nobody's yet.
fn is_whole(name: &str) -> bool {
    !name.contains('#')
}

/// Returns the migrations that the copy has.
async fn dump(config: &Config, file: &Path) -> anyhow::Result<Vec<i64>> {
    if config.database.url.is_none() && !loom_db::embedded::is_there(&config.data_dir) {
        bail!("there is no database in {} yet", config.data_dir.display());
    }
    let database = Database::join(&config.database, false).await?;
    let copied = async {
        let status = migrate::status(database.pool()).await?;
        if status.applied.is_empty() {
            bail!("the database is empty: no server has run on it");
        }
        let tools = Tools::find(config.database.pg_bin.as_deref(), database.major().await?)?;
        tools.dump(database.direct_url(), file).await?;
        Ok(status.applied)
    }
    .await;
    database.close().await;
    copied
}

fn tell(manifest: &Manifest, target: &Path) {
    let mib = manifest.bytes.div_ceil(1 << 20);
    say(&format!(
        "backed up into {}: the database, {} repositories, {}; {mib} MiB",
        target.display(),
        manifest.repositories,
        match &manifest.artifacts {
            Artifacts::Included { files } => format!("{files} artifacts"),
            Artifacts::Bucket { bucket } => format!("not the artifacts in the bucket {bucket}"),
        }
    ));
    match &manifest.key {
        Key::None => {}
        Key::Included { .. } => complain(
            "The master key is in it: whoever has this backup can read the stored secrets. Keep it as you \
             keep keys; --without-key leaves it out.",
        ),
        Key::Configured { id } | Key::LeftOut { id } => complain(&format!(
            "The master key {id} is not in it: keep it elsewhere, a restore asks for it."
        )),
    }
}
