//! Makes the pod of a weaver, and what it needs before. Each step can be repeated after a stop anywhere: names
//! come from the id, and what is there already is taken over.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use loom_core::Result;
use serde_json::json;

use super::lead::Lead;
use crate::{
    Weavers,
    cluster::{ask, failed},
    identity::Identity,
    model::Row,
    pod::{INSTALLATION, WEAVER, spec},
};

pub(super) enum Made {
    Pod(Box<Pod>),
    /// The cluster did not take it.
    Refused(Refusal),
}

pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) text: String,
    /// It will not take it a second time either.
    pub(super) is_final: bool,
}

impl Weavers {
    pub(super) async fn create_pod(&self, lead: &Lead, row: &Row) -> Result<Made> {
        let identity = match self.identity(row).await {
            // Without the policies of the network there is no pod: that is to be seen.
            Err(error) if error.code() == "kubernetes_error" => {
                let text = error.detail().to_owned();
                let code = "kubernetes_unavailable";
                return Ok(Made::Refused(Refusal { code, text, is_final: false }));
            }
            identity => identity?,
        };
        match self.try_create(lead, row, &identity).await {
            Ok(pod) if is_of(&pod, row) => Ok(Made::Pod(Box::new(pod))),
            Ok(_) => Ok(Made::Refused(Refusal {
                code: "name_taken",
                text: format!("a pod called {} is there, and is not of this weaver", row.pod_name),
                is_final: true,
            })),
            Err(error) => Ok(Made::Refused(refusal(&error, &self.config.namespace))),
        }
    }

    async fn try_create(
        &self,
        lead: &Lead,
        row: &Row,
        identity: &Identity,
    ) -> Result<Pod, kube::Error> {
        let (pods, secrets) = (lead.cluster.pods(), lead.cluster.secrets());
        let (params, name) = (PostParams::default(), &*row.pod_name);
        if let Err(error) = ask(secrets.create(&params, &identity.secret)).await {
            if !exists(&error) {
                return Err(error);
            }
            // Somebody was here before, and came this far or further.
            if let Some(pod) = ask(pods.get_opt(name)).await? {
                return Ok(pod);
            }
            gone(ask(secrets.delete(name, &DeleteParams::default())).await)?;
            ask(secrets.create(&params, &identity.secret)).await?;
        }
        let pod = spec::pod(row, identity, &self.config);
        match ask(pods.create(&params, &pod)).await {
            Err(error) if exists(&error) => ask(pods.get(name)).await,
            made => made,
        }
    }

    /// From now on the cluster removes the secret with the pod. It is removed by name too when the weaver ends.
    pub(super) async fn own_secret(&self, lead: &Lead, row: &Row, pod: &Pod) {
        let Some(uid) = &pod.metadata.uid else { return };
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": row.pod_name, "uid": uid});
        let change = Patch::Merge(json!({"metadata": {"ownerReferences": [owner]}}));
        let (secrets, params) = (lead.cluster.secrets(), PatchParams::default());
        let owned = secrets.patch_metadata(&row.pod_name, &params, &change);
        if let Err(error) = ask(owned).await {
            tracing::debug!(%error, weaver = %row.id, "the secret of a weaver has no owner");
        }
    }

    /// The pod of this name as it is now, asked of the cluster itself.
    pub(super) async fn look_up(&self, lead: &Lead, row: &Row) -> Result<Option<Pod>> {
        let pod = ask(lead.cluster.pods().get_opt(&row.pod_name)).await;
        Ok(pod.map_err(failed)?.filter(|pod| is_of(pod, row)))
    }
}

fn is_of(pod: &Pod, row: &Row) -> bool {
    let Some(labels) = &pod.metadata.labels else { return false };
    labels.get(WEAVER).is_some_and(|id| *id == row.id.to_string())
        && labels.get(INSTALLATION) == Some(&row.installation)
}

fn exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

/// What is gone already is as good as deleted.
pub(super) fn gone<T>(deleted: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        done => done.map(Some),
    }
}

fn refusal(error: &kube::Error, namespace: &str) -> Refusal {
    let kube::Error::Api(status) = error else {
        let text = "the cluster cannot be reached just now".to_owned();
        return Refusal { code: "kubernetes_unavailable", text, is_final: false };
    };
    let said: String = status.message.chars().take(1000).collect();
    let (code, text, is_final) = match status.code {
        403 if said.contains("exceeded quota") || said.contains("unknown for quota") => {
            ("quota", format!("the namespace has no room for it just now: {said}"), false)
        }
        403 if said.contains("violates PodSecurity")
            || said.contains("LimitRange")
            || said.contains("admission webhook")
            || said.contains("ValidatingAdmissionPolicy")
            || said.contains("maximum ")
            || said.contains("minimum ") =>
        {
            ("refused", format!("the rules of the cluster do not let it in: {said}"), true)
        }
        403 if said.contains("being terminated") => {
            ("namespace", format!("the namespace {namespace} is being removed"), false)
        }
        401 | 403 => {
            ("not_permitted", format!("this server may not do that in the cluster: {said}"), false)
        }
        404 => ("namespace", format!("the namespace {namespace} is not there: {said}"), false),
        400 | 422 => ("invalid_pod", format!("the cluster does not understand it: {said}"), true),
        _ => ("kubernetes_unavailable", format!("the cluster did not take it: {said}"), false),
    };
    Refusal { code, text, is_final }
}
