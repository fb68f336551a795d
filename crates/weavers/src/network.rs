//! What weavers may reach: one policy for each class, chosen by a label that only this server sets.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::{
        core::v1::Pod,
        networking::v1::{
            IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicyPort,
            NetworkPolicySpec,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    cluster::ask,
    model::{Network, Row},
};

/// The label of a pod by which a policy finds it.
pub(crate) const LABEL: &str = "loom.dev/network";
/// As which this server writes to the cluster.
const MANAGER: &str = "loom-server";
/// Addresses that are nobody's on the internet: private, shared, link-local, loopback, reserved.
const NOT_PUBLIC_V4: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
];
const NOT_PUBLIC_V6: &[&str] =
    &["::/128", "::1/128", "64:ff9b::/96", "64:ff9b:1::/48", "fc00::/7", "fe80::/10", "ff00::/8"];

/// How this server is reached from a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) port: u16,
    /// The namespace that it runs in, if it runs in the cluster: a service's address is replaced by a pod's
    /// before a policy is asked.
    pub(crate) namespace: Option<String>,
}

/// The value of [`LABEL`]: of this installation alone, as two may share a namespace.
pub(crate) fn label(network: Network, installation: &str) -> String {
    format!("{}.{installation}", network.as_str())
}

/// All policies of an installation: what they name is allowed, all else is not.
pub(crate) fn policies(
    installation: &str,
    server: &Server,
    except: &[String],
) -> Vec<NetworkPolicy> {
    let all = [Network::Off, Network::LoomOnly, Network::Internet, Network::Open];
    let mut to_loom = loom(server);
    to_loom.insert(0, names());
    let mut to_internet = to_loom.clone();
    to_internet.push(internet(except));
    let anywhere = vec![NetworkPolicyEgressRule::default()];
    vec![
        policy(installation, "deny", &all, None),
        policy(installation, "loom-only", &[Network::LoomOnly], Some(to_loom)),
        policy(installation, "internet", &[Network::Internet], Some(to_internet)),
        policy(installation, "open", &[Network::Open], Some(anywhere)),
    ]
}

/// Brings the policies into the cluster, as they are to be.
pub(crate) async fn ensure(
    api: &Api<NetworkPolicy>,
    policies: &[NetworkPolicy],
) -> Result<(), kube::Error> {
    let params = PatchParams::apply(MANAGER).force();
    for policy in policies {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        ask(api.patch(name, &params, &Patch::Apply(policy))).await?;
    }
    Ok(())
}

/// Puts a pod under the policy that its row names. A pod that is not there is none to change.
pub(crate) async fn relabel(
    pods: &Api<Pod>,
    installation: &str,
    row: &Row,
) -> Result<(), kube::Error> {
    let change = json!({"metadata": {"labels": {LABEL: label(row.network, installation)}}});
    let params = PatchParams::default();
    match ask(pods.patch(&row.pod_name, &params, &Patch::Merge(&change))).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        done => done.map(|_| ()),
    }
}

fn policy(
    installation: &str,
    what: &str,
    classes: &[Network],
    egress: Option<Vec<NetworkPolicyEgressRule>>,
) -> NetworkPolicy {
    let values = classes.iter().map(|class| label(*class, installation)).collect();
    let which = LabelSelectorRequirement {
        key: LABEL.to_owned(),
        operator: "In".to_owned(),
        values: Some(values),
    };
    let labels = BTreeMap::from([("loom.dev/installation".to_owned(), installation.to_owned())]);
    // Nobody may come in: neither weavers to each other, nor anybody else. Rules of several policies add up.
    let types: &[&str] = if egress.is_some() { &["Egress"] } else { &["Ingress", "Egress"] };
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(format!("loom-{what}-{installation}")),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_expressions: Some(vec![which]),
                match_labels: None,
            }),
            policy_types: Some(types.iter().map(|kind| (*kind).to_owned()).collect()),
            egress,
            ingress: None,
        }),
    }
}

fn port(number: u16, protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(number.into())),
        protocol: Some(protocol.to_owned()),
        end_port: None,
    }
}

fn block(cidr: impl Into<String>, except: Vec<String>) -> NetworkPolicyPeer {
    let except = (!except.is_empty()).then_some(except);
    NetworkPolicyPeer {
        ip_block: Some(IPBlock { cidr: cidr.into(), except }),
        ..NetworkPolicyPeer::default()
    }
}

fn pods_of(namespace: &str, (key, value): (&str, &str)) -> NetworkPolicyPeer {
    let select = |key: &str, value: &str| LabelSelector {
        match_labels: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
        match_expressions: None,
    };
    NetworkPolicyPeer {
        namespace_selector: Some(select("kubernetes.io/metadata.name", namespace)),
        pod_selector: Some(select(key, value)),
        ip_block: None,
    }
}

fn to(
    peers: Vec<NetworkPolicyPeer>,
    ports: Option<Vec<NetworkPolicyPort>>,
) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: Some(peers), ports }
}

/// The cluster's name service, and the cache of it on a node.
fn names() -> NetworkPolicyEgressRule {
    let servers = vec![
        pods_of("kube-system", ("k8s-app", "kube-dns")),
        block("169.254.20.10/32", Vec::new()),
    ];
    to(servers, Some(vec![port(53, "UDP"), port(53, "TCP")]))
}

/// This server. A rule without any peer would let everything through: there is none then.
fn loom(server: &Server) -> Vec<NetworkPolicyEgressRule> {
    let mut rules = Vec::new();
    if !server.addresses.is_empty() {
        let bits = |ip: &IpAddr| if ip.is_ipv4() { 32 } else { 128 };
        let peers =
            server.addresses.iter().map(|ip| block(format!("{ip}/{}", bits(ip)), Vec::new()));
        rules.push(to(peers.collect(), Some(vec![port(server.port, "TCP")])));
    }
    if let Some(namespace) = &server.namespace {
        // The port of a pod is not that of its service.
        rules.push(to(vec![pods_of(namespace, ("app.kubernetes.io/name", "loom-server"))], None));
    }
    rules
}

fn internet(except: &[String]) -> NetworkPolicyEgressRule {
    let without = |fixed: &[&str], is_v6: bool| -> Vec<String> {
        let own = except.iter().filter(|cidr| cidr.contains(':') == is_v6).cloned();
        fixed.iter().map(|cidr| (*cidr).to_owned()).chain(own).collect()
    };
    let v4 = block("0.0.0.0/0", without(NOT_PUBLIC_V4, false));
    to(vec![v4, block("::/0", without(NOT_PUBLIC_V6, true))], None)
}
