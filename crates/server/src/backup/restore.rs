//! A backup back to where nothing is.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use loom_crashes::ArtifactPlace;
use loom_db::{Database, Tools, migrate};
use loom_vault::{KEY_FILE, MasterKey, Vault};

use super::{
    ARTIFACTS, DUMP, OUTBOX, REPOSITORIES, files,
    manifest::{Artifacts, Key, Manifest},
};
use crate::{
    config::Config,
    console::{complain, say},
};

/// Refuses before it changes anything when the backup is damaged or too new, when something is there
/// already, or when the master key is another one. The database comes back whole or not at all.
pub(crate) async fn restore(config: &Config, from: &Path) -> anyhow::Result<()> {
    let manifest = Manifest::read(from)?;
    let root = from.to_owned();
    files::blocking(move || files::verify(&root)).await?;
    let unknown: Vec<_> =
        manifest.migrations.iter().filter(|version| !migrate::is_known(**version)).collect();
    if let Some(version) = unknown.first() {
        bail!(
            "the backup is of version {} and has migration {version}, which this version does not know: \
             restore it with that version or a newer one",
            manifest.version
        );
    }
    check_owner(&config.data_dir)?;
    let folders = folders(config, from, &manifest);
    for (_, target) in &folders {
        if files::holds_files(target) {
            bail!("{} holds files already; a restore wants empty places", target.display());
        }
    }
    let key = check_key(config, from, &manifest)?;
    restore_database(config, &from.join(DUMP)).await?;
    if let Some(key) = key {
        make_data_directory(&config.data_dir)?;
        files::copy(&key, &config.data_dir.join(KEY_FILE))?;
        files::sync_directory(&config.data_dir)?;
    }
    for (source, target) in folders {
        files::blocking(move || {
            if let Some(parent) = target.parent() {
                make_data_directory(parent)?;
            }
            files::copy_tree(&source, &target, files::every)
        })
        .await
        .context("the database is restored and the files are not: empty both, then try again")?;
    }
    say(&format!(
        "restored the backup of {}, made by version {}; start the server now",
        manifest.created_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        manifest.version
    ));
    if let Artifacts::Bucket { bucket } = &manifest.artifacts {
        complain(&format!("The artifacts were in the bucket {bucket}, and are as it has them."));
    }
    Ok(())
}

/// What is copied, and where to.
fn folders(config: &Config, from: &Path, manifest: &Manifest) -> Vec<(PathBuf, PathBuf)> {
    let mut folders = vec![
        (from.join(REPOSITORIES), config.scm.directory().to_owned()),
        (from.join(OUTBOX), config.notify.outbox.clone()),
    ];
    if let (Artifacts::Included { .. }, ArtifactPlace::Directory(place)) =
        (&manifest.artifacts, config.crashes.artifact_place())
    {
        folders.push((from.join(ARTIFACTS), place.to_owned()));
    }
    folders
}

/// Files would belong to whoever restores, and the server could not read them.
fn check_owner(data_dir: &Path) -> anyhow::Result<()> {
    let Ok(about) = fs::metadata(data_dir) else { return Ok(()) };
    if nix::unistd::geteuid().is_root() && about.uid() != 0 {
        let (dir, user) = (data_dir.display(), about.uid());
        bail!(
            "{dir} belongs to user {user}: restore as that user (sudo -u '#{user}'), not as root"
        );
    }
    Ok(())
}

/// As the private PostgreSQL and the vault make it: other users may pass, not look around.
fn make_data_directory(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(path)
}

/// The file to put in place, if any.
fn check_key(config: &Config, from: &Path, manifest: &Manifest) -> anyhow::Result<Option<PathBuf>> {
    let Some(wanted) = manifest.key.id() else { return Ok(None) };
    let in_force = Vault::key_in_force(&config.vault, &config.data_dir)?;
    let previous = config.vault.previous_key.as_ref();
    match (in_force, &manifest.key) {
        (Some(key), _) if key.id().to_string() == wanted => Ok(None),
        (Some(_), _) if previous.is_some_and(|key| key.id().to_string() == wanted) => Ok(None),
        (Some(key), _) => bail!(
            "the secrets in the backup were sealed with the master key {wanted}, and the one here is {}: \
             set LOOM_SERVER_MASTER_KEY to the former, or give it as LOOM_SERVER_MASTER_KEY_PREVIOUS",
            key.id()
        ),
        (None, Key::Included { .. }) => {
            let path = from.join(KEY_FILE);
            let text = fs::read_to_string(&path)
                .with_context(|| format!("{} cannot be read", path.display()))?;
            let key: MasterKey =
                text.parse().with_context(|| format!("{} holds no key", path.display()))?;
            if key.id().to_string() != wanted {
                bail!("{} is not the key that the backup names", path.display());
            }
            Ok(Some(path))
        }
        (None, _) => bail!(
            "the master key {wanted} is not in the backup: set LOOM_SERVER_MASTER_KEY (or _FILE) to it"
        ),
    }
}

async fn restore_database(config: &Config, dump: &Path) -> anyhow::Result<()> {
    let database = Database::join(&config.database, false).await?;
    let restored = async {
        if !database.is_empty().await? {
            bail!("the database is not empty; restore into a new one");
        }
        let tools = Tools::find(config.database.pg_bin.as_deref(), database.major().await?)?;
        tools.restore(database.direct_url(), dump).await?;
        // What this version adds to a backup of an older one.
        migrate::run(database.direct_url(), config.database.wait).await?;
        Ok(())
    }
    .await;
    database.close().await;
    restored
}
