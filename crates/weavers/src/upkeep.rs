//! Policies of the network, kept in the cluster as they are to be: no pod is made before they are there.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use loom_core::{Error, Result};

use crate::{
    Weavers, cluster,
    network::{self, Server},
};

/// Somebody may have taken them away, and the server may have moved.
const AGAIN: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// When this server last put them there.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Option<Instant>>);

impl Weavers {
    /// Makes sure that the policies are there. Asks the cluster at most once a minute.
    ///
    /// # Errors
    /// 502 when it does not take them.
    pub(crate) async fn keep_policies(&self) -> Result<()> {
        let kept = *self.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_some_and(|at| at.elapsed() < AGAIN) {
            return Ok(());
        }
        self.put_policies().await
    }

    /// Puts them there, whenever that was done last.
    ///
    /// # Errors
    /// As [`Weavers::keep_policies`].
    pub(crate) async fn put_policies(&self) -> Result<()> {
        let there = self.cluster()?;
        let server = self.server().await?;
        let policies = network::policies(&self.installation, &server, &self.config.network_except);
        network::ensure(&there.network_policies(), &policies).await.map_err(cluster::failed)?;
        let now = Some(Instant::now());
        *self.kept.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(())
    }

    /// How pods reach this server.
    async fn server(&self) -> Result<Server> {
        let url: http::Uri = self.config.server_url.parse().map_err(Error::internal)?;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let default = if url.scheme_str() == Some("https") { 443 } else { 80 };
        let port = url.port_u16().unwrap_or(default);
        // A name that this server does not know may be one that only pods do.
        let addresses = match tokio::net::lookup_host((host, port)).await {
            Ok(found) => found.map(|address| address.ip()).collect(),
            Err(error) => {
                tracing::debug!(%error, host, "the address at which weavers reach this server is not known here");
                std::collections::BTreeSet::new()
            }
        };
        let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let namespace = match in_cluster {
            true => tokio::fs::read_to_string(NAMESPACE).await.ok(),
            false => None,
        };
        let namespace = namespace.map(|text| text.trim().to_owned());
        Ok(Server { addresses: addresses.into_iter().collect(), port, namespace })
    }
}
