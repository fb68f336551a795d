//! The user that PostgreSQL runs as: it refuses to run as root.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown},
    path::Path,
};

use nix::unistd::{Uid, User, geteuid};

use super::error::{Doing as _, PrivateError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunAs {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) name: String,
    /// The server is root and has to become this user.
    pub(super) switch: bool,
}

impl RunAs {
    /// The owner of an existing cluster, else as the server, and for root one of a few known users.
    pub(super) fn choose(cluster: &Path) -> Result<Self, PrivateError> {
        let me = geteuid();
        let dir = || cluster.to_owned();
        let owner = fs::metadata(cluster).ok().map(|metadata| (metadata.uid(), metadata.gid()));
        match owner {
            Some((0, _)) => Err(PrivateError::RootOwned { dir: dir() }),
            Some((uid, gid)) if me.is_root() => {
                let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
                let name = user.map_or_else(|| uid.to_string(), |user| user.name);
                Ok(Self { uid, gid, name, switch: true })
            }
            Some((owner, _)) if owner != me.as_raw() => {
                Err(PrivateError::NotOwned { dir: dir(), owner })
            }
            None if me.is_root() => ["loom", "postgres", "nobody"]
                .into_iter()
                .find_map(|name| User::from_name(name).ok().flatten())
                .map(|user| Self {
                    uid: user.uid.as_raw(),
                    gid: user.gid.as_raw(),
                    name: user.name,
                    switch: true,
                })
                .ok_or(PrivateError::NoUser),
            // An existing cluster runs under a user without a name, a new one cannot be made.
            _ => match User::from_uid(me).ok().flatten() {
                Some(user) => Ok(Self {
                    uid: me.as_raw(),
                    gid: user.gid.as_raw(),
                    name: user.name,
                    switch: false,
                }),
                None if owner.is_some() => {
                    Ok(Self { uid: me.as_raw(), gid: 0, name: me.to_string(), switch: false })
                }
                None => Err(PrivateError::NamelessUser(me.as_raw())),
            },
        }
    }

    /// Makes a directory that only this user (and root) can enter, unless it is there already.
    pub(super) fn make_private(&self, dir: &Path) -> Result<(), PrivateError> {
        use std::os::unix::fs::DirBuilderExt as _;
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) if self.switch => lchown(dir, Some(self.uid), Some(self.gid))
                .doing(|| format!("give {} to {}", dir.display(), self.name)),
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error).doing(|| format!("make {}", dir.display())),
        }
    }

    /// Whether `dir` is a directory that only this user (and root) can enter.
    pub(super) fn has_private(&self, dir: &Path) -> bool {
        fs::symlink_metadata(dir).is_ok_and(|metadata| {
            metadata.is_dir()
                && metadata.uid() == self.uid
                && metadata.permissions().mode().trailing_zeros() >= 6
        })
    }

    /// The first directory on the way to `dir`, itself included, that this user may not enter.
    pub(super) fn check_entry(&self, dir: &Path) -> Result<(), PrivateError> {
        if !self.switch {
            return Ok(());
        }
        let closed = dir.ancestors().find(|dir| {
            fs::metadata(dir).is_ok_and(|metadata| {
                let mode = metadata.permissions().mode();
                let bit = if metadata.uid() == self.uid {
                    0o100
                } else if metadata.gid() == self.gid {
                    0o010
                } else {
                    0o001
                };
                mode & bit == 0
            })
        });
        closed.map_or(Ok(()), |dir| {
            Err(PrivateError::NoEntry { dir: dir.to_owned(), user: self.name.clone() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_directory_is_closed() {
        let dir = std::env::temp_dir().join(format!("loom-entry-{}", std::process::id()));
        let inner = dir.join("inner");
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        let someone = RunAs { uid: 54_321, gid: 54_321, name: "someone".to_owned(), switch: true };
        let closed = someone.check_entry(&inner).unwrap_err().to_string();
        fs::remove_dir_all(&dir).unwrap();
        assert!(closed.contains(&format!("chmod o+x {})", dir.display())), "{closed}");
        assert!(closed.contains("user someone"), "{closed}");
    }
}
