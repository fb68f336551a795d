//! Settings, the data directory, programs, and the server on this machine if one runs.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use loom_core::health::Status;
use loom_db::Tools;
use loom_vault::{KEY_FILE, Vault};
use serde::Deserialize;
use serde_json::Value;

use super::report::Finding;
use crate::{
    config::{Config, Loaded},
    health,
};

/// What is so near may be meant.
const NEAR: usize = 4;
const SERVER: Duration = Duration::from_secs(5);

pub(super) fn settings(loaded: &Loaded) -> Vec<Finding> {
    let check = "settings";
    let mut findings = Vec::new();
    for problem in &loaded.problems {
        let advice = "docs/settings.md and .env.example list every setting with what it may be.";
        findings.push(Finding::problem(check, problem.to_string(), advice));
    }
    for name in &loaded.unknown {
        let near = loaded
            .settings
            .iter()
            .map(|setting| (strsim::damerau_levenshtein(name, &setting.name), &setting.name))
            .min()
            .filter(|(distance, _)| *distance <= NEAR);
        let advice = near.map_or_else(
            || "Take it away, or look for its name in docs/settings.md.".to_owned(),
            |(_, near)| format!("Is {near} meant?"),
        );
        findings.push(Finding::warning(check, format!("nothing reads {name}"), advice));
    }
    let component = health::judge(&loaded.config);
    if component.status > Status::Healthy {
        findings.push(Finding::of(check, component, ""));
    }
    if findings.is_empty() {
        let set = loaded.settings.iter().filter(|setting| setting.value != setting.default).count();
        let kind = if loaded.config.production { "production" } else { "development" };
        findings
            .push(Finding::ok(check, format!("sound; {set} differ from their defaults; {kind}")));
    }
    findings
}

pub(super) async fn data(config: &Config) -> Vec<Finding> {
    // A network file system may hang.
    let (own, path) = (config.clone(), config.data_dir.clone());
    let looked = tokio::task::spawn_blocking(move || (directory(&path), key(&own))).await;
    let Ok((directory, key)) = looked else { return Vec::new() };
    let mut findings = vec![directory];
    let critical = config.database.url.is_none();
    for check in
        [health::disk(&config.data_dir, config.health, critical), health::memory(config.health)]
    {
        let component = (check.probe)().await;
        let free = component.inside.get("free_bytes").and_then(Value::as_u64);
        let well = free.map_or("enough".to_owned(), |free| format!("{} MiB free", free >> 20));
        findings.push(Finding::of(check.name, component, well));
    }
    findings.push(key);
    findings
}

/// What root makes there, the server's user could not write to.
pub(super) fn is_anothers(path: &Path) -> bool {
    nix::unistd::geteuid().is_root() && fs::metadata(path).is_ok_and(|about| about.uid() != 0)
}

fn directory(path: &Path) -> Finding {
    let check = "data directory";
    let shown = path.display();
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let parent = path.ancestors().skip(1).find(|path| path.exists());
            return match parent.map_or(Ok(()), |parent| {
                nix::unistd::access(parent, nix::unistd::AccessFlags::W_OK)
            }) {
                Ok(()) => Finding::ok(check, format!("{shown} is made at the first start")),
                Err(_) => Finding::problem(
                    check,
                    format!("{shown} is not there and cannot be made"),
                    "Make it and give it to the server's user (install -d -o loom -m 0711), or set \
                     LOOM_SERVER_DATA_DIR to another place.",
                ),
            };
        }
        Err(error) => {
            let advice = "See that it is mounted, and that the server's user may enter it.";
            return Finding::problem(
                check,
                format!("{shown} cannot be looked at: {error}"),
                advice,
            );
        }
    };
    if !about.is_dir() {
        return Finding::problem(
            check,
            format!("{shown} is no directory"),
            "Set LOOM_SERVER_DATA_DIR to a directory.",
        );
    }
    if is_anothers(path) {
        let user = about.uid();
        return Finding::warning(
            check,
            format!(
                "{shown} belongs to user {user}, and this is root: what is written there is not tried"
            ),
            format!("Run this as the server's user: sudo -u '#{user}'."),
        );
    }
    let probe = path.join(format!(".doctor-{}", std::process::id()));
    let written = fs::write(&probe, b"loom").and_then(|()| fs::remove_file(&probe));
    if let Err(error) = written {
        let me = nix::unistd::geteuid();
        let advice = if error.kind() == std::io::ErrorKind::PermissionDenied {
            format!(
                "It belongs to user {}: run this as the server's user, or give it to that one (chown -R).",
                about.uid()
            )
        } else {
            "Make room where it lies, and see that it is mounted to be written to.".to_owned()
        };
        return Finding::problem(
            check,
            format!("{shown} cannot be written to by user {me}: {error}"),
            advice,
        );
    }
    let mode = about.permissions().mode();
    // The group of root may: in the container image whichever user it runs as is in that one.
    if mode & 0o002 != 0 || (mode & 0o020 != 0 && about.gid() != 0) {
        return Finding::warning(
            check,
            format!("other users of this machine may write into {shown}"),
            format!("chmod go-w {shown}"),
        );
    }
    Finding::ok(check, format!("{shown} can be written to"))
}

fn key(config: &Config) -> Finding {
    let check = "master key";
    let path = config.data_dir.join(KEY_FILE);
    let mode = fs::metadata(&path).map(|about| about.permissions().mode()).unwrap_or_default();
    match Vault::key_in_force(&config.vault, &config.data_dir) {
        Ok(Some(key)) if config.vault.master_key.is_some() => {
            Finding::ok(check, format!("{}, of the settings", key.id()))
        }
        Ok(Some(key)) if mode & 0o077 == 0 => Finding::ok(
            check,
            format!(
                "{} in {}; back it up, without it stored secrets are lost",
                key.id(),
                path.display()
            ),
        ),
        // Whoever reads it mends its mode, as the server does.
        Ok(Some(key)) => Finding::warning(
            check,
            format!("other users of this machine could read {} in {}", key.id(), path.display()),
            "It is closed now. If one may have read it: a new LOOM_SERVER_MASTER_KEY, and this one as LOOM_SERVER_MASTER_KEY_PREVIOUS.",
        ),
        Ok(None) => {
            Finding::ok(check, "made at the first start; servers of one database must share it")
        }
        Err(error) => Finding::problem(
            check,
            format!("{:#}", anyhow::Error::from(error)),
            "Run this as the server's user. If it is: put the right key back from its backup, without it \
             stored secrets cannot be read.",
        ),
    }
}

/// Of PostgreSQL, where it is ours to run, and to make backups by. Git has a finding of its own.
pub(super) async fn programs(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (database, is_private) = (config.database.clone(), config.database.url.is_none());
    let looked = tokio::task::spawn_blocking(move || {
        let private = is_private.then(|| loom_db::embedded::find_binaries(&database));
        (private, Tools::find(database.pg_bin.as_deref(), 15))
    });
    let Ok((private, tools)) = looked.await else { return findings };
    match private {
        None => {}
        Some(Ok(found)) => findings.push(Finding::ok("postgresql", found)),
        Some(Err(error)) => findings.push(Finding::problem(
            "postgresql",
            error.to_string(),
            "Install it, or set DATABASE_URL.",
        )),
    }
    if let Err(error) = tools {
        findings.push(Finding::warning(
            "backup",
            error.to_string(),
            "`loom-server backup` and `restore` need them; the server itself does not.",
        ));
    }
    findings
}

/// Whether a server of ours has the port, and what it says of itself.
pub(super) async fn server(config: &Config) -> Vec<Finding> {
    let check = "server";
    let ip = match config.http.host {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    let address = SocketAddr::new(ip, config.http.port);
    let client = reqwest::Client::builder().timeout(SERVER).no_proxy().build();
    let Ok(client) = client else { return Vec::new() };
    let answer = match client.get(format!("http://{address}/health")).send().await {
        Ok(answer) => answer,
        Err(error) if error.is_connect() => {
            return vec![Finding::skipped(check, format!("none runs at {address}"))];
        }
        Err(error) => {
            return vec![Finding::problem(
                check,
                format!("what has {address} does not answer: {error}"),
                "If it is the server, look at its log; if it is something else, set LOOM_SERVER_PORT.",
            )];
        }
    };
    let said: Option<Said> = answer.json().await.ok();
    let Some(Said { status, version, components }) = said else {
        return vec![Finding::warning(
            check,
            format!("something else answers at {address}"),
            "The server cannot start there: end it, or set LOOM_SERVER_PORT.",
        )];
    };
    let unwell: Vec<_> = components
        .into_iter()
        .filter(|(_, part)| matches!(part.status.as_str(), "degraded" | "unhealthy"))
        .map(|(name, part)| format!("{name} {}", part.status))
        .collect();
    let Version { version, git_sha } = version;
    let runs = format!("{version} of revision {git_sha} runs at {address}");
    let advice = "GET /api/admin/health tells what to do for each.";
    vec![match status.as_str() {
        "healthy" => Finding::ok(check, runs),
        "degraded" => Finding::warning(check, format!("{runs}: {}", unwell.join(", ")), advice),
        _ => Finding::problem(check, format!("{runs}: {}", unwell.join(", ")), advice),
    }]
}

/// What `GET /health` of a server that may be of another version says.
#[derive(Deserialize)]
struct Said {
    status: String,
    version: Version,
    components: BTreeMap<String, Part>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    git_sha: String,
}

#[derive(Deserialize)]
struct Part {
    status: String,
}
