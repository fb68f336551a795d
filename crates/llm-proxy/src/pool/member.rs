//! One credential of a provider's, and in what state it is.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use chrono::{DateTime, Utc};
use loom_common_secret::SecretString;
use loom_core::id::CredentialId;

use super::{config::Config, grant::Grant, keeper::Keeper, verdict::Verdict};
use crate::dialect::Dialect;

/// Which credential it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The provider wants none.
    Keyless,
    /// From the environment: it can be neither changed nor deleted here.
    Environment,
    Stored(CredentialId),
    /// The caller's own, of this one request.
    Caller,
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
            Dialect::OpenAi | Dialect::Gemini => Self::bearer(key),
        }
    }

    pub(crate) fn bearer(token: &SecretString) -> Option<Self> {
        Self::with(header::AUTHORIZATION, &format!("Bearer {}", token.expose()), token)
    }

    fn with(name: HeaderName, value: &str, secret: &SecretString) -> Option<Self> {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        let headers = HeaderMap::from_iter([(name, value)]);
        Some(Self { headers, secret: Some(secret.clone()) })
    }
}

/// A token in force.
pub(crate) struct Token {
    pub(crate) ready: Ready,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) generation: i64,
}

/// The tokens of a credential that is not itself sent.
pub(crate) struct Tokens {
    pub(crate) current: ArcSwapOption<Token>,
    /// The generation that the provider refused, and the one that was asked for because of it.
    pub(crate) refused: AtomicI64,
    pub(crate) forced: AtomicI64,
    /// One renewal at a time.
    pub(crate) flight: tokio::sync::Mutex<()>,
    /// So long before its end a token is not used any more.
    pub(crate) margin: Duration,
    /// The API has to be told that this is an OAuth token.
    pub(crate) is_announced: bool,
    /// What is not stored asks for itself.
    pub(crate) own: Option<Grant>,
}

impl Tokens {
    pub(crate) fn new(kind: &str, dialect: Dialect, own: Option<Grant>) -> Self {
        let is_google = kind == "google_service_account";
        Self {
            current: ArcSwapOption::default(),
            refused: AtomicI64::new(-1),
            forced: AtomicI64::new(-1),
            flight: tokio::sync::Mutex::default(),
            margin: Duration::from_secs(if is_google { 300 } else { 30 }),
            is_announced: dialect == Dialect::Anthropic && !is_google,
            own,
        }
    }

    /// The token, if it lasts for `margin` and was not refused.
    pub(crate) fn usable(&self, margin: Duration, now: DateTime<Utc>) -> Option<Arc<Token>> {
        let token = self.current.load_full()?;
        let lasts = token.expires_at > now + margin;
        (lasts && token.generation != self.refused.load(Ordering::Relaxed)).then_some(token)
    }

    pub(crate) fn generation(&self) -> i64 {
        self.current.load().as_ref().map_or(0, |token| token.generation)
    }

    /// None: it does not fit into a header.
    pub(crate) fn install(
        &self,
        token: &SecretString,
        expires_at: DateTime<Utc>,
        generation: i64,
    ) -> Option<Arc<Token>> {
        loom_redact::learn([token.clone()]);
        let mut ready = Ready::bearer(token)?;
        if self.is_announced {
            ready.headers.insert("anthropic-beta", HeaderValue::from_static("oauth-2025-04-20"));
        }
        if self.refused.load(Ordering::Relaxed) >= 0 {
            self.forced.store(generation, Ordering::Relaxed);
            self.refused.store(-1, Ordering::Relaxed);
        }
        let token = Arc::new(Token { ready, expires_at, generation });
        let before = self.current.swap(Some(Arc::clone(&token)));
        if let Some(secret) = before.and_then(|before| before.ready.secret.clone())
            && token.ready.secret.as_ref() != Some(&secret)
        {
            loom_redact::forget(&[secret]);
        }
        Some(token)
    }
}

/// What is sent.
pub(crate) enum Auth {
    Fixed(Ready),
    Token(Box<Tokens>),
}

pub(crate) struct Member {
    pub(crate) who: Who,
    pub(crate) name: String,
    /// Of the row that it was made from.
    pub(crate) version: i64,
    pub(crate) auth: Auth,
    pub(crate) in_flight: AtomicU32,
    /// The pool's turn in which it was last chosen.
    pub(crate) last_used: AtomicU64,
    /// Changes of its state that are not yet written.
    pub(crate) unwritten: AtomicU32,
    pub(crate) keeper: Option<Arc<Keeper>>,
    config: Config,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) disabled: Option<String>,
    pub(crate) by_admin: bool,
    /// What is disabled without being stored is tried again then.
    retry_at: Option<DateTime<Utc>>,
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

impl Standing {
    pub(crate) const NAMES: [&str; 4] = ["available", "cooling_down", "circuit_open", "disabled"];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Cooling(_) => "cooling_down",
            Self::Open(_) => "circuit_open",
            Self::Disabled => "disabled",
        }
    }
}

impl State {
    pub(crate) fn standing(&self, now: DateTime<Utc>) -> Standing {
        let left = |until: Option<DateTime<Utc>>| {
            until.and_then(|until| (until - now).to_std().ok()).filter(|left| !left.is_zero())
        };
        let is_due = self.retry_at.is_some_and(|at| at <= now) && !self.probing;
        if self.disabled.is_some() && !is_due {
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

    fn recover(&mut self) {
        self.failures = 0;
        self.open_until = None;
    }
}

/// A change of state that all replicas have to know.
pub(crate) enum Change {
    Cooling { until: DateTime<Utc>, reason: String },
    Refused { generation: i64, reason: String },
}

impl Member {
    pub(crate) fn new(
        who: Who,
        name: String,
        version: i64,
        auth: Auth,
        config: Config,
        keeper: Option<Arc<Keeper>>,
    ) -> Self {
        Self {
            who,
            name,
            version,
            auth,
            in_flight: AtomicU32::default(),
            last_used: AtomicU64::default(),
            unwritten: AtomicU32::default(),
            keeper,
            config,
            state: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> Option<CredentialId> {
        match self.who {
            Who::Stored(id) => Some(id),
            Who::Keyless | Who::Environment | Who::Caller => None,
        }
    }

    pub(crate) fn tokens(&self) -> Option<&Tokens> {
        match &self.auth {
            Auth::Token(tokens) => Some(tokens),
            Auth::Fixed(_) => None,
        }
    }

    /// The generation of the token that it would be used with.
    pub(crate) fn next_token(&self) -> i64 {
        self.tokens().map_or(0, |tokens| {
            let generation = tokens.generation();
            generation + i64::from(generation == tokens.refused.load(Ordering::Relaxed))
        })
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
        let probe = state.open_until.is_some() || state.disabled.is_some();
        state.probing = probe;
        Some(probe)
    }

    pub(crate) fn give_back_probe(&self) {
        self.state().probing = false;
    }

    /// How a request went, with the token of this generation. Gives what others have to know.
    pub(crate) fn note(
        &self,
        verdict: Verdict,
        generation: i64,
        now: DateTime<Utc>,
    ) -> Option<Change> {
        let mut state = self.state();
        match verdict {
            Verdict::Neutral => None,
            Verdict::Sound => {
                state.recover();
                if state.retry_at.take().is_some() {
                    state.disabled = None;
                }
                if let Some(tokens) = self.tokens() {
                    // It was the token, and not the credential.
                    let _ = tokens.forced.compare_exchange(
                        generation,
                        -1,
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    );
                }
                None
            }
            Verdict::RateLimited { retry_after, out_of_quota } => {
                state.recover();
                let (wait, reason) = if out_of_quota {
                    (self.config.quota_cooldown, "429: its quota is used up")
                } else {
                    (retry_after.unwrap_or(self.config.cooldown), "429: rate limited")
                };
                let until = now + wait;
                state.last_error = Some((reason.to_owned(), now));
                if state.cooling_until.is_some_and(|known| known >= until) {
                    return None;
                }
                state.cooling_until = Some(until);
                Some(Change::Cooling { until, reason: reason.to_owned() })
            }
            Verdict::Refused { .. } if self.who == Who::Keyless => {
                state.recover();
                None
            }
            Verdict::Refused { reason, .. } => {
                state.last_error = Some((reason.clone(), now));
                if let Some(tokens) = self.tokens()
                    && tokens.forced.load(Ordering::Relaxed) != generation
                {
                    // A token may be revoked before its end: a new one first. If there is one
                    // already, the refusal is old.
                    if tokens.generation() == generation {
                        tokens.refused.store(generation, Ordering::Relaxed);
                    }
                    return None;
                }
                if self.id().is_none() {
                    state.retry_at = Some(now + self.config.refresh_interval);
                }
                let is_new = state.disabled.replace(reason.clone()).is_none();
                is_new.then_some(Change::Refused { generation, reason })
            }
            Verdict::Failing { reason } => {
                state.last_error = Some((reason, now));
                state.failures = state.failures.saturating_add(1);
                if state.failures >= self.config.circuit_failures {
                    state.open_until = Some(now + self.config.circuit_open);
                }
                None
            }
        }
    }

    /// Its row says so; nobody here waits to hear of it.
    pub(crate) fn disable(&self, reason: &str) {
        self.state().disabled.get_or_insert_with(|| reason.to_owned());
    }

    /// What the row says; of what is known here and not yet written, the row knows less.
    pub(crate) fn take_over(
        &self,
        disabled: Option<String>,
        by_admin: bool,
        cooling_until: Option<DateTime<Utc>>,
        last_error: Option<(String, DateTime<Utc>)>,
    ) {
        if self.unwritten.load(Ordering::Acquire) > 0 {
            return;
        }
        let mut state = self.state();
        state.disabled = disabled;
        state.by_admin = by_admin;
        // It only grows until the row has another version, which is another member; a row that was read
        // just before the last change was written says less.
        state.cooling_until = state.cooling_until.max(cooling_until);
        let known = state.last_error.as_ref().map(|(_, at)| *at);
        if last_error.as_ref().map(|(_, at)| *at) > known {
            state.last_error = last_error;
        }
    }
}
