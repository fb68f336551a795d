//! Typed ids: UUIDv7 in text, one type for each kind of thing.

use chrono::{DateTime, Utc};
use uuid::{Builder, Uuid};

/// A new UUIDv7 for this moment (RFC 9562, section 5.7). Its random part is of the thread's own
/// generator: asking the kernel for each id would be a system call for each.
pub fn new_uuid(now: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(now.timestamp_millis()).unwrap_or_default();
    Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
            serde::Serialize, serde::Deserialize, sqlx::Type, utoipa::ToSchema,
        )]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            pub fn new(now: DateTime<Utc>) -> Self {
                Self(new_uuid(now))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> std::result::Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    )+};
}

ids! {
    /// A rule by which crashes are told.
    AlertRuleId,
    /// An API key (its secret is something else).
    ApiKeyId,
    /// An uploaded source map, source or debug file.
    ArtifactId,
    /// One run of a monitored job, as it was told or missed.
    CheckInId,
    /// A stored provider credential.
    CredentialId,
    /// Something sent by mail or to a webhook.
    DeliveryId,
    /// An event of an application: an error, a crash, a message.
    EventId,
    /// Failures of a monitored job in a row.
    IncidentId,
    /// An invitation to an organisation.
    InvitationId,
    /// Events that are the same fault.
    IssueId,
    /// One request to a model.
    LlmRequestId,
    /// A monitored job.
    MonitorId,
    /// An organisation: the tenant.
    OrgId,
    /// What events, sessions and check-ins belong to.
    ProjectId,
    /// A key of a project: the public part of a DSN.
    ProjectKeyId,
    /// A git repository.
    RepositoryId,
    /// One run of a job.
    RunId,
    /// A sign-in that lasts.
    SessionId,
    /// A person.
    UserId,
    /// A weaver.
    WeaverId,
    /// Whom to call over HTTP.
    WebhookId,
}

/// Loom's own organisation, made by migration 032: what it says of itself lies there.
pub const INTERNAL_ORG: OrgId = OrgId(Uuid::from_u128(0x7000_8000_0000_0000_0001));

/// The UUID behind a thread's id, which is written `T-<uuid>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
pub struct ThreadId(pub Uuid);

impl std::fmt::Display for ThreadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "T-{}", self.0)
    }
}

impl std::str::FromStr for ThreadId {
    type Err = String;

    /// Takes `T-<uuid>`, the uuid in its usual form with dashes.
    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_prefix("T-")
            .filter(|uuid| uuid.len() == 36)
            .and_then(|uuid| uuid.parse().ok())
            .map(Self)
            .ok_or_else(|| "a thread id is `T-` and a UUID".to_owned())
    }
}

impl serde::Serialize for ThreadId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ThreadId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for ThreadId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("`T-` and a UUIDv7"))
            .pattern(Some("^T-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"))
            .into()
    }
}

impl utoipa::ToSchema for ThreadId {}
