//! What one attempt at sending came to.

use std::time::Duration;

/// By which way something was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Via {
    Smtp,
    Outbox,
    Http,
}

impl Via {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Outbox => "outbox",
            Self::Http => "http",
        }
    }
}

/// What one attempt came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) fate: Fate,
    pub(crate) status: Option<i32>,
    pub(crate) error: Option<String>,
}

#[derive(Debug)]
pub(crate) enum Fate {
    Delivered(Via),
    Retry {
        asked: Duration,
    },
    Failed,
    /// The receiver wants nothing more, ever.
    Gone,
    Expired,
}

impl Outcome {
    pub(crate) fn new(fate: Fate, error: Option<String>) -> Self {
        Self { fate, status: None, error }
    }

    pub(crate) fn delivered(via: Via, status: Option<i32>) -> Self {
        Self { fate: Fate::Delivered(via), status, error: None }
    }

    pub(crate) fn retry(error: impl Into<String>) -> Self {
        Self::new(Fate::Retry { asked: Duration::ZERO }, Some(error.into()))
    }

    pub(crate) fn fail(error: impl Into<String>) -> Self {
        Self::new(Fate::Failed, Some(error.into()))
    }

    pub(crate) fn gone(error: impl Into<String>) -> Self {
        Self::new(Fate::Gone, Some(error.into()))
    }

    pub(crate) fn after(mut self, wait: Duration) -> Self {
        if let Fate::Retry { asked } = &mut self.fate {
            *asked = wait;
        }
        self
    }

    pub(crate) fn with_status(mut self, status: Option<u16>) -> Self {
        self.status = status.map(i32::from);
        self
    }
}
