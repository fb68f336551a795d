//! What goes wrong when a test says so, and what was asked.

use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// As roles name it: `get`, `list`, `watch`, `create`, `patch`, `update`, `delete`.
    pub verb: &'static str,
    /// As `pods` or `pods/log`.
    pub resource: String,
    pub name: String,
    /// With its query.
    pub path: String,
}

/// What happens to requests that fit.
#[derive(Clone, Debug)]
pub struct Fault {
    verb: String,
    resource: String,
    times: usize,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Refuse {
        status: u16,
        reason: &'static str,
        message: String,
    },
    /// It is done, and the connection ends before the answer.
    Lose,
    /// The connection ends before it is done.
    Cut,
    Delay(Duration),
}

impl Fault {
    fn new(verb: &str, resource: &str, what: What) -> Self {
        Self { verb: verb.to_owned(), resource: resource.to_owned(), times: usize::MAX, what }
    }

    /// Answered with this status; `reason` as the API server has it (`Forbidden`, `TooManyRequests`…).
    pub fn refuse(
        verb: &str,
        resource: &str,
        status: u16,
        reason: &'static str,
        message: &str,
    ) -> Self {
        Self::new(verb, resource, What::Refuse { status, reason, message: message.to_owned() })
    }

    /// As when the quota of the namespace is used up.
    pub fn quota() -> Self {
        let message = "pods \"weaver\" is forbidden: exceeded quota: weavers, requested: \
                       requests.memory=1Gi, used: requests.memory=8Gi, limited: requests.memory=8Gi";
        Self::refuse("create", "pods", 403, "Forbidden", message)
    }

    /// The request is carried out; who asked never hears of it.
    pub fn lose(verb: &str, resource: &str) -> Self {
        Self::new(verb, resource, What::Lose)
    }

    /// The connection ends and nothing was done.
    pub fn cut(verb: &str, resource: &str) -> Self {
        Self::new(verb, resource, What::Cut)
    }

    /// Answered so much later.
    pub fn delay(verb: &str, resource: &str, by: Duration) -> Self {
        Self::new(verb, resource, What::Delay(by))
    }

    /// For so many requests only.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }
}

/// The first fault that fits, which is then used once more.
pub(super) fn take(faults: &mut Vec<Fault>, verb: &str, resource: &str) -> Option<What> {
    let at = faults.iter().position(|fault| {
        (fault.verb == verb || fault.verb == "*")
            && (fault.resource == resource || fault.resource == "*")
    })?;
    let what = faults[at].what.clone();
    faults[at].times -= 1;
    if faults[at].times == 0 {
        faults.remove(at);
    }
    Some(what)
}
