//! Does the cluster hold weavers to their network class? A pod that may reach this server and one that may
//! not both try it; many networks of clusters ignore policies without a word.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use loom_core::Result;
use loom_jobs::{JobContext, JobError, JobReport};
use serde_json::json;

use crate::{Weavers, cluster, model::Network, network};

/// The images must be pulled, too.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A policy takes a moment until it holds for a new pod. The shell keeps the time: the `-T` of some builds of
/// BusyBox crashes.
const SCRIPT: &str = "sleep 3; wget -q -O /dev/null \"$LOOM_CANARY_URL\" & asks=$!; \
    (sleep 5; kill $asks) & wait $asks";

/// What came of the last try.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) result: String,
    pub(crate) detail: String,
    pub(crate) checked_at: DateTime<Utc>,
}

/// By how the two ended: the one that may reach the server, and the one that may not.
fn judge(open: Option<i32>, off: Option<i32>) -> (&'static str, &'static str) {
    match (open, off) {
        (Some(0), Some(0)) => (
            "not_enforced",
            "a pod without a network reached this server: the cluster ignores network policies",
        ),
        (Some(0), Some(_)) => ("enforced", "a pod without a network did not reach this server"),
        (Some(_), _) => (
            "unknown",
            "a pod that may reach everything did not reach this server: look at LOOM_SERVER_WEAVER_SERVER_URL",
        ),
        _ => ("unknown", "the pods that try it did not run in time"),
    }
}

pub(crate) async fn run(weavers: Weavers, context: JobContext) -> Result<JobReport, JobError> {
    let Some(image) = weavers.config.canary_image.clone().filter(|_| weavers.config.enabled) else {
        return Ok(JobReport { items_handled: 0 });
    };
    weavers.keep_policies().await?;
    let pods = weavers.cluster()?.pods();
    let tries =
        [Network::Open, Network::Off].map(|class| weavers.attempt(&pods, class, &image, &context));
    let [open, off] = tries;
    let (open, off) = futures::future::try_join(open, off).await.map_err(cluster::failed)?;
    let (result, detail) = judge(open, off);
    if result == "not_enforced" {
        tracing::warn!("{detail}; weavers reach whatever the cluster lets them");
    }
    sqlx::query!(
        "INSERT INTO weaver_network_checks (installation, result, detail, checked_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT ON CONSTRAINT weaver_network_checks_pkey DO UPDATE
            SET result = excluded.result, detail = excluded.detail, checked_at = excluded.checked_at",
        weavers.installation,
        result,
        detail,
        context.clock.now()
    )
    .execute(&weavers.deps.pool)
    .await?;
    Ok(JobReport { items_handled: 2 })
}

impl Weavers {
    /// Runs one pod to its end, and gives the code that it ended with.
    async fn attempt(
        &self,
        pods: &Api<Pod>,
        class: Network,
        image: &str,
        context: &JobContext,
    ) -> Result<Option<i32>, kube::Error> {
        let name = format!("loom-canary-{}-{}", class.as_str(), self.installation);
        // One of a run that was cut off.
        remove(pods, &name).await?;
        let pod: Pod = self.canary(&name, class, image)?;
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            match pods.create(&PostParams::default(), &pod).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                made => {
                    made?;
                    break;
                }
            }
            if tokio::time::Instant::now() > end {
                return Ok(None);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let mut code = None;
        while code.is_none() && tokio::time::Instant::now() < end && !context.cancel.is_cancelled()
        {
            tokio::time::sleep(LOOK_EVERY).await;
            let Some(pod) = pods.get_opt(&name).await? else { break };
            let containers = pod.status.and_then(|status| status.container_statuses);
            let ended = containers.into_iter().flatten().find_map(|one| one.state?.terminated);
            code = ended.map(|ended| ended.exit_code);
        }
        remove(pods, &name).await?;
        Ok(code)
    }

    fn canary(&self, name: &str, class: Network, image: &str) -> Result<Pod, kube::Error> {
        let labels = BTreeMap::from([
            (network::LABEL.to_owned(), network::label(class, &self.installation)),
            ("loom.dev/canary".to_owned(), self.installation.clone()),
        ]);
        let small = json!({"cpu": "50m", "memory": "32Mi", "ephemeral-storage": "16Mi"});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "restartPolicy": "Never", "activeDeadlineSeconds": PATIENCE.as_secs(),
                "automountServiceAccountToken": false, "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 0,
                // Where weavers run, and nowhere else.
                "nodeSelector": self.config.node_selector,
                "tolerations": self.config.tolerations,
                "imagePullSecrets": self.config.image_pull_secrets.iter()
                    .map(|name| json!({"name": name})).collect::<Vec<_>>(),
                "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000,
                    "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "canary", "image": image, "command": ["sh", "-c", SCRIPT],
                    "env": [{"name": "LOOM_CANARY_URL", "value": format!("{}/health/live", self.config.server_url)}],
                    "resources": {"requests": small, "limits": small},
                    "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                        "privileged": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        });
        serde_json::from_value(pod).map_err(kube::Error::SerdeError)
    }

    /// What the last canary found.
    pub(crate) async fn network_check(&self) -> Result<Option<Found>> {
        Ok(sqlx::query_as!(
            Found,
            "SELECT result, detail, checked_at FROM weaver_network_checks WHERE installation = $1",
            self.installation
        )
        .fetch_optional(&self.deps.pool)
        .await?)
    }
}

async fn remove(pods: &Api<Pod>, name: &str) -> Result<(), kube::Error> {
    match pods.delete(name, &DeleteParams::default().grace_period(0)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        done => done.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn policies_hold_only_when_the_one_gets_through_and_the_other_does_not() {
        for (open, off, result) in [
            (Some(0), Some(1), "enforced"),
            (Some(0), Some(0), "not_enforced"),
            (Some(1), Some(1), "unknown"),
            (Some(1), Some(0), "unknown"),
            (None, Some(1), "unknown"),
            (Some(0), None, "unknown"),
        ] {
            assert_eq!(judge(open, off).0, result, "{open:?} {off:?}");
        }
    }
}
