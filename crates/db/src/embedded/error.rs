//! Why the private PostgreSQL does not run, in words for whoever runs the server.

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    #[error(
        "there is no database: set DATABASE_URL (postgres://user:password@host/database) to use one \
         of your own. For a private one, which is not for containers, no PostgreSQL 15 or newer is \
         installed (looked on PATH and in the usual places{found}): install it (Debian, Ubuntu: \
         apt-get install postgresql; Fedora: dnf install postgresql-server; macOS: brew install \
         postgresql@17), or name its directory in LOOM_SERVER_PG_BIN"
    )]
    NotInstalled { found: String },

    #[error(
        "LOOM_SERVER_PG_BIN = {}: {problem}. It must be a directory with `postgres` and `initdb` \
         of PostgreSQL 15 or newer",
        dir.display()
    )]
    Given { dir: PathBuf, problem: String },

    #[error(
        "the data in {} is of PostgreSQL {cluster}, and that version is not here (found: {found}). \
         Install PostgreSQL {cluster} again, or name its directory in LOOM_SERVER_PG_BIN; to \
         upgrade, run pg_upgrade or move the data with pg_dump while the old version runs",
        dir.display()
    )]
    OtherMajor { dir: PathBuf, cluster: u32, found: String },

    #[error(
        "another Loom server{holder} uses {}. Stop it, or give this one a directory of its own \
         (LOOM_SERVER_DATA_DIR)",
        dir.display()
    )]
    Locked { dir: PathBuf, holder: String },

    #[error(
        "PostgreSQL does not run as root, and there is no user loom, postgres or nobody to run it \
         as. Add one (useradd --system loom), start Loom as another user, or set DATABASE_URL"
    )]
    NoUser,

    #[error(
        "user id {0} has no name on this system, and initdb needs one. Add a line for it to \
         /etc/passwd, start Loom as another user, or set DATABASE_URL"
    )]
    NamelessUser(u32),

    #[error(
        "PostgreSQL runs as user {user}, who may not enter {}. Allow it (chmod o+x {}), or put the \
         data elsewhere (LOOM_SERVER_DATA_DIR)", dir.display(), dir.display()
    )]
    NoEntry { dir: PathBuf, user: String },

    #[error(
        "{} belongs to another user (id {owner}). Start Loom as that user, or as root", dir.display()
    )]
    NotOwned { dir: PathBuf, owner: u32 },

    #[error(
        "{} belongs to root, and PostgreSQL does not run as root. Give it to another user \
         (chown -R postgres {})", dir.display(), dir.display()
    )]
    RootOwned { dir: PathBuf },

    #[error(
        "{} is not a directory that only user id {owner} can enter. Remove it, then start again",
        dir.display()
    )]
    SocketDirectory { dir: PathBuf, owner: u32 },

    #[error("initdb could not create a database in {}: {output}", dir.display())]
    Initdb { dir: PathBuf, output: String },

    #[error("PostgreSQL did not start: {output} (whole log: {})", log.display())]
    Start { output: String, log: PathBuf },

    #[error(
        "PostgreSQL is not ready after {waited_secs} s: {cause}. See {}", log.display()
    )]
    NotReady { waited_secs: u64, cause: String, log: PathBuf },

    #[error(
        "a PostgreSQL (process {pid}) runs on {} and neither answers nor ends. Look at it, stop it \
         (kill -INT {pid}), then start again", dir.display()
    )]
    Stuck { pid: i32, dir: PathBuf },

    #[error("cannot {what}: {cause}. Check that the directory can be written to, and the disk")]
    Io { what: String, cause: io::Error },
}

/// Says what was attempted when it fails.
pub(super) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, PrivateError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, PrivateError> {
        self.map_err(|cause| PrivateError::Io { what: what(), cause })
    }
}
