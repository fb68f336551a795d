//! What goes over the wire.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use utoipa::{IntoParams, ToSchema};

use crate::filter::MinLevel;

/// Which lines.
#[derive(Clone, Debug, Default, Deserialize, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct LogQuery {
    /// Lines of this level and more severe ones.
    #[param(value_type = Option<MinLevel>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Lines whose target begins so, as `loom_jobs`.
    #[param(max_length = 256)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Lines with this text in the message, the fields or the request's id, whatever the case.
    #[param(max_length = 256)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// The lines of one request.
    #[param(max_length = 256)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Lines behind the one with this id, oldest first. Without it: the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_id: Option<String>,
    /// How many lines, 1 to 1000; 100 when absent. A stream has no limit.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u16>,
    /// Another server's lines: its id or name in `/api/admin/replicas`.
    #[param(max_length = 256)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
}

/// One line of the log, secrets masked.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// `<start of the process>-<number>`; numbers rise.
    pub id: String,
    pub timestamp: String,
    pub level: MinLevel,
    /// The part of the server that it comes from.
    pub target: String,
    pub message: String,
    /// The event's fields, and those of the spans around it.
    #[schema(value_type = Object)]
    pub fields: Map<String, Value>,
    /// The names of the spans around it, outermost first, with `:` between them.
    pub span: Option<String>,
    pub request_id: Option<String>,
    /// The server that it is of.
    pub replica: String,
}

/// Lines that were asked for and are not kept any more.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// How many, of all there were; absent when the lines are of another start of the server.
    pub missed: Option<u64>,
    pub from: String,
    pub to: String,
}

/// Lines that are kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct Lines {
    /// Newest last.
    #[schema(value_type = Vec<LogEntry>)]
    pub entries: Vec<Box<RawValue>>,
    /// What to give as `after_id` to go on from here: all up to this line was looked at.
    pub last_id: String,
    /// When lines behind `after_id` are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// In bytes.
    pub buffer_size: usize,
    pub buffer_capacity: usize,
}
