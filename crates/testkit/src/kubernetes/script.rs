//! What pods do.

use std::time::Duration;

/// A step in the life of a pod.
#[derive(Clone, Debug)]
pub enum Step {
    /// It gets a node.
    Schedule,
    /// There is no node for it, for this reason.
    Unschedulable(String),
    /// Its container waits: a reason as `ErrImagePull`, and a message.
    Wait(&'static str, String),
    /// An init container ends with this code.
    InitExit(i32),
    /// Its container runs and is ready.
    Start,
    /// It says a line.
    Say(String),
    Pause(Duration),
    /// Until the test lets it go on.
    Hold,
    /// The container ends.
    Exit(i32),
    /// The kernel ends it for want of memory.
    Oom,
    /// The kubelet throws it out, with this message.
    Evict(String),
    /// It had its time (`activeDeadlineSeconds`).
    Deadline,
    /// Its node is not heard of any more.
    NodeLost,
}

/// The steps of a pod; after the last it stays as it is.
#[derive(Clone, Debug)]
pub struct Script {
    pub(super) steps: Vec<Step>,
    /// Does not end when asked to: it goes when the test lets it.
    pub(super) stubborn: bool,
}

impl Script {
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), stubborn: false }
    }

    /// Starts, and then does this.
    pub fn runs(then: impl IntoIterator<Item = Step>) -> Self {
        Self::new([Step::Schedule, Step::Start].into_iter().chain(then))
    }

    #[must_use]
    pub fn stubborn(mut self) -> Self {
        self.stubborn = true;
        self
    }

    /// By the name of the image:
    ///
    /// - `fake/exit-3` ends with 3; `fake/oom`, `fake/evicted`, `fake/deadline`, `fake/node-lost` end so
    /// - `fake/bad-image` cannot be pulled, `fake/private-image` must not; `fake/no-image` is not there
    ///   and is not pulled; what is no name of an image is `InvalidImageName`
    /// - `fake/bad-config`, `fake/bad-command`: the container cannot be made or started
    /// - `fake/unschedulable`: no node has room; `fake/init-fails`: the clone ends with 128
    /// - `fake/holds` waits unscheduled, `fake/slow-pull` pulling, until the test lets it go on
    /// - `fake/says` says `one`, `two`, `three`; `fake/done` does so and ends with 0
    /// - `fake/stubborn` does not end when it is deleted, until the test lets it
    ///
    /// All others run until they are deleted.
    pub(super) fn of(image: &str) -> Self {
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || "._-/:@".contains(letter);
        if image.is_empty() || !image.chars().all(is_name) || image.contains("//") {
            let text = format!(
                "Failed to apply default image tag \"{image}\": couldn't parse image reference \
                 \"{image}\": invalid reference format"
            );
            return Self::new([Step::Schedule, Step::Wait("InvalidImageName", text)]);
        }
        let name = image.strip_prefix("fake/").unwrap_or_default();
        let name = name.split(':').next().unwrap_or_default();
        let back_off =
            Step::Wait("ImagePullBackOff", format!("Back-off pulling image \"{image}\""));
        let says = ["one", "two", "three"].map(|line| Step::Say(line.to_owned()));
        if let Some(code) = name.strip_prefix("exit-") {
            return Self::runs([Step::Exit(code.parse().expect("a number"))]);
        }
        match name {
            "oom" => Self::runs([Step::Oom]),
            "evicted" => Self::runs([Step::Evict(
                "The node was low on resource: ephemeral-storage. Container weaver was using 11Gi, \
                 request is 1Gi."
                    .to_owned(),
            )]),
            "deadline" => Self::runs([Step::Deadline]),
            "node-lost" => Self::runs([Step::NodeLost]),
            "bad-image" => Self::new([
                Step::Schedule,
                Step::Wait(
                    "ErrImagePull",
                    format!(
                        "rpc error: code = NotFound desc = failed to pull and unpack image \
                         \"docker.io/{image}:latest\": docker.io/{image}:latest: not found"
                    ),
                ),
                back_off,
            ]),
            "private-image" => Self::new([
                Step::Schedule,
                Step::Wait(
                    "ErrImagePull",
                    "failed to authorize: failed to fetch anonymous token: 401 Unauthorized"
                        .to_owned(),
                ),
                back_off,
            ]),
            "no-image" => Self::new([
                Step::Schedule,
                Step::Wait(
                    "ErrImageNeverPull",
                    format!(
                        "Container image \"{image}\" is not present with pull policy of Never"
                    ),
                ),
            ]),
            "bad-config" => Self::new([
                Step::Schedule,
                Step::Wait("CreateContainerConfigError", "secret \"missing\" not found".to_owned()),
            ]),
            "bad-command" => Self::new([
                Step::Schedule,
                Step::Wait(
                    "RunContainerError",
                    "failed to create containerd task: exec: \"nope\": executable file not found in \
                     $PATH"
                        .to_owned(),
                ),
            ]),
            "unschedulable" => Self::new([Step::Unschedulable(
                "0/3 nodes are available: 1 node(s) had untolerated taint {dedicated: other}, \
                 2 Insufficient memory. preemption: 0/3 nodes are available."
                    .to_owned(),
            )]),
            "init-fails" => Self::new([Step::Schedule, Step::InitExit(128)]),
            "holds" => Self::new([Step::Hold, Step::Schedule, Step::Start]),
            "slow-pull" => Self::new([Step::Schedule, Step::Hold, Step::Start]),
            "says" => Self::runs(says),
            "done" => Self::runs(says.into_iter().chain([Step::Exit(0)])),
            "stubborn" => Self::runs([]).stubborn(),
            _ => Self::runs([]),
        }
    }
}
