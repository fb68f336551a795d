//! A route, as it is given and told.

use chrono::{DateTime, Utc};
use loom_core::{Error, Result, clock, error::FieldError, text};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(super) const MAX_TARGETS: usize = 20;
const MAX_WEIGHT: u32 = 1000;
const MAX_PRIORITY: u32 = 100;
/// Bytes of a model's name.
const MAX_MODEL: usize = 200;
/// Bytes of a route's name.
const MAX_NAME: usize = 100;

/// Where a route may lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LlmRouteTarget)]
pub(crate) struct RouteTarget {
    /// `anthropic`, `openai`, or the name of a configured one.
    pub(crate) provider: String,
    /// As that provider calls it; never a route's name.
    pub(crate) model: String,
    /// Its share of the requests among those of the same priority.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 1000, default = 1)]
    pub(crate) weight: u32,
    /// Those with the lowest number are asked first, the others when these fail.
    #[serde(default)]
    #[schema(maximum = 100, default = 0)]
    pub(crate) priority: u32,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

/// A route as it is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LlmRouteDraft)]
pub(crate) struct RouteDraft {
    /// One that is not is as if it were not there.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub(super) enabled: bool,
    /// 1 to 20.
    pub(super) targets: Vec<RouteTarget>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LlmRoute)]
pub(crate) struct Route {
    /// What stands as `model` in a request.
    pub(super) name: String,
    pub(super) enabled: bool,
    pub(super) targets: Vec<RouteTarget>,
    #[serde(serialize_with = "clock::millis")]
    pub(super) created_at: DateTime<Utc>,
    #[serde(serialize_with = "clock::millis")]
    pub(super) updated_at: DateTime<Utc>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LlmRoutes)]
pub(crate) struct Routes {
    pub(super) routes: Vec<Route>,
}

/// A slash is for `provider/model`, which always means what it says.
pub(super) fn check_name(name: &str) -> Result<()> {
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
    if is_name && !name.is_empty() && name.len() <= MAX_NAME {
        Ok(())
    } else {
        Err(Error::invalid("name", "is 1 to 100 of A-Z, a-z, 0-9, `.`, `_`, `:`, `-`"))
    }
}

impl RouteDraft {
    /// # Errors
    /// 422 with every fault.
    pub(super) fn check(&self, knows: impl Fn(&str) -> bool) -> Result<()> {
        let mut faults = Vec::new();
        let mut fault = |path: String, message: String| faults.push(FieldError { path, message });
        if self.targets.is_empty() || self.targets.len() > MAX_TARGETS {
            fault("targets".to_owned(), format!("are 1 to {MAX_TARGETS}"));
        }
        for (at, target) in self.targets.iter().take(MAX_TARGETS).enumerate() {
            let path = |member: &str| format!("targets[{at}].{member}");
            if !knows(&target.provider) {
                fault(path("provider"), "is no provider of this server".to_owned());
            }
            if !text::is_plain_line(&target.model, MAX_MODEL) {
                fault(path("model"), format!("is one line of 1 to {MAX_MODEL} bytes"));
            }
            if !(1..=MAX_WEIGHT).contains(&target.weight) {
                fault(path("weight"), format!("is 1 to {MAX_WEIGHT}"));
            }
            if target.priority > MAX_PRIORITY {
                fault(path("priority"), format!("is 0 to {MAX_PRIORITY}"));
            }
            let same = |other: &&RouteTarget| {
                other.provider == target.provider && other.model == target.model
            };
            if self.targets.iter().filter(same).count() > 1 {
                fault(path("model"), "is there twice with this provider".to_owned());
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(Error::invalid_fields(faults)) }
    }
}
