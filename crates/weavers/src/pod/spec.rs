//! How the pod of a weaver is made. Pod Security `restricted` is the least: beyond it the root of the container
//! is read-only, no account of the cluster is in it, and everything that it may fill has a size.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, KeyToPath,
        LocalObjectReference, Pod, PodSecurityContext, PodSpec, ProjectedVolumeSource,
        ResourceRequirements, SeccompProfile, SecretKeySelector, SecretProjection, SecurityContext,
        Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use super::{CLONE, CONTAINER, INSTALLATION, WEAVER};
use crate::{
    Config,
    identity::{Identity, REPO_TOKEN_KEY, TOKEN_DIR, TOKEN_KEY, hours_to_millis},
    model::Row,
    network,
};

const WORKSPACE: &str = "/workspace";
const HOME: &str = "/home/weaver";
/// Not root, and the same in every image.
const USER: i64 = 1000;
/// Between SIGTERM and SIGKILL.
pub(crate) const STOP_SECS: i64 = 10;
/// The pod ends itself so long after the longest life when nobody is there to end it.
const BACKSTOP: TimeDelta = TimeDelta::minutes(10);
/// What a weaver is promised of what it may take: most of the time it waits for a model.
const PROMISED_CPU: i64 = 4;
const PROMISED_MEMORY: i64 = 16;
const LEAST_MEMORY: i64 = 64 << 20;
/// Of its room on the disk, what `/tmp` and the home may take.
const SIDE_ROOM: i64 = 4;

pub(crate) fn pod(row: &Row, identity: &Identity, config: &Config) -> Pod {
    let tags = serde_json::to_string(&row.tags).unwrap_or_default();
    let mut labels = BTreeMap::from([
        ("app.kubernetes.io/managed-by".to_owned(), "loom".to_owned()),
        ("loom.dev/managed".to_owned(), "true".to_owned()),
        (INSTALLATION.to_owned(), row.installation.clone()),
        (WEAVER.to_owned(), row.id.to_string()),
        ("loom.dev/org-id".to_owned(), row.org_id.to_string()),
        (network::LABEL.to_owned(), network::label(row.network, &row.installation)),
    ]);
    if let Some(owner) = row.owner_id {
        labels.insert("loom.dev/owner-user-id".to_owned(), owner.to_string());
    }
    let annotations = BTreeMap::from([
        ("cluster-autoscaler.kubernetes.io/safe-to-evict".to_owned(), "false".to_owned()),
        ("loom.dev/lifetime-hours".to_owned(), row.spec.lifetime_hours.to_string()),
        ("loom.dev/tags".to_owned(), tags),
    ]);
    let longest = TimeDelta::milliseconds(hours_to_millis(config.max_hours)) + BACKSTOP;
    let pull_secrets =
        config.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    Pod {
        metadata: ObjectMeta {
            name: Some(row.pod_name.clone()),
            namespace: Some(config.namespace.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            active_deadline_seconds: Some(longest.num_seconds()),
            automount_service_account_token: Some(false),
            containers: vec![agent(row, identity)],
            enable_service_links: Some(false),
            image_pull_secrets: some(pull_secrets.collect()),
            init_containers: clone(row, identity, config).map(|container| vec![container]),
            node_selector: some(config.node_selector.clone()),
            restart_policy: Some("Never".to_owned()),
            runtime_class_name: config.runtime_class.clone(),
            security_context: Some(PodSecurityContext {
                fs_group: Some(USER),
                fs_group_change_policy: Some("OnRootMismatch".to_owned()),
                run_as_group: Some(USER),
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            termination_grace_period_seconds: Some(STOP_SECS),
            tolerations: some(config.tolerations.clone()),
            volumes: Some(volumes(row)),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn agent(row: &Row, identity: &Identity) -> Container {
    let mut env: Vec<EnvVar> = identity.env.iter().cloned().map(literal).collect();
    if !env.iter().any(|var| var.name == "HOME") {
        env.push(value("HOME", HOME));
    }
    let token = mount("token", TOKEN_DIR, true);
    Container {
        name: CONTAINER.to_owned(),
        image: Some(row.spec.image.clone()),
        command: some(row.spec.command.iter().map(|text| escape(text)).collect()),
        args: some(row.spec.args.iter().map(|text| escape(text)).collect()),
        env: Some(env),
        resources: Some(resources(row)),
        security_context: Some(locked()),
        // An agent that a terminal is attached to reads from it.
        stdin: Some(true),
        tty: None,
        volume_mounts: Some(mounts().into_iter().chain([token]).collect()),
        working_dir: Some(row.spec.workdir.clone().unwrap_or_else(|| directory(row))),
        ..Container::default()
    }
}

/// `git clone` without a shell, by the image that is configured or by the weaver's own.
fn clone(row: &Row, identity: &Identity, config: &Config) -> Option<Container> {
    let repo = row.spec.repo.as_ref()?;
    let mut command = vec!["git", "clone", "--quiet"];
    if let Some(branch) = &row.spec.branch {
        command.extend(["--branch", branch]);
    }
    let directory = directory(row);
    command.extend(["--", repo, &directory]);
    let mut env = vec![value("HOME", HOME), value("GIT_TERMINAL_PROMPT", "0")];
    let given = identity.secret.data.as_ref().is_some_and(|data| data.contains_key(REPO_TOKEN_KEY));
    if given {
        // The whole value of the header; for the server of the repository alone.
        let end = repo.match_indices('/').nth(2).map_or(repo.len(), |(at, _)| at);
        let server = repo.get(..end).unwrap_or_default();
        env.extend([
            from_secret("REPO_AUTHORIZATION", row, REPO_TOKEN_KEY),
            value("GIT_CONFIG_COUNT", "1"),
            value("GIT_CONFIG_KEY_0", &format!("http.{server}/.extraHeader")),
            value("GIT_CONFIG_VALUE_0", "Authorization: $(REPO_AUTHORIZATION)"),
        ]);
    } else if repo.strip_prefix(&config.server_url).is_some_and(|path| path.starts_with('/')) {
        // A repository of this server: by the weaver's own token, and shown to no other server.
        let header = format!("http.{}/.extraHeader", config.server_url);
        env.extend([
            from_secret("LOOM_TOKEN", row, TOKEN_KEY),
            value("GIT_CONFIG_COUNT", "1"),
            value("GIT_CONFIG_KEY_0", &header),
            value("GIT_CONFIG_VALUE_0", "Authorization: Bearer $(LOOM_TOKEN)"),
        ]);
    }
    Some(Container {
        name: CLONE.to_owned(),
        image: config.git_image.clone().or_else(|| Some(row.spec.image.clone())),
        command: Some(command.into_iter().map(escape).collect()),
        env: Some(env),
        resources: Some(resources(row)),
        security_context: Some(locked()),
        volume_mounts: Some(mounts()),
        working_dir: Some(WORKSPACE.to_owned()),
        ..Container::default()
    })
}

fn from_secret(name: &str, row: &Row, key: &str) -> EnvVar {
    let selector =
        SecretKeySelector { name: row.pod_name.clone(), key: key.to_owned(), optional: None };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(selector),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// Where the repository lies, else the workspace. Not the workspace itself: that belongs to root, and git trusts
/// no tree of another.
fn directory(row: &Row) -> String {
    let Some(repo) = &row.spec.repo else { return WORKSPACE.to_owned() };
    let last = repo.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name: String = last
        .trim_end_matches(".git")
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .take(100)
        .collect();
    let name = name.trim_start_matches('.');
    format!("{WORKSPACE}/{}", if name.is_empty() { "repo" } else { name })
}

fn locked() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        ..SecurityContext::default()
    }
}

fn resources(row: &Row) -> ResourceRequirements {
    let milli = |cpu: i64| Quantity(format!("{cpu}m"));
    let bytes = |bytes: i64| Quantity(bytes.to_string());
    let (cpu, memory, disk) = ("cpu", "memory", "ephemeral-storage");
    let named = |pairs: [(&str, Quantity); 3]| {
        pairs.into_iter().map(|(name, quantity)| (name.to_owned(), quantity)).collect()
    };
    let least = (row.memory_bytes / PROMISED_MEMORY).max(LEAST_MEMORY).min(row.memory_bytes);
    ResourceRequirements {
        limits: Some(named([
            (cpu, milli(row.cpu_millis)),
            (memory, bytes(row.memory_bytes)),
            (disk, bytes(row.ephemeral_bytes)),
        ])),
        requests: Some(named([
            (cpu, milli((row.cpu_millis / PROMISED_CPU).max(1))),
            (memory, bytes(least)),
            (disk, bytes(row.ephemeral_bytes / PROMISED_MEMORY)),
        ])),
        claims: None,
    }
}

fn volumes(row: &Row) -> Vec<Volume> {
    let empty = |name: &str, size: i64| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: None,
            size_limit: Some(Quantity(size.to_string())),
        }),
        ..Volume::default()
    };
    let token = SecretProjection {
        name: row.pod_name.clone(),
        items: Some(vec![KeyToPath {
            key: TOKEN_KEY.to_owned(),
            path: "token".to_owned(),
            mode: None,
        }]),
        optional: None,
    };
    vec![
        empty("workspace", row.ephemeral_bytes),
        empty("tmp", row.ephemeral_bytes / SIDE_ROOM),
        empty("home", row.ephemeral_bytes / SIDE_ROOM),
        Volume {
            name: "token".to_owned(),
            projected: Some(ProjectedVolumeSource {
                // Readable by the group, which is the weaver's.
                default_mode: Some(0o440),
                sources: Some(vec![VolumeProjection {
                    secret: Some(token),
                    ..VolumeProjection::default()
                }]),
            }),
            ..Volume::default()
        },
    ]
}

fn mounts() -> Vec<VolumeMount> {
    vec![
        mount("workspace", WORKSPACE, false),
        mount("tmp", "/tmp", false),
        mount("home", HOME, false),
    ]
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn value(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() }
}

fn literal(var: EnvVar) -> EnvVar {
    EnvVar { value: var.value.as_deref().map(escape), ..var }
}

/// Kubernetes puts other variables in for `$(NAME)`: what was given is meant as it stands.
fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

fn some<T: IntoIterator + Default + PartialEq>(items: T) -> Option<T> {
    (items != T::default()).then_some(items)
}
