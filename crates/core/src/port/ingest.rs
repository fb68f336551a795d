//! Where what applications send goes to: events, attachments, sessions, check-ins. Each sink resolves when
//! what it was given is committed.

use std::{any::Any, net::IpAddr, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use http::HeaderMap;

use super::{BoxFuture, DsnKey, Project};
use crate::{
    Result,
    id::{EventId, OrgId, ProjectKeyId},
};

/// What surrounds something that an application sent.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub project: Arc<Project>,
    /// None for what did not come with a DSN.
    pub key: Option<ProjectKeyId>,
    pub received_at: DateTime<Utc>,
    /// By the sender's clock.
    pub sent_at: Option<DateTime<Utc>>,
    pub client: Option<IpAddr>,
    pub user_agent: Option<String>,
    /// Name and version, as `sentry.python/2.1.0`.
    pub sdk: Option<String>,
}

impl Delivery {
    /// Smaller differences of clocks are as likely the way here.
    const DRIFT: TimeDelta = TimeDelta::hours(1);

    /// A time of the sender's clock by ours: moved by how far the two are apart, when that is more than
    /// an hour.
    pub fn by_our_clock(&self, theirs: DateTime<Utc>) -> DateTime<Utc> {
        match self.sent_at.map(|sent| self.received_at - sent) {
            Some(drift) if drift.abs() > Self::DRIFT => {
                theirs.checked_add_signed(drift).unwrap_or(self.received_at)
            }
            _ => theirs,
        }
    }
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Committed; also for a repeat that changed nothing.
    Stored,
    /// Not kept, for a reason that does not go away by sending it again.
    Rejected(String),
}

/// Takes events. Implemented by `crashes`; used by `ingest`, by `logs` (errors of our own) and `crons`.
pub trait EventSink: Send + Sync {
    /// `payload` is the JSON object of an event; `id` wins over the one in it.
    fn event<'a>(
        &'a self,
        delivery: &'a Delivery,
        id: EventId,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>>;

    /// What a user says of an event: the payload of a `user_report` item, or an event with
    /// `contexts.feedback`.
    fn feedback<'a>(
        &'a self,
        delivery: &'a Delivery,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>>;
}

/// A file that belongs to an event.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub event: EventId,
    pub name: String,
    pub content_type: Option<String>,
    /// As `event.attachment`, `event.minidump`, `event.applecrashreport`, `event.view_hierarchy`.
    pub kind: String,
    pub content: Bytes,
}

/// Takes attachments. Implemented by `crashes`, used by `ingest`. One that the event is made of, a
/// minidump, is handed over before the event.
pub trait AttachmentSink: Send + Sync {
    fn attachment<'a>(
        &'a self,
        delivery: &'a Delivery,
        attachment: Attachment,
    ) -> BoxFuture<'a, Result<Taken>>;
}

/// Takes sessions of applications. Implemented by `sessions`; used by `ingest` and `crashes`.
pub trait SessionSink: Send + Sync {
    /// The payload of a `session` item.
    fn session<'a>(
        &'a self,
        delivery: &'a Delivery,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>>;

    /// The payload of a `sessions` item: counts by the minute.
    fn aggregates<'a>(
        &'a self,
        delivery: &'a Delivery,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>>;

    /// An event says that its session has crashed.
    fn crashed<'a>(
        &'a self,
        delivery: &'a Delivery,
        session: &'a str,
        release: &'a str,
        environment: &'a str,
        at: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<Taken>>;
}

/// A run of one of our own jobs.
#[derive(Clone, Debug)]
pub struct OwnRun {
    pub job: &'static str,
    pub name: &'static str,
    /// In seconds; none when it goes by a cron expression.
    pub every_secs: Option<u64>,
    pub cron: Option<(String, String)>,
    pub run: crate::id::RunId,
    /// None while it runs.
    pub succeeded: Option<bool>,
    pub at: DateTime<Utc>,
    pub duration_ms: Option<i64>,
}

/// Takes check-ins of jobs. Implemented by `crons`; used by `ingest` and `jobs`.
pub trait CheckInSink: Send + Sync {
    /// The payload of a `check_in` item.
    fn check_in<'a>(
        &'a self,
        delivery: &'a Delivery,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>>;

    /// A run of our own scheduler began or ended. Never waits for the database: what there is no room
    /// for is lost, and counted.
    fn own_run(&self, run: OwnRun);
}

/// What is reported over our own API, as limits tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    Event,
    Session,
}

/// A body that was read whole, with its share of the memory for bodies: given back when this is dropped.
pub struct HeldBody {
    pub bytes: Bytes,
    pub share: Arc<dyn Any + Send + Sync>,
}

/// What holds for all that applications send, whichever way it comes in: one count, one memory. Implemented
/// by `ingest`, used by `crashes` and `sessions` for what comes over our own API.
pub trait IntakeGate: Send + Sync {
    /// Counts one towards the limits of the key, when it came with one, and of the organisation.
    ///
    /// # Errors
    /// 429 `rate_limited`, with the time until it is over.
    fn count(
        &self,
        org: OrgId,
        key: Option<&DsnKey>,
        what: Reported,
        now: DateTime<Utc>,
    ) -> Result<()>;

    /// Reads a body of at most `limit` bytes when decoded.
    ///
    /// # Errors
    /// 400 that did not arrive whole, 408 for one too slow, 413, 415, and 503 when there is no memory for it.
    fn read<'a>(
        &'a self,
        org: OrgId,
        headers: &'a HeaderMap,
        body: Body,
        limit: usize,
    ) -> BoxFuture<'a, Result<HeldBody>>;
}
