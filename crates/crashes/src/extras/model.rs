//! Attachments and feedback, as they are sent.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A file that came with an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AttachmentView {
    pub id: Uuid,
    pub name: String,
    /// As the sender says.
    pub content_type: Option<String>,
    /// As `event.attachment`, `event.minidump`, `event.view_hierarchy`.
    pub kind: String,
    pub size_bytes: i64,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub received_at: DateTime<Utc>,
}

/// The files of an event, in the order that they came.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Attachments {
    pub attachments: Vec<AttachmentView>,
}

/// What a user says of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Feedback {
    pub id: Uuid,
    pub name: Option<String>,
    pub email: Option<String>,
    pub message: String,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub received_at: DateTime<Utc>,
}

/// In the order that it came.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FeedbackList {
    pub feedback: Vec<Feedback>,
}
