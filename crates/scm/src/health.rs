//! Is git there, and the disk?

use std::{path::Path, sync::PoisonError, time::Duration};

use loom_core::{
    health::{Check, Component, Status},
    telemetry::Metric,
};
use tokio_util::sync::CancellationToken;

use crate::{Scm, git};

/// The metrics of this crate.
pub const METRICS: &[Metric] = &[
    Metric::counter(
        "loom_git_requests_total",
        "Clones, fetches and pushes served, by how they ended.",
        &["service", "outcome"],
    ),
    Metric::histogram("loom_git_request_seconds", "Time of a clone, fetch or push.", &["service"]),
    Metric::counter(
        "loom_git_bytes_total",
        "Bytes of clones, fetches and pushes.",
        &["service", "direction"],
    ),
    Metric::counter(
        "loom_git_refused_total",
        "Clones, fetches and pushes refused because too many were under way.",
        &[],
    ),
    Metric::gauge("loom_git_processes", "Processes of git that serve somebody now.", &[]),
    Metric::counter(
        "loom_git_maintenance_total",
        "Maintenances of a repository, by how they ended.",
        &["status"],
    ),
    Metric::histogram(
        "loom_git_maintenance_seconds",
        "Time of a maintenance of a repository.",
        &[],
    ),
];

/// Within the limit of the server.
const LIMIT: Duration = Duration::from_millis(400);

impl Scm {
    /// Starts git and writes to the disk; tells of repositories whose directory is gone.
    pub fn health(&self) -> Check {
        let scm = self.clone();
        Check::new("scm", move || {
            let scm = scm.clone();
            async move { scm.probe().await }
        })
    }

    async fn probe(&self) -> Component {
        let root = self.disk.root.clone();
        let written = crate::disk::blocking(move || write(&root)).await;
        let mut command = git::command(Path::new("/"));
        command.arg("version");
        let version = git::run(command, LIMIT, &CancellationToken::new()).await;
        let missing = self.still_missing();
        let component = match (&written, &version) {
            (Err(error), _) => {
                tracing::warn!(%error, "the directory of the repositories cannot be written to");
                Component::new(Status::Unhealthy)
                    .error("the directory of the repositories cannot be written to")
                    .code(
                        "SCM_DISK",
                        "The log says why: a full disk, a mount that is gone, or rights. It is `repos` in \
                         LOOM_SERVER_DATA_DIR.",
                    )
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "git does not run");
                Component::new(Status::Unhealthy)
                    .error("git does not run: is it installed?")
                    .code("SCM_GIT_MISSING", "Install git, where the server's PATH finds it.")
            }
            (_, Ok(said)) if git::version(said).is_none_or(|version| version < git::OLDEST) => {
                let (major, minor) = git::OLDEST;
                Component::new(Status::Unhealthy)
                    .error(format!("git {major}.{minor} or newer is needed"))
                    .code("SCM_GIT_OLD", "Install a newer git.")
            }
            _ if missing > 0 => Component::new(Status::Degraded)
                .error("repositories have no directory here: servers must share their data directory")
                .code(
                    "SCM_REPOSITORY_MISSING",
                    "The log names them. Mount the same data directory into every server, or restore it \
                     from a backup.",
                ),
            _ => Component::new(Status::Healthy),
        };
        let said = version.unwrap_or_default();
        component
            .with("git_version", said.trim().trim_start_matches("git version "))
            .with("missing_repositories", missing)
    }

    fn still_missing(&self) -> usize {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.retain(|_, path| !path.join("HEAD").is_file());
        missing.len()
    }
}

fn write(root: &Path) -> std::io::Result<()> {
    crate::disk::make_root(root)?;
    let probe = root.join(format!(".probe-{}", std::process::id()));
    std::fs::write(&probe, b"loom")?;
    match std::fs::remove_file(probe) {
        // Servers share the directory, and in containers their numbers are the same.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
