//! The search language of issues: `is:unresolved level:error release:1.2 "free text"`.

mod lex;
mod parse;
mod sql;

use chrono::{DateTime, Utc};
use loom_core::{Error, id::UserId};

use super::model::{Priority, Status};

use lex::Span;
pub(crate) use parse::parse;
pub(crate) use sql::{Within, push};

/// More than this in one query is refused.
pub(crate) const MAX_BYTES: usize = 2000;
pub(crate) const MAX_TERMS: usize = 20;

/// What an issue must be: all terms hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Query {
    pub(crate) terms: Vec<Term>,
}

impl Query {
    /// May have to look at all issues: patterns, and tags that are not to be there.
    pub(crate) fn is_broad(&self) -> bool {
        self.terms.iter().any(|term| match &term.what {
            What::Text(_, matching) => matches!(matching, Match::Like(_)),
            What::Tag(_, matching) => term.negated || matches!(matching, Match::Like(_)),
            What::Has(_) => term.negated,
            _ => false,
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Term {
    pub(crate) negated: bool,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    /// One of these.
    Status(Vec<Status>),
    Assigned(Assigned),
    Priority(Vec<Priority>),
    /// A text of the issue itself.
    Text(Column, Match),
    Time(TimeColumn, Comparison, DateTime<Utc>),
    /// From the first, before the second.
    Between(TimeColumn, DateTime<Utc>, DateTime<Utc>),
    Count(CountColumn, Comparison, i64),
    /// Some event has this tag.
    Has(String),
    Tag(String, Match),
    /// A word, or the beginning of one.
    Word(String),
    Phrase(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Assigned {
    To(UserId),
    /// To the user with this number in the list of addresses; see [`Emails`].
    Email(usize),
    Anybody,
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Level,
    Title,
    Culprit,
    Kind,
    Value,
    Platform,
    FirstRelease,
    LastRelease,
    RegressedIn,
    ResolvedIn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeColumn {
    FirstSeen,
    LastSeen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountColumn {
    Events,
    Users,
    Regressed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

impl Comparison {
    pub(crate) fn as_sql(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Equal => "=",
            Self::GreaterOrEqual => ">=",
            Self::Greater => ">",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Match {
    /// Exactly one of these.
    Any(Vec<String>),
    /// A pattern of LIKE, in any case of letters.
    Like(String),
}

/// Addresses of users that a query names: they are looked up before it is run.
pub(crate) type Emails = Vec<String>;

/// Who asks, and when: what `me` and `-24h` stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) me: Option<UserId>,
    pub(crate) now: DateTime<Utc>,
}

/// What is wrong with a query, and where: characters before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) position: usize,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(position: usize, message: impl Into<String>) -> Self {
        Self { position, message: message.into() }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let Fault { position, message } = fault;
        Self::invalid("query", format!("at character {position}: {message}"))
            .with("position", position)
    }
}
