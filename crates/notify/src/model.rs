//! What is sent, and what becomes of it.

use chrono::{DateTime, Utc};
use loom_core::id::{DeliveryId, OrgId, UserId, WebhookId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A mail to one person.
#[derive(Clone, Debug)]
pub struct Mail {
    /// What it is for, as `magic_link`: in the log and the outbox.
    pub kind: &'static str,
    pub to: String,
    /// One line; the log keeps it, so that no secret may stand in it.
    pub subject: String,
    pub text: String,
    pub html: Option<String>,
    /// Not sent afterwards. A mail that holds a secret must have it: it is then erased however it ends.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Something that those who run this installation have to know.
#[derive(Clone, Debug)]
pub struct Alert {
    /// As `job.failing`; webhooks choose by it.
    pub kind: &'static str,
    /// What it is about, as a job's id: while one waits to be sent, a further one is not queued.
    pub key: String,
    pub title: String,
    pub text: String,
    /// Where the dashboard shows it, as `/jobs?job=…`.
    pub page: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Channel {
    Mail,
    Webhook,
}

impl Channel {
    pub(crate) const ALL: [Self; 2] = [Self::Mail, Self::Webhook];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Webhook => "webhook",
        }
    }
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum DeliveryState {
    /// Waits for its next attempt.
    Pending,
    /// Is being sent.
    Delivering,
    Delivered,
    /// Given up.
    Failed,
    /// Was of no use any more before it could be sent.
    Expired,
}

impl DeliveryState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivering => "delivering",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }
}

/// A delivery as admins see it: never what was in it.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, ToSchema)]
pub struct DeliveryView {
    pub id: DeliveryId,
    pub org_id: Option<OrgId>,
    /// What it is for, as `magic_link` or `job.failing`.
    pub kind: String,
    pub channel: Channel,
    pub webhook_id: Option<WebhookId>,
    /// An e-mail address, or scheme and host of a webhook.
    pub target: String,
    pub subject: String,
    pub state: DeliveryState,
    /// Attempts begun.
    pub attempt: i32,
    /// While it is pending.
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub next_attempt_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was delivered, given up, or expired.
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub finished_at: Option<DateTime<Utc>>,
    /// By which way it went: `smtp`, `outbox` (a file, as there is no mail server), `http`.
    pub via: Option<String>,
    /// What the other side last answered: of SMTP or HTTP.
    pub status_code: Option<i32>,
    /// Of the last attempt that failed; at most 500 bytes.
    pub last_error: Option<String>,
    /// Whether it can be tried again by hand: it failed, and what it holds is still there.
    pub retriable: bool,
}

/// A webhook as admins see it; its secret is shown once, when it is made.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WebhookView {
    pub id: WebhookId,
    pub name: String,
    pub url: String,
    /// What it hears of; empty for everything.
    pub kinds: Vec<String>,
    pub enabled: bool,
    /// Why it is off when nobody switched it off.
    pub disabled_reason: Option<String>,
    /// Deliveries in a row that were given up.
    pub failures: i32,
    pub created_by: Option<UserId>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub updated_at: DateTime<Utc>,
}

/// Which deliveries are wanted.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeliveryQuery {
    pub(crate) state: Option<DeliveryState>,
    pub(crate) channel: Option<Channel>,
    /// How many items, 1 to 200; 50 when absent.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub(crate) limit: Option<u16>,
    /// `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
}
