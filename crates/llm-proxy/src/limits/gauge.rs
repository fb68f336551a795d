//! One measure of one limit, as this replica holds it: its share, and what runs against it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Datelike, Months, NaiveTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A refusal is not asked about again for so long, so that many at once ask the database once.
const EMPTY: Duration = Duration::from_millis(250);

/// Whom a limit is for.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Organisation,
    User,
    ApiKey,
    Weaver,
    Model,
    /// The budget that an API key was made with; it is no row of `llm_limits`.
    #[serde(skip)]
    #[schema(ignore)]
    KeyBudget,
    /// The budget that a weaver was made with, nor this.
    #[serde(skip)]
    #[schema(ignore)]
    WeaverBudget,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Organisation => "organisation",
            Self::User => "user",
            Self::ApiKey => "api_key",
            Self::Weaver => "weaver",
            Self::Model => "model",
            Self::KeyBudget => "key_budget",
            Self::WeaverBudget => "weaver_budget",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Organisation, Self::User, Self::ApiKey, Self::Weaver, Self::Model]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Measure {
    Requests,
    Tokens,
    Concurrent,
    /// Billionths of a dollar.
    Day,
    Month,
    /// The same, for as long as the subject is there.
    Life,
}

impl Measure {
    pub(crate) const ALL: [Self; 6] =
        [Self::Requests, Self::Tokens, Self::Concurrent, Self::Day, Self::Month, Self::Life];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Concurrent => "concurrent",
            Self::Day => "day",
            Self::Month => "month",
            Self::Life => "life",
        }
    }

    pub(crate) fn is_rate(self) -> bool {
        matches!(self, Self::Requests | Self::Tokens)
    }

    pub(crate) fn is_budget(self) -> bool {
        matches!(self, Self::Day | Self::Month | Self::Life)
    }

    /// The beginning of the window that `at` is in.
    pub(crate) fn window(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let midnight = at.date_naive().and_time(NaiveTime::MIN).and_utc();
        match self {
            Self::Day => midnight,
            Self::Month => midnight.with_day(1).unwrap_or(midnight),
            Self::Requests | Self::Tokens | Self::Concurrent | Self::Life => DateTime::UNIX_EPOCH,
        }
    }

    /// The end of a budget's window.
    pub(crate) fn window_end(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let start = self.window(at);
        match self {
            Self::Month => start.checked_add_months(Months::new(1)).unwrap_or(start),
            // It does not end: waiting is of no use for as long as somebody would.
            Self::Life => at + TimeDelta::days(1),
            _ => start + TimeDelta::days(1),
        }
    }
}

/// Which gauge, over all replicas.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) org: Uuid,
    pub(crate) kind: Kind,
    pub(crate) subject: Arc<str>,
    pub(crate) measure: Measure,
}

pub(crate) struct Gauge {
    pub(crate) key: Key,
    cap: AtomicI64,
    state: Mutex<State>,
    /// What those need who wait for more.
    line: AtomicI64,
    /// Held by the one request that asks the database for more.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

pub(crate) struct State {
    /// The window that all below is of.
    pub(crate) window: DateTime<Utc>,
    /// The window is known to be in the database, with what was spent before it was kept.
    pub(crate) opened: bool,
    /// What may be used here, what is reserved of it included. Below zero: more was used than was held.
    pub(crate) held: i64,
    pub(crate) reserved: i64,
    /// What nobody held when the database was last asked.
    pub(crate) rest: i64,
    rest_at: DateTime<Utc>,
    /// When something was last let in.
    pub(crate) used_at: DateTime<Utc>,
    /// There was no more, by both clocks: the machine's, and the one that tests move.
    empty: Option<(Instant, DateTime<Utc>)>,
    /// The share is of a larger limit than there now is.
    pub(crate) lowered: bool,
}

impl State {
    pub(crate) fn free(&self) -> i64 {
        self.held - self.reserved
    }

    /// The share's rest goes back.
    pub(crate) fn take_free(&mut self, kept: i64) -> i64 {
        let free = (self.free() - kept).max(0);
        self.held -= free;
        free
    }

    pub(crate) fn took(&mut self, granted: i64, rest: i64, now: DateTime<Utc>) {
        self.held += granted;
        self.rest = rest;
        self.rest_at = now;
        self.empty = None;
    }

    /// Is it known that so much is not to be had just now?
    pub(crate) fn is_short_of(&self, need: i64, now: DateTime<Utc>) -> bool {
        let pause = TimeDelta::from_std(EMPTY).unwrap_or_default();
        let is_fresh =
            self.empty.is_some_and(|(at, then)| at.elapsed() < EMPTY && (now - then).abs() < pause);
        is_fresh && need - self.free() > self.rest
    }

    pub(crate) fn found_empty(&mut self, now: DateTime<Utc>) {
        self.empty = Some((Instant::now(), now));
    }
}

impl Gauge {
    pub(crate) fn new(key: Key, cap: i64, now: DateTime<Utc>) -> Self {
        let state = State {
            window: key.measure.window(now),
            opened: false,
            held: 0,
            reserved: 0,
            rest: cap,
            rest_at: now,
            used_at: now,
            empty: None,
            lowered: false,
        };
        Self {
            key,
            cap: AtomicI64::new(cap),
            state: Mutex::new(state),
            line: AtomicI64::new(0),
            turn: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn cap(&self) -> i64 {
        self.cap.load(Ordering::Relaxed)
    }

    /// A limit that changes takes effect with the next request; what is held of the old one stays.
    pub(crate) fn set_cap(&self, cap: i64) {
        let before = self.cap.swap(cap, Ordering::Relaxed);
        if before != cap {
            let mut state = self.plain();
            state.empty = None;
            state.lowered |= cap < before;
        }
    }

    pub(crate) fn in_line(&self) -> i64 {
        self.line.load(Ordering::Relaxed)
    }

    pub(crate) fn plain(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state in the window of this moment.
    pub(crate) fn state(&self, now: DateTime<Utc>) -> MutexGuard<'_, State> {
        let mut state = self.plain();
        let window = self.key.measure.window(now);
        // Of a clock that stepped back the window stays.
        if window > state.window {
            *state = State {
                window,
                opened: false,
                held: 0,
                reserved: 0,
                rest: self.cap(),
                rest_at: now,
                used_at: now,
                empty: None,
                lowered: false,
            };
        }
        state
    }

    /// What a request that reserves `amount` needs of this gauge; None when it can never have it.
    pub(crate) fn need(&self, amount: i64) -> Option<i64> {
        let cap = self.cap();
        if self.key.measure == Measure::Tokens {
            // One that is larger than a minute's worth goes when a whole minute's worth is there.
            return (cap > 0).then(|| amount.min(cap));
        }
        (amount <= cap).then_some(amount)
    }

    /// Reserves, or tells what is lacking. Without a `sound` lease, nothing but rates can be used.
    pub(crate) fn reserve(&self, need: i64, sound: bool, now: DateTime<Utc>) -> Result<Entry, i64> {
        let mut state = self.state(now);
        let lacking = need - state.free();
        let sound = sound || self.key.measure.is_rate();
        // The share was of a larger limit than there now is.
        let within = self.key.measure.is_rate() || state.reserved + need <= self.cap();
        if lacking > 0 || !sound || !within {
            return Err(lacking);
        }
        state.reserved += need;
        state.used_at = now;
        Ok(Entry { window: state.window, amount: need })
    }

    /// Ends a reservation of which so much was used.
    pub(crate) fn settle(&self, entry: Entry, used: i64) {
        let mut state = self.plain();
        if state.window == entry.window {
            state.reserved -= entry.amount;
            state.held -= used;
        }
    }

    /// What is left of the whole, as far as this replica knows.
    pub(crate) fn remaining(&self, now: DateTime<Utc>) -> i64 {
        let cap = self.cap();
        let state = self.state(now);
        let mut rest = state.rest;
        if self.key.measure.is_rate() {
            let millis = (now - state.rest_at).num_milliseconds().clamp(0, 60_000);
            rest = rest.saturating_add(share_of(cap, millis, 60_000));
        }
        rest.saturating_add(state.free()).clamp(0, cap)
    }

    /// Until `amount` more than what is left is there again.
    pub(crate) fn wait(&self, need: i64, now: DateTime<Utc>) -> TimeDelta {
        let cap = self.cap();
        match self.key.measure {
            Measure::Requests | Measure::Tokens => {
                let lacking = (need - self.remaining(now)).clamp(1, cap.max(1));
                TimeDelta::milliseconds(share_of(60_000, lacking, cap.max(1)).max(1))
            }
            Measure::Concurrent => TimeDelta::seconds(1),
            Measure::Day | Measure::Month | Measure::Life => self.key.measure.window_end(now) - now,
        }
    }
}

/// `whole * part / of`, without overflow.
pub(crate) fn share_of(whole: i64, part: i64, of: i64) -> i64 {
    let share = i128::from(whole) * i128::from(part) / i128::from(of.max(1));
    i64::try_from(share).unwrap_or(i64::MAX)
}

/// A request that waits for more of these gauges, each with what it needs.
pub(crate) struct InLine(Vec<(Arc<Gauge>, i64)>);

impl InLine {
    pub(crate) fn new(needs: &[(Arc<Gauge>, i64)]) -> Self {
        for (gauge, need) in needs {
            gauge.line.fetch_add(*need, Ordering::Relaxed);
        }
        Self(needs.to_vec())
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        for (gauge, need) in &self.0 {
            gauge.line.fetch_sub(*need, Ordering::Relaxed);
        }
    }
}

/// What one request has reserved of a gauge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) window: DateTime<Utc>,
    pub(crate) amount: i64,
}
