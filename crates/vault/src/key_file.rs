//! The master key in the data directory, made on the first start. Processes that start together end
//! with the same key: the file gets its name by a hard link, which fails when there is one already.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{MasterKey, OpenError, key::random};

/// Its name in the data directory.
pub const NAME: &str = "master.key";

/// As [`read_or_make`], and makes none.
pub(crate) fn find(data_dir: &Path) -> Result<Option<MasterKey>, OpenError> {
    match read(&data_dir.join(NAME)) {
        Err(OpenError::File { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

pub(crate) fn read_or_make(data_dir: &Path) -> Result<MasterKey, OpenError> {
    let path = data_dir.join(NAME);
    match read(&path) {
        Err(OpenError::File { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            make(data_dir, &path)
        }
        result => result,
    }
}

fn read(path: &Path) -> Result<MasterKey, OpenError> {
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|cause| OpenError::File {
        path: path.to_owned(),
        what: "read",
        cause,
    })?;
    tighten(path);
    text.parse().map_err(|cause| OpenError::NotAKey { path: path.to_owned(), cause })
}

/// A volume may have been mounted with a wider mode for its files (Kubernetes does that for
/// `fsGroup`): mended and told, not refused.
fn tighten(path: &Path) {
    let open_to_others =
        fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o077 != 0);
    if open_to_others {
        let mended = fs::set_permissions(path, Permissions::from_mode(0o600));
        tracing::warn!(
            path = %path.display(),
            mended = mended.is_ok(),
            "the master key could be read by other users of this machine"
        );
    }
}

fn make(data_dir: &Path, path: &Path) -> Result<MasterKey, OpenError> {
    let key = MasterKey::generate().map_err(OpenError::Random)?;
    let suffix: [u8; 8] = random().map_err(OpenError::Random)?;
    let temporary = data_dir.join(format!(".{NAME}.{}", hex::encode(suffix)));
    let linked = write(data_dir, &temporary, &key).and_then(|()| fs::hard_link(&temporary, path));
    // Left over only by a crash; it holds a key that nobody uses.
    let _ = fs::remove_file(&temporary);
    let failed = |what, cause| OpenError::File { path: path.to_owned(), what, cause };
    match linked {
        Ok(()) => {
            sync(data_dir).map_err(|cause| failed("kept", cause))?;
            tracing::info!(
                path = %path.display(),
                key_id = %key.id(),
                "made a master key; without it the stored secrets are lost, so back it up"
            );
            Ok(key)
        }
        // Another process was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(cause) => Err(failed("made", cause)),
    }
}

fn write(data_dir: &Path, temporary: &PathBuf, key: &MasterKey) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(data_dir)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(key.to_text().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// The name of a new file lasts only when its directory was synced.
fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
