//! The kinds of items, and what holds for each.

use crate::config::Config;

const KIB: usize = 1024;
pub(crate) const MAX_EVENT: usize = 1024 * KIB;
pub(crate) const MAX_CHECK_IN: usize = 100 * KIB;
const MAX_SESSION: usize = 100 * KIB;
const MAX_CLIENT_REPORT: usize = 4 * KIB;

/// What rate limits and client reports are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Category {
    Error,
    Security,
    Attachment,
    Session,
    Monitor,
    Feedback,
    Internal,
    Transaction,
    Span,
    Log,
    TraceMetric,
    Profile,
    Replay,
    Metric,
    /// A kind that nobody has heard of.
    Unknown,
}

impl Category {
    /// As Sentry's clients call it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Security => "security",
            Self::Attachment => "attachment",
            Self::Session => "session",
            Self::Monitor => "monitor",
            Self::Feedback => "feedback",
            Self::Internal => "internal",
            Self::Transaction => "transaction",
            Self::Span => "span",
            Self::Log => "log_item",
            Self::TraceMetric => "trace_metric",
            Self::Profile => "profile",
            Self::Replay => "replay",
            Self::Metric => "metric_bucket",
            Self::Unknown => "unknown",
        }
    }

    /// Check-ins and what a client says of itself are never held back.
    pub(crate) fn is_limited(self) -> bool {
        !matches!(self, Self::Monitor | Self::Internal)
    }
}

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Event,
    Security,
    Attachment,
    Session,
    Sessions,
    CheckIn,
    ClientReport,
    Feedback,
    /// Taken and dropped.
    Other(Category),
}

impl Kind {
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "event" => Self::Event,
            "raw_security" => Self::Security,
            "attachment" => Self::Attachment,
            "session" => Self::Session,
            "sessions" => Self::Sessions,
            "check_in" => Self::CheckIn,
            "client_report" => Self::ClientReport,
            "user_report" | "feedback" => Self::Feedback,
            "transaction" => Self::Other(Category::Transaction),
            "span" | "otel_span" => Self::Other(Category::Span),
            "log" | "otel_log" => Self::Other(Category::Log),
            "trace_metric" => Self::Other(Category::TraceMetric),
            "profile" | "profile_chunk" => Self::Other(Category::Profile),
            "statsd" => Self::Other(Category::Metric),
            name if name.starts_with("replay_") => Self::Other(Category::Replay),
            name if name.starts_with("metric_") => Self::Other(Category::Metric),
            _ => Self::Other(Category::Unknown),
        }
    }

    pub(crate) fn category(self) -> Category {
        match self {
            Self::Event => Category::Error,
            Self::Security => Category::Security,
            Self::Attachment => Category::Attachment,
            Self::Session | Self::Sessions => Category::Session,
            Self::CheckIn => Category::Monitor,
            Self::ClientReport => Category::Internal,
            Self::Feedback => Category::Feedback,
            Self::Other(category) => category,
        }
    }

    /// The largest payload.
    pub(crate) fn max_bytes(self, config: &Config) -> usize {
        match self {
            Self::Event | Self::Security | Self::Feedback | Self::Sessions => MAX_EVENT,
            Self::Attachment => config.attachment_bytes,
            Self::Session => MAX_SESSION,
            Self::CheckIn => MAX_CHECK_IN,
            Self::ClientReport => MAX_CLIENT_REPORT,
            Self::Other(_) => usize::MAX,
        }
    }

    /// How many of them one envelope may hold.
    pub(crate) fn most(self) -> usize {
        match self {
            Self::Event | Self::Security | Self::Feedback | Self::ClientReport => 10,
            Self::Attachment | Self::Session | Self::Sessions | Self::CheckIn => 100,
            Self::Other(_) => usize::MAX,
        }
    }
}
