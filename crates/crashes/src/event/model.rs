//! The parts of an event that processing looks at. Everything else is in the raw form.

use chrono::{DateTime, Utc};
use loom_core::id::ProjectId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Debug,
    Info,
    Warning,
    #[default]
    Error,
    Fatal,
}

impl Level {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// Also under the names that other systems have for it.
    pub(crate) fn read(text: &str) -> Option<Self> {
        Some(match text.trim().to_ascii_lowercase().as_str() {
            "debug" | "trace" | "verbose" => Self::Debug,
            "info" | "log" | "notice" => Self::Info,
            "warning" | "warn" => Self::Warning,
            "error" => Self::Error,
            "fatal" | "critical" | "alert" | "emergency" => Self::Fatal,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub project: ProjectId,
    /// By our clock; the time of receipt when it says none that can be.
    pub at: DateTime<Utc>,
    pub platform: Option<String>,
    pub level: Level,
    pub logger: Option<String>,
    pub transaction: Option<String>,
    pub server_name: Option<String>,
    pub release: Option<String>,
    pub dist: Option<String>,
    pub environment: Option<String>,
    pub message: Option<Message>,
    /// Oldest first: the last is the outermost.
    pub exceptions: Vec<Exception>,
    pub threads: Vec<Thread>,
    pub images: Vec<Image>,
    /// Also those that are made of contexts, user, release…
    pub tags: Vec<(String, String)>,
    pub user: Option<User>,
    /// As the client gave it.
    pub fingerprint: Option<Vec<String>>,
    pub trace_id: Option<String>,
    pub session_id: Option<String>,
    /// The UUID of a thread of conversations (`thread_id`, `contexts.loom.thread_id` or the tag).
    pub thread: Option<uuid::Uuid>,
    /// Files that symbolication would have needed.
    pub missing_files: Vec<MissingFile>,
    /// What was wrong with what was sent, in words.
    pub faults: Vec<String>,
    /// The whole payload, an object.
    pub raw: Value,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// With its parameters not put in, when the client says it.
    pub template: Option<String>,
    pub formatted: String,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Exception {
    pub kind: Option<String>,
    pub value: Option<String>,
    pub module: Option<String>,
    pub thread_id: Option<String>,
    pub mechanism: Mechanism,
    pub frames: Vec<Frame>,
    /// What symbolication made of its name.
    pub head: Option<Head>,
}

/// The name of an exception as it is in the source, and as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Head {
    #[serde(rename = "type")]
    pub kind: String,
    pub module: Option<String>,
    pub raw_type: Option<String>,
    pub raw_module: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Mechanism {
    pub kind: Option<String>,
    pub handled: Option<bool>,
    pub synthetic: bool,
    pub is_exception_group: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Thread {
    pub id: Option<String>,
    pub name: Option<String>,
    pub crashed: bool,
    pub current: bool,
    pub frames: Vec<Frame>,
}

/// One call of a stack. The first of a list is the oldest call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Frame {
    pub filename: Option<String>,
    pub abs_path: Option<String>,
    pub module: Option<String>,
    pub function: Option<String>,
    pub raw_function: Option<String>,
    pub lineno: Option<u32>,
    pub colno: Option<u32>,
    pub in_app: Option<bool>,
    pub context_line: Option<String>,
    pub pre_context: Vec<String>,
    pub post_context: Vec<String>,
    pub package: Option<String>,
    pub platform: Option<String>,
    pub image_addr: Option<u64>,
    pub instruction_addr: Option<u64>,
    pub symbol_addr: Option<u64>,
    /// As `abs`, `rel:0`.
    pub addr_mode: Option<String>,
    /// Token of a .NET method.
    pub function_id: Option<u64>,
    pub vars: Option<Value>,
    /// How a stack walk found it: `context`, `cfi`, `fp`, `scan`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
    /// Made by symbolication of the call that it is inlined in.
    pub inlined: bool,
    pub symbolication: Option<FrameStatus>,
}

/// What became of a frame's address or minified position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum FrameStatus {
    /// Found; in this file.
    Symbolicated { file: String },
    /// The file that would know it is not there: its debug id, or its URL.
    MissingFile { wanted: String },
    /// The file is there and does not know this place.
    MissingSymbol { file: String },
    /// The file cannot be read.
    Malformed { file: String, reason: String },
    /// No image of the event has this address.
    UnknownImage,
}

/// A file that would have given symbols, had it been uploaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MissingFile {
    /// `debug_file`, `mapping`, `script` or `source_map`.
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dist: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// A module that was loaded, or a source file that has a debug id.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Image {
    pub kind: String,
    pub debug_id: Option<String>,
    pub code_id: Option<String>,
    pub code_file: Option<String>,
    pub debug_file: Option<String>,
    pub image_addr: Option<u64>,
    pub image_size: Option<u64>,
    pub arch: Option<String>,
    /// Of ProGuard and others that have no debug id.
    pub uuid: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct User {
    pub id: Option<String>,
    pub email: Option<String>,
    pub username: Option<String>,
    pub ip_address: Option<String>,
}

impl User {
    /// What tells users apart, with what it is: `id:42`.
    pub(crate) fn label(&self) -> Option<String> {
        [
            ("id", &self.id),
            ("username", &self.username),
            ("email", &self.email),
            ("ip", &self.ip_address),
        ]
        .into_iter()
        .find_map(|(name, value)| value.as_ref().map(|value| format!("{name}:{value}")))
    }
}
