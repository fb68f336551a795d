//! What a pod's status says, in the words of this feature.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::{
    api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use loom_core::id::WeaverId;

use super::{CLONE, CONTAINER, WEAVER};

/// How long trouble may last before it is the end.
const PULL: Duration = Duration::from_secs(120);
/// A registry that says so has it neither now nor in two minutes; one repeat tells a stumble from an answer.
const PULL_REFUSED: Duration = Duration::from_secs(15);
const SETUP: Duration = Duration::from_secs(60);
const SCHEDULING: Duration = Duration::from_secs(600);
const NODE_SILENT: Duration = Duration::from_secs(300);
/// Of texts of others.
const LONGEST: usize = 1000;

/// How a pod came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Went well; else it failed, or was lost to the cluster.
    pub(crate) success: bool,
    pub(crate) lost: bool,
    pub(crate) code: &'static str,
    pub(crate) text: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) at: Option<DateTime<Utc>>,
}

impl Outcome {
    pub(crate) fn is_by_signal(&self) -> bool {
        self.code == "crashed" && self.exit_code.is_some_and(|code| code > 128)
    }
}

/// Something wrong that may still pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Worry {
    pub(crate) code: &'static str,
    pub(crate) text: String,
    /// None: it does not pass by itself.
    pub(crate) grace: Option<Duration>,
}

/// The value of the label by which policies of the network find it.
pub(crate) fn network(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(crate::network::LABEL).map(String::as_str)
}

pub(crate) fn weaver_of(pod: &Pod) -> Option<WeaverId> {
    pod.metadata.labels.as_ref()?.get(WEAVER)?.parse().ok()
}

pub(crate) fn uid(pod: &Pod) -> Option<&str> {
    pod.metadata.uid.as_deref()
}

/// When it was told to go; the time is that at which it will be killed.
pub(crate) fn going(pod: &Pod) -> Option<DateTime<Utc>> {
    pod.metadata.deletion_timestamp.as_ref().and_then(time)
}

pub(crate) fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

pub(crate) fn scheduled_at(pod: &Pod) -> Option<DateTime<Utc>> {
    let condition =
        condition(pod, "PodScheduled").filter(|condition| condition.status == "True")?;
    condition.last_transition_time.as_ref().and_then(time)
}

pub(crate) fn started_at(pod: &Pod) -> Option<DateTime<Utc>> {
    let state = main(pod)?.state.as_ref()?;
    let running = state.running.as_ref().and_then(|running| running.started_at.as_ref());
    let ended = state.terminated.as_ref().and_then(|ended| ended.started_at.as_ref());
    running.or(ended).and_then(time)
}

pub(crate) fn ready_at(pod: &Pod) -> Option<DateTime<Utc>> {
    let condition = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    condition.last_transition_time.as_ref().and_then(time)
}

pub(crate) fn restarts(pod: &Pod) -> i32 {
    main(pod).map_or(0, |status| status.restart_count)
}

/// Is the container of the agent running?
pub(crate) fn is_running(pod: &Pod) -> bool {
    main(pod).and_then(|status| status.state.as_ref()).is_some_and(|state| state.running.is_some())
}

/// Why somebody else had it go.
pub(crate) fn taken_away(pod: &Pod) -> Outcome {
    let why = condition(pod, "DisruptionTarget").filter(|condition| condition.status == "True");
    let (code, text) = match why.and_then(|condition| condition.reason.as_deref()) {
        Some("EvictionByEvictionAPI") => {
            ("evicted", "its pod was evicted, as when a node is drained")
        }
        Some("PreemptionByScheduler") => {
            ("preempted", "its pod had to make room for a more important one")
        }
        Some("DeletionByTaintManager" | "DeletionByPodGC") => {
            ("node_lost", "the node on which it ran is gone or no longer answers")
        }
        Some("TerminationByKubelet") => ("evicted", "its node needed the room, or was shut down"),
        _ if pod_reason(pod) == Some("NodeLost") => {
            ("node_lost", "the node on which it ran is gone or no longer answers")
        }
        _ => ("deleted_by_hand", "its pod was deleted in the cluster, and not by this server"),
    };
    let said = why.and_then(|condition| condition.message.as_deref());
    Outcome { success: false, lost: true, code, text: with(text, said), exit_code: None, at: None }
}

/// How it ended, when it did. Judged by the container of the agent: a pod can still be called running when that
/// has ended.
pub(crate) fn outcome(pod: &Pod) -> Option<Outcome> {
    let main_ended = main(pod).and_then(ended);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let is_over = matches!(phase, "Succeeded" | "Failed");
    let message = pod.status.as_ref().and_then(|status| status.message.as_deref());
    if phase == "Failed"
        && let Some((code, lost, text)) = pod_failed(pod)
    {
        let at = main_ended.and_then(|ended| ended.finished_at.as_ref()).and_then(time);
        let exit_code = main_ended.map(|ended| ended.exit_code);
        return Some(Outcome {
            success: false,
            lost,
            code,
            text: with(text, message),
            exit_code,
            at,
        });
    }
    if let Some(ended) = main_ended {
        return Some(exited(ended));
    }
    let clone = init(pod).and_then(ended).filter(|ended| ended.exit_code != 0);
    if let Some(ended) = clone {
        let code = ended.exit_code;
        let text = format!(
            "the repository could not be cloned: git ended with status {code}; the log says why"
        );
        return Some(Outcome {
            success: false,
            lost: false,
            code: "clone_failed",
            text: with(&text, ended.message.as_deref()),
            exit_code: None,
            at: ended.finished_at.as_ref().and_then(time),
        });
    }
    is_over.then(|| Outcome {
        success: phase == "Succeeded",
        lost: false,
        code: if phase == "Succeeded" { "exited" } else { "failed" },
        text: with("its pod ended, and says no more", message),
        exit_code: None,
        at: None,
    })
}

/// What the pod as a whole failed of.
fn pod_failed(pod: &Pod) -> Option<(&'static str, bool, &'static str)> {
    Some(match pod_reason(pod)? {
        "Evicted" => {
            ("evicted", true, "its node put it out, for want of memory or of room on the disk")
        }
        "DeadlineExceeded" => ("deadline", false, "it ran longer than any weaver may"),
        "NodeLost" => ("node_lost", true, "the node on which it ran is gone or no longer answers"),
        "Terminated" | "Shutdown" | "NodeShutdown" => {
            ("node_shutdown", true, "the node on which it ran was shut down")
        }
        "Preempting" | "Preempted" => {
            ("preempted", true, "its pod had to make room for a more important one")
        }
        "NodeAffinity"
        | "OutOfcpu"
        | "OutOfmemory"
        | "OutOfpods"
        | "OutOfephemeral-storage"
        | "UnexpectedAdmissionError" => {
            ("rejected_by_node", false, "the node that was to run it would not take it")
        }
        _ => return None,
    })
}

fn exited(ended: &ContainerStateTerminated) -> Outcome {
    let reason = ended.reason.as_deref().unwrap_or_default();
    let status = ended.exit_code;
    let (code, text) = match (reason, status) {
        ("OOMKilled", _) => {
            ("out_of_memory", "it took more memory than it may have, and was killed".to_owned())
        }
        ("StartError" | "ContainerCannotRun", _) => {
            ("start", "its command could not be started".to_owned())
        }
        (_, 0) => ("exited", "its command has ended".to_owned()),
        (_, 126) => ("crashed", "its command is not executable (status 126)".to_owned()),
        (_, 127) => ("crashed", "its command was not found (status 127)".to_owned()),
        (_, 129..=192) => {
            let signal = status - 128;
            let name = match signal {
                6 => " (SIGABRT)",
                9 => " (SIGKILL)",
                11 => " (SIGSEGV)",
                15 => " (SIGTERM)",
                _ => "",
            };
            ("crashed", format!("its command was ended by signal {signal}{name}"))
        }
        _ => ("crashed", format!("its command ended with status {status}")),
    };
    Outcome {
        success: code == "exited",
        lost: false,
        code,
        text: with(&text, ended.message.as_deref()),
        exit_code: Some(status),
        at: ended.finished_at.as_ref().and_then(time),
    }
}

/// What keeps it from running, now.
pub(crate) fn worry(pod: &Pod) -> Option<Worry> {
    let worry = |code, text: String, grace| Some(Worry { code, text, grace });
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase == Some("Unknown") || pod_reason(pod) == Some("NodeLost") {
        let text = "the node on which it runs no longer answers".to_owned();
        return worry("node_lost", text, Some(NODE_SILENT));
    }
    if let Some(condition) = condition(pod, "PodScheduled").filter(|it| it.status == "False") {
        let said = condition.message.as_deref();
        let text = with(&format!("no node of the cluster has room for it{}", short_of(said)), said);
        return worry("unschedulable", text, Some(SCHEDULING));
    }
    let waiting = [init(pod), main(pod)].into_iter().flatten().find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        Some((status, waiting.reason.as_deref()?, waiting.message.as_deref()))
    });
    let (status, reason, said) = waiting?;
    let image = &status.image;
    match reason {
        "InvalidImageName" => {
            worry("image_name", with(&format!("`{image}` is no name of an image"), said), None)
        }
        "ErrImageNeverPull" => worry(
            "image_missing",
            with("the image is not on the node, and is not to be pulled", said),
            None,
        ),
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => {
            worry("image_pull", with("the image cannot be pulled", said), Some(PULL))
        }
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PostStartHookError" => {
            worry("start", with("its container cannot be started", said), Some(SETUP))
        }
        _ => None,
    }
}

/// Does the registry say that there is no such image, or not for us? A name server that does not find the
/// registry may well find it the next time.
pub(crate) fn is_refusal(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    let words = [
        "manifest unknown",
        "not found",
        "unauthorized",
        "authentication required",
        "denied",
        "does not exist",
        "403 forbidden",
        "no match for platform",
        "invalid reference",
    ];
    let of_the_network = ["no such host", "lookup ", "timeout", "connection refused"];
    words.iter().any(|word| said.contains(word))
        && !of_the_network.iter().any(|word| said.contains(word))
}

/// See [`PULL_REFUSED`].
pub(crate) fn refused() -> TimeDelta {
    TimeDelta::from_std(PULL_REFUSED).unwrap_or_default()
}

/// `: not enough memory, cpu` of a scheduler's message.
fn short_of(said: Option<&str>) -> String {
    let mut short: Vec<&str> = Vec::new();
    for part in said.unwrap_or_default().split("Insufficient ").skip(1) {
        let name = part.split([',', '.', ' ', ';']).next().unwrap_or_default();
        if !name.is_empty() && !short.contains(&name) {
            short.push(name);
        }
    }
    if short.is_empty() { String::new() } else { format!(": not enough {}", short.join(", ")) }
}

fn with(text: &str, said: Option<&str>) -> String {
    let said = said.map(str::trim).filter(|said| !said.is_empty());
    let mut whole = said.map_or_else(|| text.to_owned(), |said| format!("{text}: {said}"));
    if let Some((at, _)) = whole.char_indices().nth(LONGEST) {
        whole.truncate(at);
    }
    whole
}

fn pod_reason(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.reason.as_deref()
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn main(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == CONTAINER)
}

fn init(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.init_container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == CLONE)
}

fn ended(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

pub(crate) fn time(time: &Time) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(time.0.as_microsecond())
}
