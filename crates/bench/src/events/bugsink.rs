//! Bugsink as its guide for one server sets it up: gunicorn with four workers, SQLite, its own workers behind.

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use crate::{
    load,
    loom::free_address,
    process::{self, Fleet, Usage},
};

const READY: Duration = Duration::from_secs(60);
/// Its quotas are for small machines; a project of many events is not to be thinned out meanwhile.
const SETTINGS: &str = "
BUGSINK.update({name: 10**9 for name in (
    'MAX_EVENTS_PER_PROJECT_PER_5_MINUTES', 'MAX_EVENTS_PER_PROJECT_PER_HOUR', 'MAX_EVENTS_PER_PROJECT_PER_MONTH',
    'MAX_EVENTS_PER_5_MINUTES', 'MAX_EVENTS_PER_HOUR', 'MAX_EVENTS_PER_MONTH')})
";
const PROJECT: &str = "
from projects.models import Project
print('DSN', Project.objects.create(name='Bench', retention_max_event_count=10**8).dsn)
";
const COUNT: &str = "
import sqlite3, sys
print(sqlite3.connect(sys.argv[1], timeout=30).execute('SELECT count(*) FROM events_event').fetchone()[0])
";

pub(super) struct Bugsink {
    bin: PathBuf,
    dir: PathBuf,
    web: u32,
    digest: u32,
    pub(super) address: SocketAddr,
    pub(super) project: String,
    pub(super) key: String,
}

pub(super) async fn start(fleet: &mut Fleet, peers: &Path) -> Result<Bugsink> {
    let bin = std::path::absolute(peers.join("bugsink/bin"))?;
    ensure!(bin.exists(), "{}: crates/bench/peers/install makes it", bin.display());
    let dir = fleet.dir.join("bugsink");
    std::fs::create_dir(&dir)?;
    let (address, base) = (free_address()?, format!("--base-dir={}", dir.display()));
    let manage = |arguments: &[&str]| {
        let mut command = Command::new(bin.join("bugsink-manage"));
        command.args(arguments).current_dir(&dir);
        command
    };
    let mut create = Command::new(bin.join("bugsink-create-conf"));
    create.args(["--template=singleserver", "--host=127.0.0.1", &base]).current_dir(&dir);
    output(&mut create).await?;
    let settings = dir.join("bugsink_conf.py");
    let text = std::fs::read_to_string(&settings)? + SETTINGS;
    std::fs::write(&settings, text)?;
    output(&mut manage(&["migrate"])).await?;
    output(&mut manage(&["migrate", "snappea", "--database=snappea"])).await?;
    let told = output(&mut manage(&["shell", "-c", PROJECT])).await?;
    let dsn = told.lines().find_map(|line| line.strip_prefix("DSN https://"));
    let (key, rest) = dsn.and_then(|dsn| dsn.split_once('@')).context("no DSN was printed")?;
    let project = rest.rsplit_once('/').context("the DSN is none")?.1.to_owned();

    let mut web = Command::new(bin.join("gunicorn"));
    web.args(["--bind", &address.to_string(), "--workers=4", "bugsink.wsgi"]).current_dir(&dir);
    let web = quiet(fleet, &mut web, "bugsink-web")?;
    let mut digest = Command::new(bin.join("bugsink-runsnappea"));
    let digest = quiet(fleet, digest.current_dir(&dir), "bugsink-digest")?;
    let request = load::request("GET", "/health/ready", address, None, "");
    let deadline = Instant::now() + READY;
    while !matches!(timeout(READY, load::once(address, &request)).await, Ok(Ok(_))) {
        for pid in [web, digest] {
            if let Some(status) = fleet.ended(pid) {
                bail!("it has ended: {status}");
            }
        }
        ensure!(Instant::now() < deadline, "it is not ready after {} s", READY.as_secs());
        sleep(Duration::from_millis(100)).await;
    }
    Ok(Bugsink { bin, dir, web, digest, address, project, key: key.to_owned() })
}

fn quiet(fleet: &mut Fleet, command: &mut Command, name: &str) -> Result<u32> {
    let log = File::create(fleet.dir.join(format!("{name}.log")))?;
    Ok(fleet.start(command.stdout(log.try_clone()?).stderr(log))?.0)
}

async fn output(command: &mut Command) -> Result<String> {
    let output = timeout(READY, command.kill_on_drop(true).output()).await??;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?}: {told} {error}", command.as_std());
    Ok(told)
}

impl Bugsink {
    /// Of what accepts, and of all of it.
    pub(super) fn usage(&self) -> (Usage, Usage) {
        let (web, digest) = (process::usage_of_tree(self.web), process::usage_of_tree(self.digest));
        let all = Usage {
            cpu: web.cpu + digest.cpu,
            rss_kib: web.rss_kib + digest.rss_kib,
            peak_kib: web.peak_kib + digest.peak_kib,
        };
        (web, all)
    }

    /// Events that were digested, ever.
    pub(super) async fn digested(&self) -> Result<u64> {
        let mut command = Command::new(self.bin.join("python"));
        let told = command.args(["-c", COUNT]).arg(self.dir.join("db.sqlite3"));
        Ok(output(told).await?.trim().parse()?)
    }
}
