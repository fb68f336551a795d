//! Where repositories lie: `<root>/<organisation>/<repository>.git`, by ids, so that a new name moves
//! nothing and no name is ever part of a path.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use loom_core::{
    Error, Result,
    id::{OrgId, RepositoryId},
};
use tokio_util::sync::CancellationToken;

use crate::git;

const LIMIT: Duration = Duration::from_secs(30);
/// Entries that are looked at when a repository is measured.
const MAX_ENTRIES: usize = 1_000_000;

#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) root: PathBuf,
}

/// What a repository takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Measure {
    pub(crate) bytes: i64,
    pub(crate) packs: i32,
}

impl Disk {
    pub(crate) fn path(&self, org: OrgId, id: RepositoryId) -> PathBuf {
        self.root.join(org.to_string()).join(format!("{id}.git"))
    }

    /// An empty repository, whole or not at all: what a crash leaves has no row and nobody's name.
    pub(crate) async fn create(&self, org: OrgId, id: RepositoryId, branch: &str) -> Result<()> {
        let path = self.path(org, id);
        let unfinished = path.with_extension("new");
        let parent = self.root.join(org.to_string());
        let (root, folder) = (self.root.clone(), parent.clone());
        blocking(move || {
            make_root(&root)?;
            fs::create_dir_all(folder)
        })
        .await
        .map_err(Error::internal)?;
        let mut command = git::command(&parent);
        command.args(["init", "--quiet", "--bare", "--template=", "--object-format=sha1"]);
        command.arg(format!("--initial-branch={branch}")).arg(&unfinished);
        git::run(command, LIMIT, &CancellationToken::new()).await.map_err(Error::internal)?;
        blocking(move || {
            flush(&unfinished)?;
            fs::rename(&unfinished, &path)?;
            fs::File::open(&parent)?.sync_all()
        })
        .await
        .map_err(Error::internal)
    }

    /// What HEAD names, which a clone checks out.
    pub(crate) async fn set_head(&self, path: &Path, branch: &str) -> Result<()> {
        let mut command = git::command(path);
        command.args(["symbolic-ref", "HEAD"]).arg(format!("refs/heads/{branch}"));
        git::run(command, LIMIT, &CancellationToken::new()).await.map_err(Error::internal)?;
        Ok(())
    }

    pub(crate) async fn remove(&self, org: OrgId, id: RepositoryId) -> io::Result<()> {
        match tokio::fs::remove_dir_all(self.path(org, id)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

/// The directory of all repositories. Private ones are in it: it is nobody's on this machine but the
/// server's.
pub(crate) fn make_root(root: &Path) -> io::Result<()> {
    if let Some(parent) = root.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(root) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// Bytes of all files, and packs.
pub(crate) async fn measure(path: PathBuf) -> Measure {
    blocking(move || Ok(walk(&path))).await.unwrap_or_default()
}

fn walk(path: &Path) -> Measure {
    let mut measure = Measure::default();
    let (mut folders, mut left) = (vec![path.to_owned()], MAX_ENTRIES);
    // A file that goes away meanwhile is no longer counted.
    while let Some(entries) = folders.pop().map(fs::read_dir) {
        for entry in entries.into_iter().flatten().flatten() {
            left = left.saturating_sub(1);
            if left == 0 {
                return measure;
            }
            match entry.metadata() {
                Ok(data) if data.is_dir() => folders.push(entry.path()),
                Ok(data) => {
                    measure.bytes += i64::try_from(data.len()).unwrap_or_default();
                    measure.packs +=
                        i32::from(entry.path().extension().is_some_and(|kind| kind == "pack"));
                }
                Err(_) => {}
            }
        }
    }
    measure
}

/// To the disk itself, files before the folders that name them.
fn flush(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            flush(&entry.path())?;
        } else {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    fs::File::open(path)?.sync_all()
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
