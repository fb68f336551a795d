//! What the device flow says, in the shapes of RFC 8628.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
pub(crate) struct DeviceStart {
    /// What the client calls itself; the person who lets it in reads it.
    #[serde(default, alias = "client_id")]
    pub(crate) client_name: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DeviceStarted {
    pub(crate) device_code: String,
    /// `BCDF-GHJK`: eight letters.
    pub(crate) user_code: String,
    pub(crate) verification_uri: String,
    /// With the code filled in.
    pub(crate) verification_uri_complete: String,
    /// Seconds.
    pub(crate) expires_in: u64,
    /// Seconds between two polls.
    pub(crate) interval: i32,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub(crate) struct DevicePoll {
    pub(crate) device_code: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DeviceToken {
    /// `loom_cli_…`
    pub(crate) access_token: String,
    pub(crate) token_type: &'static str,
    /// When it ends if it is not used until then.
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) expires_at: DateTime<Utc>,
    /// The same in seconds from now.
    pub(crate) expires_in: u64,
}

/// The errors of RFC 8628, section 3.5.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PollError {
    AuthorizationPending,
    SlowDown,
    AccessDenied,
    ExpiredToken,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DevicePending {
    pub(crate) error: PollError,
    pub(crate) error_description: &'static str,
}

impl PollError {
    pub(crate) fn document(self) -> DevicePending {
        let error_description = match self {
            Self::AuthorizationPending => "nobody has answered yet; ask again after the interval",
            Self::SlowDown => "asked too soon; the interval is five seconds longer from now on",
            Self::AccessDenied => "it was refused",
            Self::ExpiredToken => "there is no such device code, or it has expired; start again",
        };
        DevicePending { error: self, error_description }
    }
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub(crate) struct DeviceAnswer {
    /// As the client shows it; dashes, spaces and small letters do not matter.
    pub(crate) user_code: String,
    pub(crate) approve: bool,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DeviceAnswered {
    pub(crate) approved: bool,
    pub(crate) client_name: String,
}
