//! The way to the cluster, and whether what is needed is there and allowed.

use std::time::Duration;

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::{Pod, Secret},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, Config as KubeConfig,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use loom_core::{Error, Result};

use crate::Config;

/// Each request to the cluster that is not a stream.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is done there, as `deploy/kubernetes/weavers/rbac.yaml` allows it: group, resource, subresource, verbs.
pub(crate) const NEEDED: &[(&str, &str, &str, &[&str])] = &[
    ("", "namespaces", "", &["get"]),
    ("", "pods", "", &["get", "list", "watch", "create", "delete", "patch"]),
    ("", "pods", "log", &["get"]),
    ("", "pods", "exec", &["get", "create"]),
    ("", "pods", "attach", &["get", "create"]),
    ("", "events", "", &["list", "watch"]),
    ("", "secrets", "", &["create", "patch", "delete"]),
    ("networking.k8s.io", "networkpolicies", "", &["get", "create", "patch"]),
];

/// A client for the namespace of the weavers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Cluster {
    /// By the kubeconfig that is named, else by the account of the pod in which this server runs, else by the
    /// user's own kubeconfig. Nothing is asked yet.
    pub(crate) async fn new(config: &Config) -> Result<Self, String> {
        let mut kube = match &config.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path)
                    .map_err(|error| format!("LOOM_SERVER_WEAVER_KUBECONFIG: {error}"))?;
                KubeConfig::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                    .await
                    .map_err(|error| format!("LOOM_SERVER_WEAVER_KUBECONFIG: {error}"))?
            }
            None => KubeConfig::infer().await.map_err(|error| {
                format!(
                    "there is no way to a cluster: run in one, or name a kubeconfig in LOOM_SERVER_WEAVER_KUBECONFIG \
                     ({error})"
                )
            })?,
        };
        kube.connect_timeout = Some(Duration::from_secs(5));
        kube.default_namespace.clone_from(&config.namespace);
        let client = Client::try_from(kube).map_err(|error| error.to_string())?;
        Ok(Self { client, namespace: config.namespace.clone() })
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn events(&self) -> Api<k8s_openapi::api::core::v1::Event> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn network_policies(&self) -> Api<NetworkPolicy> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// What of [`NEEDED`] this account may not do in the namespace, as `create pods/exec`.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub(crate) async fn missing_permissions(&self) -> Result<Vec<String>, kube::Error> {
        let wanted = NEEDED.iter().flat_map(|&(group, resource, subresource, verbs)| {
            verbs.iter().map(move |&verb| (group, resource, subresource, verb))
        });
        let asked = wanted.map(|(group, resource, subresource, verb)| async move {
            let allowed = self.may(group, resource, subresource, verb).await?;
            let slash = if subresource.is_empty() { "" } else { "/" };
            Ok::<_, kube::Error>(
                (!allowed).then(|| format!("{verb} {resource}{slash}{subresource}")),
            )
        });
        let answers: Vec<Option<String>> = futures::future::try_join_all(asked).await?;
        Ok(answers.into_iter().flatten().collect())
    }

    async fn may(
        &self,
        group: &str,
        resource: &str,
        subresource: &str,
        verb: &str,
    ) -> Result<bool, kube::Error> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(self.namespace.clone()),
                    group: some(group),
                    resource: some(resource),
                    subresource: some(subresource),
                    verb: some(verb),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

/// A request to the cluster that is not a stream, with its limit.
pub(crate) async fn ask<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    tokio::time::timeout(PATIENCE, request).await.unwrap_or_else(|_| {
        let text = "the cluster did not answer in time";
        Err(kube::Error::Service(text.into()))
    })
}

/// 502: the cluster refused, or is out of reach.
pub(crate) fn failed(error: kube::Error) -> Error {
    Error::new(
        http::StatusCode::BAD_GATEWAY,
        "kubernetes_error",
        match &error {
            kube::Error::Api(status) => format!("the cluster refused: {}", status.message),
            _ => "the cluster cannot be reached just now; try again".to_owned(),
        },
    )
    .because(error)
}
