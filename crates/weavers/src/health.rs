//! What the feature says of its own state, and its metrics.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use loom_core::{
    Error, Result,
    health::{Check, Component, Status},
    telemetry::Metric,
};

use crate::{Weavers, cluster::Cluster, model::Network};

pub const METRICS: &[Metric] = &[
    Metric::gauge(
        "loom_weavers_active",
        "Weavers that run, told by the server that watches the cluster.",
        &[],
    ),
    Metric::gauge(
        "loom_weaver_watchers",
        "Streams of weavers and of their logs that are open.",
        &[],
    ),
    Metric::counter("loom_weavers_created_total", "Weavers that were made.", &[]),
    Metric::counter("loom_weavers_deleted_total", "Weavers that are over as it was meant.", &[]),
    Metric::counter(
        "loom_weavers_failed_total",
        "Weavers that failed, or that the cluster lost.",
        &[],
    ),
    Metric::counter("loom_weavers_cleanup_total", "Runs of the clean-up of weavers.", &[]),
    Metric::counter(
        "loom_weavers_cleanup_deleted_total",
        "Weavers whose time was over at a clean-up.",
        &[],
    ),
];

const LIMIT: Duration = Duration::from_secs(3);
/// Permissions change seldom, and asking for all is a request for each.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// What this server may not do in the namespace, as it was last asked.
#[derive(Default)]
pub(crate) struct Access(Mutex<Option<(Instant, Vec<String>)>>);

impl Weavers {
    pub fn health(&self) -> Check {
        let weavers = self.clone();
        Check::new("kubernetes", move || {
            let weavers = weavers.clone();
            async move { weavers.component().await }
        })
        .critical(self.config.enabled)
        .within(LIMIT)
    }

    /// The same, on a server that was not started: looks at the cluster and begins nothing.
    pub async fn inspect(&self) -> Component {
        if !self.config.enabled {
            return Component::new(Status::Disabled);
        }
        match Cluster::new(&self.config).await {
            Ok(cluster) => {
                let _ = self.cluster.set(cluster);
                self.component().await
            }
            Err(error) => Component::new(Status::Unhealthy)
                .error("there is no way to the cluster")
                .code(
                    "KUBERNETES_UNREACHABLE",
                    "Run the server in the cluster, or name a kubeconfig that leads to it in \
                 LOOM_SERVER_WEAVER_KUBECONFIG.",
                )
                .detail(error),
        }
    }

    async fn component(&self) -> Component {
        let Ok(cluster) = self.cluster() else { return Component::new(Status::Disabled) };
        let component =
            |status| Component::new(status).inside("namespace", cluster.namespace.clone());
        let started = Instant::now();
        if let Err(error) = find_namespace(cluster).await {
            let down = component(Status::Unhealthy).with("reachable", !is_out_of_reach(&error));
            return if is_out_of_reach(&error) {
                down.error("the cluster cannot be reached").code(
                    "KUBERNETES_UNREACHABLE",
                    "Weavers that run go on, and none can be made. Look at the API server of the cluster, and at \
                     the way there from this server.",
                )
            } else {
                down.error("the namespace of the weavers cannot be read").code(
                    "KUBERNETES_NAMESPACE",
                    "The namespace is not there, or this server may not see it: apply deploy/kubernetes/weavers.",
                )
            }
            .detail(error.to_string());
        }
        let latency = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let found = self.network_check().await.ok().flatten();
        let (policies, detail, checked_at) = match found {
            Some(found) => (found.result, found.detail, Some(found.checked_at)),
            None => ("unknown".to_owned(), "it was not tried".to_owned(), None),
        };
        let component = |status| {
            component(status)
                .with("network_policies", policies.clone())
                .inside("network_policies_detail", detail.clone())
                .inside("network_policies_checked_at", checked_at.map(|at| at.to_rfc3339()))
        };
        let is_void = policies == "not_enforced" && self.config.network != Network::Open;
        match self.missing(cluster).await {
            Ok(missing) if missing.is_empty() && is_void => {
                component(Status::Degraded)
                    .error("the cluster does not enforce network policies")
                    .code(
                        "KUBERNETES_NETWORK_OPEN",
                        "Weavers of every class reach whatever the cluster lets them: give the cluster a network plugin \
                         with policies, or set LOOM_SERVER_WEAVER_NETWORK=open to say that it is meant.",
                    )
            }
            Ok(missing) if missing.is_empty() => component(Status::Healthy),
            Ok(missing) => component(Status::Degraded)
                .error("a permission in the cluster is missing")
                .code(
                    "KUBERNETES_FORBIDDEN",
                    "The account of this server may not do all that weavers need: apply deploy/kubernetes/weavers.",
                )
                .detail(missing.join(", ")),
            Err(error) => component(Status::Degraded)
                .error("the cluster does not say what is allowed")
                .code(
                    "KUBERNETES_UNREACHABLE",
                    "Weavers that run go on, and none can be made. Look at the API server of the cluster, and at the \
                     way there from this server.",
                )
                .detail(error.to_string()),
        }
        .with("reachable", true)
        .with("cluster_latency_ms", latency)
    }

    async fn missing(&self, cluster: &Cluster) -> Result<Vec<String>, kube::Error> {
        let lock = || self.access.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            lock().clone().filter(|(at, missing)| missing.is_empty() && at.elapsed() < ASK_EVERY);
        if let Some((_, missing)) = known {
            return Ok(missing);
        }
        let missing = cluster.missing_permissions().await?;
        *lock() = Some((Instant::now(), missing.clone()));
        Ok(missing)
    }

    /// A cluster that does not answer may answer soon, and the server has other work; one that says no is not
    /// set up.
    pub(crate) async fn look_before_start(&self, cluster: &Cluster) -> Result<()> {
        let look = async {
            find_namespace(cluster).await?;
            self.missing(cluster).await
        };
        let found = tokio::time::timeout(LIMIT * 3, look).await;
        let refused = |text: String| Err(not_set_up(format!("weavers are on, but {text}")));
        let namespace = &cluster.namespace;
        match found {
            Ok(Ok(missing)) if missing.is_empty() => Ok(()),
            Ok(Ok(missing)) => refused(format!(
                "this server's account lacks permissions in the namespace {namespace}: {}. Apply deploy/kubernetes/weavers, \
                 or grant them to the account that is used.",
                missing.join(", ")
            )),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => refused(format!(
                "there is no namespace {namespace} in the cluster. Apply deploy/kubernetes/weavers, or name another in \
                 LOOM_SERVER_WEAVER_K8S_NAMESPACE."
            )),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
                refused(format!(
                    "this server may not see the namespace {namespace}, or it is not there: {}. Apply deploy/kubernetes/weavers.",
                    status.message
                ))
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the cluster of the weavers cannot be reached; trying again until it can");
                Ok(())
            }
            Err(_) => {
                tracing::warn!(
                    "the cluster of the weavers does not answer; trying again until it does"
                );
                Ok(())
            }
        }
    }
}

/// For the operator, at the start.
pub(crate) fn not_set_up(text: String) -> Error {
    Error::new(http::StatusCode::SERVICE_UNAVAILABLE, "kubernetes_error", text)
}

async fn find_namespace(cluster: &Cluster) -> Result<(), kube::Error> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.get(&cluster.namespace).await.map(drop)
}

fn is_out_of_reach(error: &kube::Error) -> bool {
    !matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404))
}
