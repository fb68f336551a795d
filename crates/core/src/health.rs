//! What a feature says about its own state.

use std::{future::Future, time::Duration};

use serde::Serialize;
use serde_json::{Map, Value};

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

/// The state of one part. What is serialised here is for everybody; [`Component::finding`] and
/// [`Component::inside`] are for admins only.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Component {
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    pub facts: Map<String, Value>,
    #[serde(skip)]
    #[schema(ignore)]
    pub finding: Option<Finding>,
    #[serde(skip)]
    #[schema(ignore)]
    pub inside: Map<String, Value>,
}

/// What is wrong, for those who can mend it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Finding {
    /// Stable, as `DB_SLOW`; docs/operations.md has them all.
    pub code: &'static str,
    /// What to do, and where to look.
    pub advice: &'static str,
    /// What was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Component {
    pub fn new(status: Status) -> Self {
        Self { status, error: None, facts: Map::new(), finding: None, inside: Map::new() }
    }

    #[must_use]
    pub fn error(mut self, error: impl Into<String>) -> Self {
        self.error = Some(error.into());
        self
    }

    /// A fact for everybody.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// A fact for admins.
    #[must_use]
    pub fn inside(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.inside.insert(name.to_owned(), value.into());
        self
    }

    /// The stable code of what is wrong, and what to do about it: for admins.
    #[must_use]
    pub fn code(mut self, code: &'static str, advice: &'static str) -> Self {
        self.finding = Some(Finding { code, advice, detail: None });
        self
    }

    /// What exactly was seen, for admins; goes with [`Component::code`].
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        if let Some(finding) = &mut self.finding {
            finding.detail = Some(detail.into());
        }
        self
    }
}

/// A probe: it really looks. The server runs all side by side and keeps each answer for a second.
pub type Probe = Box<dyn Fn() -> BoxFuture<'static, Component> + Send + Sync>;

/// A named probe, and whether the whole server is unhealthy when it is.
pub struct Check {
    pub name: &'static str,
    pub critical: bool,
    pub probe: Probe,
}

impl Check {
    pub fn new<F>(name: &'static str, probe: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Component> + Send + 'static,
    {
        Self { name, critical: false, probe: Box::new(move || Box::pin(probe())) }
    }

    /// Unhealthy here is unhealthy for the whole server.
    #[must_use]
    pub fn critical(self, critical: bool) -> Self {
        Self { critical, ..self }
    }

    /// A time limit of its own, below the server's for all.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        let probe = self.probe;
        let probe = move || -> BoxFuture<'static, Component> {
            let answer = probe();
            Box::pin(async move {
                tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| no_answer(limit))
            })
        };
        Self { probe: Box::new(probe), ..self }
    }
}

/// A probe that did not end in time.
pub fn no_answer(limit: Duration) -> Component {
    Component::new(Status::Unhealthy)
        .error(format!("no answer within {} ms", limit.as_millis()))
        .code(
            "NO_ANSWER",
            "The probe was given up: what it asks hangs or is out of reach. Look for its name in the \
             server's log, and at the network between the server and that part.",
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_admins_is_not_serialised() {
        let component = Component::new(Status::Degraded)
            .error("slow")
            .with("connections", 3)
            .inside("host", "db-7.internal")
            .code("DB_SLOW", "look at the disk")
            .detail("250 ms");
        let public = serde_json::to_value(&component).unwrap();
        let expected = serde_json::json!({"status": "degraded", "error": "slow", "connections": 3});
        assert_eq!(public, expected);
        assert_eq!(component.finding.unwrap().detail.as_deref(), Some("250 ms"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_is_given_up_at_its_own_limit() {
        let check = Check::new("stuck", std::future::pending).within(Duration::from_millis(20));
        let started = tokio::time::Instant::now();
        let component = (check.probe)().await;
        assert_eq!(component.status, Status::Unhealthy);
        assert_eq!(component.finding.unwrap().code, "NO_ANSWER");
        assert_eq!(started.elapsed(), Duration::from_millis(20));
    }
}
