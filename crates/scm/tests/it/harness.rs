//! A server, its people, and git as they have it: without the configuration of whoever runs the tests.

use std::path::{Path, PathBuf};

use loom_testkit::{Caller, Setup, TestApp, User};
use serde_json::{Value, json};
use tokio::process::Command;

/// A server with one user, and a folder for her clones.
pub(crate) struct World {
    pub(crate) app: TestApp,
    pub(crate) ada: User,
    pub(crate) folder: tempfile::TempDir,
}

/// What a git command came to.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn expect(self) -> String {
        assert!(self.ok, "{}", self.err);
        self.out.trim().to_owned()
    }

    #[track_caller]
    pub(crate) fn refused(self, with: &str) {
        assert!(!self.ok && self.err.contains(with), "{self:?}");
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let app = setup.start().await;
        let ada = app.user("ada@example.com").await;
        Self { app, ada, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) async fn create(&self, name: &str) -> Value {
        self.ada.post("/api/repos", &json!({"name": name})).await.expect(201).json()
    }

    /// Where it lies on the server's disk.
    pub(crate) fn bare(&self, repository: &Value) -> PathBuf {
        let [org, id] = ["org_id", "id"].map(|name| repository[name].as_str().unwrap());
        self.app.data_dir().join(format!("repos/{org}/{id}.git"))
    }

    /// A clone URL with a credential in it.
    pub(crate) fn url(&self, caller: &Caller, path: &str) -> String {
        let host = self.app.url().replace("http://", "");
        match &caller.key {
            Some(key) => format!("http://git:{key}@{host}/git/{path}"),
            None => format!("http://{host}/git/{path}"),
        }
    }

    pub(crate) fn own(&self, path: &str) -> String {
        self.url(&self.ada, &format!("{}/{path}", self.ada.org))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn git(&self, dir: &str, arguments: &[&str]) -> Said {
        git(&self.path(dir), arguments).await
    }

    /// A clone with one commit, not pushed yet.
    pub(crate) async fn work(&self, dir: &str, url: &str) {
        self.git("", &["clone", "-q", url, dir]).await.expect();
        self.git(dir, &["checkout", "-q", "-B", "main"]).await.expect();
        self.commit(dir, "a.txt", b"one").await;
    }

    pub(crate) async fn commit(&self, dir: &str, file: &str, content: &[u8]) -> String {
        std::fs::write(self.path(dir).join(file), content).unwrap();
        self.git(dir, &["add", "."]).await.expect();
        self.git(dir, &["commit", "-q", "-m", file]).await.expect();
        self.git(dir, &["rev-parse", "HEAD"]).await.expect()
    }
}

pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir).env_clear().kill_on_drop(true);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs([
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", "Ada"),
        ("GIT_AUTHOR_EMAIL", "ada@example.com"),
        ("GIT_COMMITTER_NAME", "Ada"),
        ("GIT_COMMITTER_EMAIL", "ada@example.com"),
        ("LC_ALL", "C"),
    ]);
    command
}

pub(crate) async fn git(dir: &Path, arguments: &[&str]) -> Said {
    let done = command(dir).args(arguments).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { ok: done.status.success(), out: text(done.stdout), err: text(done.stderr) }
}

/// Bytes that compress to nothing smaller, the same each time.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Processes that work in `path`.
pub(crate) fn processes_in(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let in_it = entries.filter_map(|entry| {
        let pid = entry.file_name().into_string().ok()?;
        pid.parse::<u32>().ok()?;
        let cwd = std::fs::read_link(entry.path().join("cwd")).ok()?;
        // By its text: of a directory that is gone the link has a word behind it.
        cwd.to_str()?.starts_with(path.to_str()?).then_some(pid)
    });
    in_it.collect()
}
