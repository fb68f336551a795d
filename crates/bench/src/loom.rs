//! Loom as it is measured: the release binary with its private PostgreSQL, one key, and the mock as its upstream.

use std::fs::{self, File, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::load;
use crate::process::Fleet;

/// For making a database and for starting on it.
const READY: Duration = Duration::from_secs(60);
pub(crate) const EMAIL: &str = "bench@example.com";
const KEY_PREFIX: &str = "loom_pat_";
const KEY_LENGTH: usize = 36;
/// What the server's environment keeps of the bench's own; its configuration is the bench's alone.
const KEPT: [&str; 4] = ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH"];

pub(crate) struct Loom {
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    setup: Setup,
}

impl Loom {
    /// A key of a further admin.
    pub(crate) async fn another_key(&self, email: &str) -> Result<String> {
        create_key(&self.setup, email).await
    }
}

struct Setup {
    binary: PathBuf,
    dir: PathBuf,
    environment: Vec<(String, String)>,
}

/// Starts the server and waits until it is ready. `extra` is more of its environment, each `NAME=value`.
pub(crate) async fn start(
    fleet: &mut Fleet,
    binary: &Path,
    upstream: SocketAddr,
    extra: &[String],
) -> Result<Loom> {
    let binary = fs::canonicalize(binary).with_context(|| {
        format!("{}: build it first, or say where it is with --loom", binary.display())
    })?;
    let data = fleet.dir.join("data");
    fs::create_dir(&data)?;
    for dir in [&fleet.dir, &data] {
        // PostgreSQL does not run as root: its own user must get through.
        fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    }
    let address = free_address()?;
    let setup = Setup {
        binary,
        dir: fleet.dir.clone(),
        environment: environment(address, &data, upstream, extra)?,
    };
    let log = fleet.dir.join("loom.log");

    let early = create_key(&setup, EMAIL).await;
    let mut command = setup.command();
    let output = File::create(&log)?;
    command.stdout(output.try_clone()?).stderr(output);
    let (pid, _) = fleet.start(&mut command)?;
    wait_ready(fleet, pid, address).await.with_context(|| tail(&log))?;
    let key = match early {
        Ok(key) => key,
        Err(early) => create_key(&setup, EMAIL).await.with_context(|| {
            format!("no key could be made, neither before the start ({early:#}) nor after it")
        })?,
    };
    Ok(Loom { pid, address, key, setup })
}

impl Setup {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env_clear().current_dir(&self.dir);
        command.envs(std::env::vars_os().filter(|(name, _)| KEPT.iter().any(|kept| name == kept)));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn environment(
    address: SocketAddr,
    data: &Path,
    upstream: SocketAddr,
    extra: &[String],
) -> Result<Vec<(String, String)>> {
    let ours = [
        ("HOST", address.ip().to_string()),
        ("PORT", address.port().to_string()),
        ("DATA_DIR", data.display().to_string()),
        ("OPENAI_API_KEY", "sk-bench".to_owned()),
        ("OPENAI_BASE_URL", format!("http://{upstream}/v1")),
        ("ANTHROPIC_API_KEY", "sk-bench".to_owned()),
        ("ANTHROPIC_BASE_URL", format!("http://{upstream}")),
        ("LOG_FORMAT", "json".to_owned()),
    ];
    let mut all: Vec<_> = ours.map(|(name, value)| (format!("LOOM_SERVER_{name}"), value)).into();
    for pair in extra {
        let (name, value) =
            pair.split_once('=').with_context(|| format!("{pair} is not NAME=value"))?;
        all.push((name.to_owned(), value.to_owned()));
    }
    Ok(all)
}

pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn create_key(setup: &Setup, email: &str) -> Result<String> {
    let mut command = setup.command();
    command
        .args(["admin", "create", email])
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    let output =
        timeout(READY, command.output()).await.context("making a key takes too long")??;
    let printed =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(
        output.status.success(),
        "admin create: {}: {}",
        output.status,
        last_lines(&printed.join("\n"), 5)
    );
    printed.iter().find_map(|text| find_key(text)).context("admin create has printed no key")
}

fn find_key(text: &str) -> Option<String> {
    text.match_indices(KEY_PREFIX).find_map(|(start, _)| {
        let rest = text.get(start + KEY_PREFIX.len()..)?;
        let length = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        (length == KEY_LENGTH)
            .then(|| format!("{KEY_PREFIX}{}", rest.get(..length).unwrap_or_default()))
    })
}

async fn wait_ready(fleet: &mut Fleet, pid: u32, address: SocketAddr) -> Result<()> {
    let request = load::request("GET", "/health/ready", address, None, "");
    let deadline = Instant::now() + READY;
    loop {
        let answer = timeout(READY, load::once(address, &request)).await.context("no answer")?;
        if matches!(answer, Ok((200, _))) {
            return Ok(());
        }
        if let Some(status) = fleet.ended(pid) {
            bail!("the server has ended: {status}");
        }
        if Instant::now() >= deadline {
            let seen = answer.map_or_else(
                |error| format!("{error:#}"),
                |(status, _)| format!("status {status}"),
            );
            bail!("the server is not ready after {} s: {seen}", READY.as_secs());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The end of the server's log, for a failure.
pub(crate) fn tail(log: &Path) -> String {
    let text =
        fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    format!("the server's last words:\n{}", last_lines(&text, 20))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::{find_key, last_lines};

    #[test]
    fn finds_the_key_in_what_was_printed() {
        let key = format!("loom_pat_{}", "a1B2".repeat(9));
        assert_eq!(find_key(&format!("Created.\nKey: {key}\nKeep it.\n")), Some(key.clone()));
        assert_eq!(find_key(&format!("{{\"key\":\"{key}\"}}")), Some(key.clone()));
        assert_eq!(find_key(&format!("starts with loom_pat_, as in {key}")), Some(key.clone()));
        assert_eq!(find_key(&format!("{key}x")), None);
        assert_eq!(find_key("loom_pat_short"), None);
        assert_eq!(find_key(""), None);
    }

    #[test]
    fn last_lines_are_the_last() {
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("", 2), "");
    }
}
