//! What a feature says about its own state.

use serde::Serialize;

use crate::port::BoxFuture;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not configured; changes nothing for the whole.
    Disabled,
    Healthy,
    Degraded,
    Unhealthy,
}

/// The state of one part.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Component {
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    pub facts: serde_json::Map<String, serde_json::Value>,
}

impl Component {
    pub fn new(status: Status) -> Self {
        Self { status, error: None, facts: serde_json::Map::new() }
    }

    #[must_use]
    pub fn error(mut self, error: impl Into<String>) -> Self {
        self.error = Some(error.into());
        self
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }
}

/// A probe: it really looks. The server bounds it in time, runs all side by side and keeps each
/// answer for a second.
pub type Probe = Box<dyn Fn() -> BoxFuture<'static, Component> + Send + Sync>;

/// A named probe, and whether the whole server is unhealthy when it is.
pub struct Check {
    pub name: &'static str,
    pub critical: bool,
    pub probe: Probe,
}
