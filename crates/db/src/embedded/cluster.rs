//! The cluster's files: the lock, the data, the socket's directory, the log.

use std::{
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::geteuid,
};

use super::{
    binaries::Binaries,
    error::{Doing as _, PrivateError},
    process,
    user::RunAs,
};

/// `sun_path` holds 104 bytes on some systems and 108 on others, the final zero included.
const SOCKET_PATH_MAX: usize = 103;
const LOG_MAX: u64 = 16 << 20;
pub(super) const DATABASE: &str = "loom";
pub(super) const USER: &str = "loom";

/// What lies where in the server's data directory.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
    /// Belongs to the user that PostgreSQL runs as; all else belongs to the server.
    pub(super) home: PathBuf,
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
}

impl Layout {
    /// Makes the data directory and looks no further.
    pub(super) fn new(data_dir: &Path) -> Result<Self, PrivateError> {
        // As root, PostgreSQL runs as another user, who must be able to pass through.
        let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(data_dir)
            .doing(|| format!("make {}", data_dir.display()))?;
        let root = fs::canonicalize(data_dir).doing(|| format!("find {}", data_dir.display()))?;
        let home = root.join("postgres");
        Ok(Self { data: home.join("data"), log: root.join("postgres.log"), home, root })
    }

    /// One server a data directory, for as long as the answer lives.
    pub(super) fn lock(&self) -> Result<Flock<File>, PrivateError> {
        let path = self.root.join("postgres.lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).doing(|| format!("open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                let pid = std::process::id();
                let written = lock.set_len(0).and_then(|()| write!(*lock, "{pid}"));
                written.doing(|| format!("write {}", path.display()))?;
                Ok(lock)
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                let pid = fs::read_to_string(&path).unwrap_or_default();
                let holder =
                    if pid.is_empty() { pid } else { format!(" (process {})", pid.trim()) };
                Err(PrivateError::Locked { dir: self.root.clone(), holder })
            }
            Err((_, error)) => {
                Err(std::io::Error::from(error)).doing(|| format!("lock {}", path.display()))
            }
        }
    }

    /// The major version of the cluster that is there.
    pub(super) fn major(&self) -> Option<u32> {
        fs::read_to_string(self.data.join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    pub(super) fn make_home(&self, user: &RunAs) -> Result<(), PrivateError> {
        // Ours, and it may have been made by hand: let PostgreSQL's user pass, not look around.
        if user.switch
            && let Ok(metadata) = fs::metadata(&self.root)
            && metadata.uid() == 0
            && metadata.permissions().mode() & 0o001 == 0
        {
            let open = fs::Permissions::from_mode(metadata.permissions().mode() & 0o7777 | 0o011);
            fs::set_permissions(&self.root, open)
                .doing(|| format!("let {} enter {}", user.name, self.root.display()))?;
        }
        user.check_entry(&self.root)?;
        user.make_private(&self.home)
    }

    /// Makes the cluster under a temporary name first, so that an interrupted attempt leaves none.
    pub(super) async fn initdb(
        &self,
        binaries: &Binaries,
        user: &RunAs,
        sync: bool,
    ) -> Result<(), PrivateError> {
        self.remove_leftovers();
        let new = self.home.join(format!("new-{}", std::process::id()));
        let mut output = String::new();
        for locale in locales(binaries.major) {
            let mut command = process::command(&binaries.initdb(), user, &self.home);
            command.arg("-D").arg(&new).args(["-U", USER, "-A", "trust", "-E", "UTF8"]);
            command.args(["--no-instructions", "--data-checksums"]).args(*locale);
            if !sync {
                command.arg("--no-sync");
            }
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            let mut command = tokio::process::Command::from(command);
            let run = command.kill_on_drop(true).output().await;
            let run = run.doing(|| format!("run {}", binaries.initdb().display()))?;
            if run.status.success() {
                return fs::rename(&new, &self.data)
                    .and_then(|()| File::open(&self.home)?.sync_all())
                    .doing(|| format!("rename {}", new.display()));
            }
            output = String::from_utf8_lossy(&run.stderr).trim().to_owned();
            let _ = fs::remove_dir_all(&new);
            if !output.contains("locale") {
                break;
            }
        }
        Err(PrivateError::Initdb { dir: self.home.clone(), output })
    }

    fn remove_leftovers(&self) {
        for entry in fs::read_dir(&self.home).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("new-") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// A directory that only PostgreSQL's user and root can enter: it stands for a password.
    pub(super) fn socket_dir(&self, user: &RunAs) -> Result<PathBuf, PrivateError> {
        let near = self.home.join("run");
        let dir = if near.join(".s.PGSQL.5432").as_os_str().len() <= SOCKET_PATH_MAX {
            near
        } else {
            let mut hash = DefaultHasher::new();
            self.root.as_os_str().as_bytes().hash(&mut hash);
            PathBuf::from(format!("/tmp/loom-{:016x}", hash.finish()))
        };
        user.make_private(&dir)?;
        if !user.has_private(&dir) {
            return Err(PrivateError::SocketDirectory { dir, owner: user.uid });
        }
        Ok(dir)
    }

    /// The log, opened to append; one that has grown large is set aside first.
    pub(super) fn open_log(&self) -> Result<(File, u64), PrivateError> {
        if fs::metadata(&self.log).is_ok_and(|metadata| metadata.len() > LOG_MAX) {
            let _ = fs::rename(&self.log, self.log.with_extension("log.old"));
        }
        // Closed to others: it quotes statements that failed, with what was in them.
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.log);
        let file = opened.doing(|| format!("open {}", self.log.display()))?;
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        Ok((file, length))
    }

    /// The last lines that were logged after `from`.
    pub(super) fn log_tail(&self, from: u64) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            let start = from.max(file.metadata()?.len().saturating_sub(2000));
            file.seek(SeekFrom::Start(start))?;
            let mut tail = Vec::new();
            file.take(2000).read_to_end(&mut tail)?;
            Ok(tail)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_owned()
    }
}

/// Characters by Unicode, order by code point: the same on each machine. Before PostgreSQL 17 this
/// needs the system's C.UTF-8, which not every one has.
fn locales(major: u32) -> &'static [&'static [&'static str]] {
    if major >= 17 {
        &[&["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]]
    } else {
        &[&["--locale=C", "--lc-ctype=C.UTF-8"], &["--locale=C"]]
    }
}
