//! The servers that run on one database: each says that it is there, and answers the others about its
//! log.

pub(crate) mod peer;
pub(crate) mod store;

use std::{
    net::{IpAddr, SocketAddr},
    sync::PoisonError,
    time::Duration,
};

use tracing::Instrument as _;

use crate::{Logs, replica_name};

const BEAT: Duration = Duration::from_secs(30);

/// Writes that this server is there. Without a database it says so at the next beat.
pub(crate) async fn beat(logs: &Logs) {
    let address = logs.address.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let name = replica_name();
    let row = store::NewReplica {
        id: logs.id,
        name: &name,
        version: env!("CARGO_PKG_VERSION"),
        address: address.as_deref(),
    };
    if let Err(error) = store::beat(&logs.pool, &row).await {
        tracing::warn!(?error, "this server could not be entered in the list of servers");
    }
}

/// Until the server goes down; then takes it off the list.
pub(crate) async fn keep_beating(logs: &Logs) {
    let beating = async {
        loop {
            tokio::time::sleep(BEAT).await;
            beat(logs).await;
        }
    };
    let span = tracing::debug_span!("heartbeat");
    logs.stop.run_until_cancelled(beating.instrument(span)).await;
    if let Err(error) = store::remove(&logs.pool, logs.id).await {
        tracing::warn!(?error, "this server could not be taken off the list of servers");
    }
}

/// Where others reach a server that listens here; none when only this machine does.
pub(crate) async fn address_of(listening: SocketAddr) -> Option<String> {
    let ip = listening.ip().to_canonical();
    if ip.is_loopback() {
        return None;
    }
    let ip = if ip.is_unspecified() { own_ip(listening.port()).await? } else { ip };
    Some(format!("http://{}", SocketAddr::new(ip, listening.port())))
}

/// What this machine's name stands for.
async fn own_ip(port: u16) -> Option<IpAddr> {
    let host = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let lookup = tokio::net::lookup_host((host, port));
    let found = tokio::time::timeout(Duration::from_secs(2), lookup).await.ok()?.ok()?;
    let mut ips = found.map(|address| address.ip().to_canonical());
    ips.find(|ip| !ip.is_loopback() && !ip.is_unspecified())
}
