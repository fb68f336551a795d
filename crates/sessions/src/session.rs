//! A session as it is kept, and what an update makes of it: an operation in which neither order nor
//! repetition matters.

use std::sync::Arc;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use loom_core::id::{OrgId, ProjectId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::{Builder, Uuid};

use crate::{durations, store::names::Name};

/// Sessions are added up by so much.
pub(crate) const SLOT: TimeDelta = TimeDelta::minutes(30);
/// An update of one that began longer ago is refused.
pub(crate) const UPDATABLE: TimeDelta = TimeDelta::days(5);

/// How bad it was, from good to bad.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = AppSessionClass)]
pub(crate) enum Class {
    #[default]
    Healthy,
    Errored,
    Unhandled,
    Abnormal,
    Crashed,
}

impl Class {
    pub(crate) const ALL: [Self; 5] =
        [Self::Healthy, Self::Errored, Self::Unhandled, Self::Abnormal, Self::Crashed];

    pub(crate) fn of_row(class: i16) -> Self {
        usize::try_from(class).ok().and_then(|at| Self::ALL.get(at)).copied().unwrap_or_default()
    }

    pub(crate) fn row(self) -> i16 {
        self as i16
    }
}

/// Which session of which project.
pub(crate) type Key = (ProjectId, Uuid);

/// One session, or many that were counted where they ran; also what an update says of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Session {
    pub(crate) org: OrgId,
    pub(crate) project: ProjectId,
    pub(crate) sid: Uuid,
    pub(crate) started: DateTime<Utc>,
    /// When it began was not said.
    pub(crate) guessed: bool,
    pub(crate) release: Arc<str>,
    pub(crate) environment: Arc<str>,
    pub(crate) class: Class,
    pub(crate) ended: bool,
    pub(crate) errors: i32,
    pub(crate) duration_ms: Option<i64>,
    pub(crate) user: Option<i64>,
    pub(crate) count: i32,
    pub(crate) weight: f64,
    pub(crate) updated_at: DateTime<Utc>,
}

impl Session {
    pub(crate) fn key(&self) -> Key {
        (self.project, self.sid)
    }

    pub(crate) fn name(&self) -> Name {
        (self.org, self.project, Arc::clone(&self.release), Arc::clone(&self.environment))
    }

    pub(crate) fn slot(&self) -> DateTime<Utc> {
        slot(self.started)
    }

    pub(crate) fn duration_bucket(&self) -> Option<i16> {
        self.duration_ms.map(durations::bucket)
    }

    /// Takes in what another update of the same session says. True: it changes something.
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        let before = self.clone();
        let from_other = match (self.guessed, other.guessed) {
            (true, false) => true,
            (false, true) => false,
            // A session has one beginning and one release; where updates disagree, any fixed choice
            // makes the order of no matter.
            (true, true) | (false, false) => {
                (other.started, &other.release, &other.environment)
                    < (self.started, &self.release, &self.environment)
            }
        };
        if from_other {
            self.started = other.started;
            self.guessed = other.guessed;
            self.release = Arc::clone(&other.release);
            self.environment = Arc::clone(&other.environment);
        }
        self.class = self.class.max(other.class);
        self.ended |= other.ended;
        self.errors = self.errors.max(other.errors);
        self.duration_ms = self.duration_ms.max(other.duration_ms);
        self.user = self.user.max(other.user);
        self.weight = self.weight.max(other.weight);
        let changed = *self != before;
        if changed {
            self.updated_at = self.updated_at.max(other.updated_at);
        }
        changed
    }
}

/// The half hour of a time.
pub(crate) fn slot(at: DateTime<Utc>) -> DateTime<Utc> {
    at.duration_trunc(SLOT).unwrap_or(at)
}

/// An id for what has none of its own: the same for the same parts.
pub(crate) fn id_of(parts: &[&[u8]]) -> Uuid {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let digest: [u8; 32] = digest.finalize().into();
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(digest) {
        *to = from;
    }
    Builder::from_custom_bytes(bytes).into_uuid()
}

/// Whether a session is among the share that is kept; the same answer for the same session everywhere.
pub(crate) fn is_sampled(sid: Uuid, rate: f64) -> bool {
    let place = id_of(&[b"sample", sid.as_bytes()]).as_u128() >> 76;
    // 52 bits: exact in a double.
    (place as f64) < rate * (1_u64 << 52) as f64
}
