//! The machine under the server: room on its disk, and memory.

use std::path::{Path, PathBuf};

use loom_core::health::{Check, Component, Status};
use nix::sys::statvfs::statvfs;

use super::Config;
use crate::process;

const MIB: u64 = 1 << 20;
/// Where degraded begins, a fifth of that is unhealthy.
const FIFTH: u64 = 5;

/// Room in the data directory. Critical where the database lies in it too.
pub fn disk(data_dir: &Path, config: Config, critical: bool) -> Check {
    let data_dir: PathBuf = data_dir.to_owned();
    let probe = move || {
        let data_dir = data_dir.clone();
        async move {
            // A network file system may hang.
            let room = tokio::task::spawn_blocking(move || room(&data_dir)).await;
            match room {
                Ok(Ok(room)) => judge_disk(&room, config),
                Ok(Err(error)) => cannot_look(&error.to_string()),
                Err(error) => cannot_look(&error.to_string()),
            }
        }
    };
    Check::new("disk", probe).critical(critical)
}

fn cannot_look(error: &str) -> Component {
    Component::new(Status::Degraded)
        .error("the data directory cannot be looked at")
        .code(
            "DISK_UNKNOWN",
            "See that LOOM_SERVER_DATA_DIR is there, mounted, and that the server's user may enter it.",
        )
        .detail(error)
}

struct Room {
    free: u64,
    total: u64,
    free_inodes: u64,
    inodes: u64,
}

fn room(data_dir: &Path) -> nix::Result<Room> {
    // Before anything is kept there it may not exist: then it is made in the nearest that does.
    let there = data_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let stat = statvfs(there)?;
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "other types elsewhere")]
    let (block, free, total, free_inodes, inodes) = (
        stat.fragment_size() as u64,
        stat.blocks_available() as u64,
        stat.blocks() as u64,
        stat.files_available() as u64,
        stat.files() as u64,
    );
    Ok(Room { free: free * block, total: total * block, free_inodes, inodes })
}

fn judge_disk(room: &Room, config: Config) -> Component {
    let below = |divisor: u64| {
        let wanted_percent = u64::from(config.disk_free_percent) * room.total / 100 / divisor;
        room.free < wanted_percent.max(config.disk_free_mib * MIB / divisor)
    };
    // File systems that make inodes as they go say that they have none.
    let inodes_low = room.inodes > 0 && room.free_inodes < room.inodes / 100;
    let status = if below(FIFTH) {
        Status::Unhealthy
    } else if below(1) || inodes_low {
        Status::Degraded
    } else {
        Status::Healthy
    };
    let component = Component::new(status)
        .inside("free_bytes", room.free)
        .inside("total_bytes", room.total)
        .inside("free_inodes", room.free_inodes);
    if status == Status::Healthy {
        return component;
    }
    let what = if below(1) { "little room is left" } else { "few inodes are left" };
    component
        .error(what)
        .code(
            "DISK_LOW",
            "Make room on the file system of LOOM_SERVER_DATA_DIR or enlarge it. Where it counts as low \
             is set by LOOM_SERVER_HEALTH_DISK_FREE_PERCENT and LOOM_SERVER_HEALTH_DISK_FREE_MIB.",
        )
        .detail(format!(
            "{} MiB of {} MiB free, {} inodes",
            room.free / MIB,
            room.total / MIB,
            room.free_inodes
        ))
}

/// Memory against the limit of the container, or of the machine when there is none.
pub fn memory(config: Config) -> Check {
    Check::new("memory", move || async move {
        match process::memory() {
            None => Component::new(Status::Disabled),
            Some(memory) => judge_memory(memory, config),
        }
    })
}

fn judge_memory(memory: process::Memory, config: Config) -> Component {
    let percent = memory.used * 100 / memory.limit.max(1);
    let low = percent >= u64::from(config.memory_percent);
    let status = if low { Status::Degraded } else { Status::Healthy };
    let component = Component::new(status)
        .inside("used_bytes", memory.used)
        .inside("limit_bytes", memory.limit)
        .inside("limited_by", if memory.cgroup { "cgroup" } else { "machine" })
        .inside("resident_bytes", memory.resident);
    if !low {
        return component;
    }
    component
        .error("little memory is left")
        .code(
            "MEMORY_LOW",
            "The kernel ends processes when none is left. Compare resident_bytes with used_bytes: is it \
             the server or a neighbour? Raise the limit, or lower LOOM_SERVER_MAX_CONNECTIONS. Where it \
             counts as low is set by LOOM_SERVER_HEALTH_MEMORY_PERCENT.",
        )
        .detail(format!(
            "{percent} % of {} MiB used, {} MiB by this server",
            memory.limit / MIB,
            memory.resident / MIB
        ))
}
