//! A credential in use by one request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, StatusCode};
use loom_common_secret::SecretString;
use loom_core::{Clock, Error, Result, id::CredentialId};

use super::{
    member::{Member, Ready, Who},
    verdict::Verdict,
};

/// Names what a request has tried. One that got a new token may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CredentialKey {
    pub(crate) who: Who,
    pub(crate) token: u64,
}

/// Counts as in flight until it is dropped.
pub(crate) struct Lease {
    member: Arc<Member>,
    key: CredentialKey,
    probe: AtomicBool,
    clock: Clock,
}

/// Why no credential can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// The provider wants one, and there is none.
    NotConfigured,
    /// All that are not disabled wait out a rate limit, or their circuits.
    CoolingDown {
        shortest: Duration,
    },
    /// The circuits of all that are not disabled are open.
    Failing {
        shortest: Duration,
    },
    AllDisabled,
    /// All that are available were tried.
    NoneLeft,
}

impl Lease {
    pub(crate) fn new(member: Arc<Member>, token: u64, probe: bool, clock: Clock) -> Self {
        member.in_flight.fetch_add(1, Ordering::Relaxed);
        let key = CredentialKey { who: member.who, token };
        Self { member, key, probe: AtomicBool::new(probe), clock }
    }

    pub(crate) fn key(&self) -> CredentialKey {
        self.key
    }

    /// None for what is not stored.
    pub(crate) fn id(&self) -> Option<CredentialId> {
        match self.key.who {
            Who::Stored(id) => Some(id),
            Who::Keyless | Who::Environment => None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.member.name
    }

    /// What is to be sent, see [`put_on`]; a token that has ended is renewed first.
    ///
    /// # Errors
    /// When a token is needed and cannot be had.
    pub(crate) async fn headers(&self) -> Result<HeaderMap> {
        let ready: &Ready = &self.member.ready;
        std::future::ready(Ok(ready.headers.clone())).await
    }

    /// What must not be seen in an answer.
    pub(crate) fn secret_for_redaction(&self) -> Option<SecretString> {
        self.member.ready.secret.clone()
    }

    /// How the request went.
    pub(crate) fn report(&self, verdict: Verdict) {
        self.member.note(verdict, self.clock.now());
        self.end_probe();
    }

    fn end_probe(&self) {
        if self.probe.swap(false, Ordering::Relaxed) {
            self.member.give_back_probe();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end_probe();
        self.member.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A credential's headers on those of a request: beside what the client lists in `anthropic-beta`,
/// instead of everything else.
pub(crate) fn put_on(headers: &mut HeaderMap, credential: HeaderMap) {
    const BETA: HeaderName = HeaderName::from_static("anthropic-beta");
    for (name, value) in &credential {
        if name == BETA {
            headers.append(name, value.clone());
        } else {
            headers.insert(name, value.clone());
        }
    }
}

impl Unavailable {
    /// As it is told to whoever asked for a model of this provider.
    pub(crate) fn of(self, provider: &str) -> Error {
        let unavailable =
            |code, detail: String| Error::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        match self {
            Self::NotConfigured => {
                let upper = provider.to_uppercase().replace('-', "_");
                unavailable("feature_disabled", format!(
                    "no credential for the provider `{provider}`: set LOOM_SERVER_{upper}_API_KEY or run `loom-server llm credential add {provider}`"
                ))
            }
            Self::CoolingDown { shortest } => Error::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                format!("all credentials of the provider `{provider}` wait for its rate limits; try again later"),
            )
            .retry_after(shortest),
            Self::Failing { shortest } => unavailable(
                "upstream_unavailable",
                format!("the provider `{provider}` failed several times in a row and is left alone for a while; try again later"),
            )
            .retry_after(shortest),
            Self::AllDisabled => unavailable(
                "credentials_disabled",
                format!("all credentials of the provider `{provider}` are disabled; an administrator of this server has to renew them"),
            ),
            Self::NoneLeft => unavailable(
                "upstream_unavailable",
                format!("no credential of the provider `{provider}` is left to try"),
            ),
        }
    }
}
