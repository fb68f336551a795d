//! A credential in use by one request.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, StatusCode};
use loom_common_secret::SecretString;
use loom_core::{Clock, Error, Result, id::CredentialId};

use super::{
    member::{Auth, Member, Token, Who},
    verdict::Verdict,
};

/// Names what a request has tried. One that got a new token may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CredentialKey {
    pub(crate) who: Who,
    pub(crate) token: i64,
}

/// Counts as in flight until it is dropped.
pub(crate) struct Lease {
    member: Arc<Member>,
    key: CredentialKey,
    probe: AtomicBool,
    /// What was sent.
    token: OnceLock<Arc<Token>>,
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
    pub(crate) fn new(member: Arc<Member>, probe: bool, clock: Clock) -> Self {
        member.in_flight.fetch_add(1, Ordering::Relaxed);
        let key = CredentialKey { who: member.who, token: member.next_token() };
        Self { member, key, probe: AtomicBool::new(probe), token: OnceLock::new(), clock }
    }

    pub(crate) fn key(&self) -> CredentialKey {
        self.key
    }

    /// None for what is not stored.
    pub(crate) fn id(&self) -> Option<CredentialId> {
        self.member.id()
    }

    pub(crate) fn name(&self) -> &str {
        &self.member.name
    }

    /// It is the caller's own, and no business of ours.
    pub(crate) fn is_callers(&self) -> bool {
        self.member.who == Who::Caller
    }

    /// What is to be sent, see [`put_on`]; a token that has ended is renewed first.
    ///
    /// # Errors
    /// 502 `upstream_error` or 503 `credentials_disabled` when a token is needed and cannot be had.
    pub(crate) async fn headers(&self) -> Result<HeaderMap> {
        let tokens = match &self.member.auth {
            Auth::Fixed(ready) => return Ok(ready.headers.clone()),
            Auth::Token(tokens) => tokens,
        };
        let token = match tokens.usable(tokens.margin, self.clock.now()) {
            Some(token) => token,
            None => self.renewed(tokens.margin).await?,
        };
        Ok(self.token.get_or_init(|| token).ready.headers.clone())
    }

    async fn renewed(&self, margin: Duration) -> Result<Arc<Token>> {
        let keeper = self.member.keeper.as_ref();
        let keeper = keeper.ok_or_else(|| Error::internal("nobody renews this token"))?;
        let renewed = keeper.renew(&self.member, margin).await;
        if let Err(error) = &renewed {
            self.report(Verdict::Failing { reason: error.detail().to_owned() });
        }
        renewed
    }

    /// What must not be seen in an answer.
    pub(crate) fn secret_for_redaction(&self) -> Option<SecretString> {
        match &self.member.auth {
            Auth::Fixed(ready) => ready.secret.clone(),
            Auth::Token(_) => self.token.get().and_then(|token| token.ready.secret.clone()),
        }
    }

    /// How the request went.
    pub(crate) fn report(&self, verdict: Verdict) {
        if self.is_callers() {
            return;
        }
        let generation = self.token.get().map_or(self.key.token, |token| token.generation);
        let change = self.member.note(verdict, generation, self.clock.now());
        self.end_probe();
        if let (Some(change), Some(keeper)) = (change, &self.member.keeper) {
            keeper.tell(&self.member, change);
        }
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
    for (name, value) in credential {
        // Each of its headers is there once.
        let Some(name) = name else { continue };
        if name == BETA {
            headers.append(name, value);
        } else {
            headers.insert(name, value);
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
