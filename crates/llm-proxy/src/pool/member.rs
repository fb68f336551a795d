//! One credential of a provider's, and in what state it is.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64},
    },
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use chrono::{DateTime, Utc};
use loom_common_secret::SecretString;
use loom_core::id::CredentialId;

use crate::dialect::Dialect;

use super::{config::Config, verdict::Verdict};

/// Which credential it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The provider wants none.
    Keyless,
    /// From the environment: it can be neither changed nor deleted here.
    Environment,
    Stored(CredentialId),
}

/// A credential as it is sent: ready headers, and the secret in them.
#[derive(Clone, Default)]
pub(crate) struct Ready {
    pub(crate) headers: HeaderMap,
    pub(crate) secret: Option<SecretString>,
}

impl Ready {
    /// An API key, where its provider wants it; None: it does not fit into a header.
    pub(crate) fn key(dialect: Dialect, key: &SecretString) -> Option<Self> {
        match dialect {
            Dialect::Anthropic => {
                Self::with(HeaderName::from_static("x-api-key"), key.expose(), key)
            }
            Dialect::OpenAi => Self::bearer(key),
        }
    }

    pub(crate) fn bearer(token: &SecretString) -> Option<Self> {
        let value = format!("Bearer {}", token.expose());
        Self::with(header::AUTHORIZATION, &value, token)
    }

    fn with(name: HeaderName, value: &str, secret: &SecretString) -> Option<Self> {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        let headers = HeaderMap::from_iter([(name, value)]);
        Some(Self { headers, secret: Some(secret.clone()) })
    }
}

pub(crate) struct Member {
    pub(crate) who: Who,
    pub(crate) name: String,
    pub(crate) ready: Ready,
    pub(crate) in_flight: AtomicU32,
    /// The pool's turn in which it was last chosen.
    pub(crate) last_used: AtomicU64,
    config: Config,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) disabled: Option<String>,
    pub(crate) cooling_until: Option<DateTime<Utc>>,
    pub(crate) last_error: Option<(String, DateTime<Utc>)>,
    /// In a row.
    failures: u32,
    open_until: Option<DateTime<Utc>>,
    /// The circuit is half open, and one request is finding out.
    probing: bool,
}

/// May it be used?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Available,
    Cooling(Duration),
    /// Its circuit is open.
    Open(Duration),
    Disabled,
}

impl State {
    pub(crate) fn standing(&self, now: DateTime<Utc>) -> Standing {
        let left = |until: Option<DateTime<Utc>>| {
            until.and_then(|until| (until - now).to_std().ok()).filter(|left| !left.is_zero())
        };
        if self.disabled.is_some() {
            Standing::Disabled
        } else if let Some(left) = left(self.cooling_until) {
            Standing::Cooling(left)
        } else if let Some(left) = left(self.open_until) {
            Standing::Open(left)
        } else if self.probing {
            Standing::Open(Duration::from_secs(1))
        } else {
            Standing::Available
        }
    }
}

impl Member {
    pub(crate) fn new(who: Who, name: String, ready: Ready, config: Config) -> Self {
        Self {
            who,
            name,
            ready,
            in_flight: AtomicU32::default(),
            last_used: AtomicU64::default(),
            config,
            state: Mutex::default(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is it available? One whose circuit was open takes a single request to find out; None: not,
    /// else whether it is that request.
    pub(crate) fn take(&self, now: DateTime<Utc>) -> Option<bool> {
        let mut state = self.state();
        if state.standing(now) != Standing::Available {
            return None;
        }
        let probe = state.open_until.is_some();
        state.probing = probe;
        Some(probe)
    }

    pub(crate) fn give_back_probe(&self) {
        self.state().probing = false;
    }

    pub(crate) fn note(&self, verdict: Verdict, now: DateTime<Utc>) {
        let mut state = self.state();
        let sound = |state: &mut State| {
            state.failures = 0;
            state.open_until = None;
        };
        match verdict {
            Verdict::Sound => sound(&mut state),
            Verdict::Neutral => {}
            Verdict::RateLimited { retry_after, out_of_quota } => {
                sound(&mut state);
                let (wait, what) = if out_of_quota {
                    (self.config.quota_cooldown, "its quota is used up")
                } else {
                    (retry_after.unwrap_or(self.config.cooldown), "rate limited")
                };
                let until = now + wait;
                state.cooling_until = state.cooling_until.max(Some(until));
                state.last_error = Some((what.to_owned(), now));
            }
            Verdict::Refused { reason, .. } if self.who != Who::Keyless => {
                state.disabled = Some(reason.clone());
                state.last_error = Some((reason, now));
            }
            Verdict::Refused { .. } => sound(&mut state),
            Verdict::Failing { reason } => {
                state.last_error = Some((reason, now));
                state.failures = state.failures.saturating_add(1);
                if state.failures >= self.config.circuit_failures {
                    state.open_until = Some(now + self.config.circuit_open);
                }
            }
        }
    }
}
