//! Files and their sums, in the form of `sha256sum`, so that anybody can check a backup without us.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

const SUMS: &str = "SHA256SUMS";

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// For the owner alone.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Into a file that is not there yet, for the owner alone, and onto the disk.
pub(super) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    copy_file(from, to)
        .with_context(|| format!("{} cannot be copied to {}", from.display(), to.display()))
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut read = File::open(from)?;
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut read, &mut written)?;
    written.sync_all()
}

/// All files below `from`; how many. One that goes away meanwhile was not wanted any more. Where there is
/// nothing, nothing is made.
pub(super) fn copy_tree(from: &Path, to: &Path, wanted: fn(&str) -> bool) -> anyhow::Result<usize> {
    let mut count = 0;
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(from.join(&folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("{} cannot be read", from.join(&folder).display()));
            }
        };
        make_directory(&to.join(&folder))?;
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && wanted(&entry.file_name().to_string_lossy()) {
                match copy_file(&from.join(&path), &to.join(&path)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    copied => {
                        copied.with_context(|| format!("{} cannot be copied", path.display()))?;
                        count += 1;
                    }
                }
            }
        }
    }
    Ok(count)
}

pub(super) fn every(_: &str) -> bool {
    true
}

/// Whether there is any file below it.
pub(super) fn holds_files(path: &Path) -> bool {
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                return true;
            }
        }
    }
    false
}

#[derive(Default)]
pub(super) struct Sums {
    all: BTreeMap<String, String>,
    bytes: u64,
}

impl Sums {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn add(&mut self, root: &Path, file: &Path) -> anyhow::Result<()> {
        let name = file.strip_prefix(root)?.to_str().context("a name that is no UTF-8")?;
        let (sum, bytes) =
            sum(file).with_context(|| format!("{} cannot be read again", file.display()))?;
        self.all.insert(name.to_owned(), sum);
        self.bytes += bytes;
        Ok(())
    }

    pub(super) fn add_tree(&mut self, root: &Path, folder: &Path) -> anyhow::Result<()> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                self.add_tree(root, &path)?;
            } else {
                self.add(root, &path)?;
            }
        }
        Ok(())
    }

    pub(super) fn write(&self, root: &Path) -> anyhow::Result<()> {
        let line = |(name, sum): (&String, &String)| format!("{sum}  {name}\n");
        let text: String = self.all.iter().map(line).collect();
        fs::write(root.join(SUMS), text).context("the sums cannot be written")
    }
}

fn sum(file: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(file)?;
    let mut hash = Sha256::new();
    let (mut buffer, mut bytes) = (vec![0; 1 << 16], 0);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex::encode(hash.finalize()), bytes));
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
}

/// Is every file as it was written?
pub(super) fn verify(root: &Path) -> anyhow::Result<()> {
    let sums = File::open(root.join(SUMS))
        .with_context(|| format!("{} is not a whole backup: no {SUMS} in it", root.display()))?;
    for line in BufReader::new(sums).lines() {
        let line = line?;
        let (wanted, name) = line.split_once("  ").context("a line of the sums is broken")?;
        let (found, _) = sum(&root.join(name)).with_context(|| format!("{name} is missing"))?;
        if found != wanted {
            bail!("{name} is not as it was written: the backup is damaged");
        }
    }
    Ok(())
}
