//! A provider's stream as events: whatever it does, one `Finished` or one `Failed` ends it. And the
//! account of a reply that is told in another form than it came in.

use std::{collections::VecDeque, time::Duration};

use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::BodyExt;
use loom_core::id::{CredentialId, LlmRequestId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    dialect::Operation,
    drain,
    ledger::{Meter, Outcome},
    observe::{Observer, Seen},
    pool::{Lease, Verdict},
    provider::Provider,
    trailer,
    translate::{
        reply::{Event, Failure},
        stream::Decoder,
    },
    usage::Usage,
};

/// A reply longer than this is none.
const MAX_REPLY: usize = 256 << 20;

/// The account of one reply, with what it takes to tell its cost. Dropped before its end, the client
/// has left; what was seen until then counts.
pub(crate) struct Account {
    meter: Option<Meter>,
    observer: Observer,
    id: LlmRequestId,
    asked: String,
    cost: Option<i64>,
}

impl Account {
    pub(crate) fn new(meter: Meter, asked: String, mut observer: Observer) -> Self {
        observer.seen.gaps = observer.streams().then(|| meter.gaps());
        Self { id: meter.id(), meter: Some(meter), observer, asked, cost: None }
    }

    /// [`Meter::admit`].
    pub(crate) async fn admit(&mut self, limits: &crate::limits::Limits) -> loom_core::Result<()> {
        match &mut self.meter {
            Some(meter) => meter.admit(limits).await,
            None => Ok(()),
        }
    }

    /// [`Meter::tell`].
    pub(crate) fn tell(&self, headers: &mut http::HeaderMap) {
        if let Some(meter) = &self.meter {
            meter.tell(headers);
        }
    }

    /// Another reply begins: what was seen of one that came to nothing does not count.
    pub(crate) fn watch(&mut self, observer: Observer) {
        self.observer = observer;
        if self.observer.streams() {
            self.observer.seen.gaps = self.meter.as_ref().map(Meter::gaps);
        }
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.observer.seen
    }

    /// [`Meter::served_by`].
    pub(crate) fn served_by(
        &mut self,
        provider: &Provider,
        operation: Operation,
        model: Option<&str>,
        credential: Option<CredentialId>,
    ) {
        if let Some(meter) = &mut self.meter {
            meter.served_by(provider, operation, model);
            meter.credential(credential);
        }
    }

    /// [`Meter::answered`].
    pub(crate) fn answered(&mut self, status: StatusCode, upstream_request_id: Option<String>) {
        if let Some(meter) = &mut self.meter {
            meter.answered(status, upstream_request_id);
        }
    }

    pub(crate) fn see(&mut self, data: &Bytes) {
        self.observer.feed(data);
    }

    pub(crate) fn id(&self) -> LlmRequestId {
        self.id
    }

    /// The model that was asked for.
    pub(crate) fn asked(&self) -> &str {
        &self.asked
    }

    pub(crate) fn usage(&self) -> &Usage {
        &self.observer.seen.usage
    }

    /// The provider has said all; what it costs, if that is known.
    pub(crate) fn finish(&mut self) -> Option<i64> {
        self.observer.finish();
        let seen = &self.observer.seen;
        self.cost = self.meter.as_mut().and_then(|meter| meter.saw(seen));
        self.cost
    }

    /// Says what a reply costs that is told whole.
    pub(crate) fn tell_cost(&self, headers: &mut http::HeaderMap) {
        if let Some(cost) = self.cost.and_then(trailer::usd) {
            headers.insert(trailer::COST, cost);
        }
    }

    /// Its client has left while the reply was still coming.
    pub(crate) fn leave(&mut self, upstream: reqwest::Body, lease: Option<Lease>) {
        let seen = &self.observer.seen;
        if !seen.complete
            && seen.error.is_none()
            && let Some(meter) = self.meter.take()
        {
            let observer = std::mem::replace(&mut self.observer, Observer::json(Operation::Chat));
            drain::leave(upstream, observer, meter, lease);
        }
    }

    /// So much was told to the client.
    pub(crate) fn passed(&mut self, bytes: usize) {
        if let Some(meter) = &mut self.meter {
            meter.passed(bytes);
        }
    }

    pub(crate) fn settle(&mut self, outcome: Outcome, code: Option<&str>) {
        if let Some(mut meter) = self.meter.take() {
            meter.saw(&self.observer.seen);
            meter.end(outcome, code);
        }
    }

    /// Ends the account of a reply that came to nothing; the client gets this error instead.
    pub(crate) fn fail(&mut self, error: &loom_core::Error) {
        if let Some(mut meter) = self.meter.take() {
            meter.saw(&self.observer.seen);
            meter.fail(error.status(), error.code());
        }
    }
}

impl Drop for Account {
    /// A reply that had said it was complete is one, and one that had told of an error has failed: many
    /// clients leave at that word.
    fn drop(&mut self) {
        let seen = &self.observer.seen;
        let outcome = if seen.error.is_some() {
            Outcome::Failed
        } else if seen.complete {
            Outcome::Succeeded
        } else {
            Outcome::Cancelled
        };
        self.settle(outcome, None);
    }
}

/// A running stream.
pub(crate) struct Live {
    /// None: at its end. Dropping it ends the request at the provider.
    pub(crate) upstream: Option<reqwest::Body>,
    pub(crate) decoder: Decoder,
    pub(crate) account: Account,
    /// What has come of it already, and was looked at.
    pub(crate) held: VecDeque<Bytes>,
    /// Counts as in flight to the end of the reply.
    pub(crate) lease: Option<Lease>,
    pub(crate) idle: Duration,
    /// Since when the next piece is waited for. While the client takes nothing, nothing is.
    pub(crate) since: Option<Instant>,
    /// Of the whole request.
    pub(crate) deadline: Instant,
    pub(crate) stop: CancellationToken,
    pub(crate) waiting: VecDeque<Event>,
    pub(crate) received: usize,
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            self.account.leave(upstream, self.lease.take());
        }
    }
}

impl Live {
    /// The next event, as soon as there is one. None behind the last.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.at_hand() {
                return Some(event);
            }
            if let Some(data) = self.held.pop_front() {
                self.received = self.received.saturating_add(data.len());
                self.waiting.extend(self.decoder.feed(&data));
                continue;
            }
            let upstream = self.upstream.as_mut()?;
            let since = *self.since.get_or_insert_with(Instant::now);
            let due = (since + self.idle).min(self.deadline);
            let more = tokio::select! {
                biased;
                () = self.stop.cancelled() => Err(Failure {
                    code: "unavailable",
                    message: "this server is going down".to_owned(),
                }),
                frame = tokio::time::timeout_at(due, upstream.frame()) => match frame {
                    Ok(Some(Ok(frame))) => Ok(Some(frame)),
                    Ok(None) => Ok(None),
                    Ok(Some(Err(error))) => {
                        tracing::warn!(%error, "a provider broke off in the middle of its reply");
                        Err(Failure::upstream("the provider broke off in the middle of its reply"))
                    }
                    Err(_) if due == self.deadline => Err(Failure {
                        code: "deadline_exceeded",
                        message: "the reply was not complete within the time for a request".to_owned(),
                    }),
                    Err(_) => Err(Failure {
                        code: "upstream_timeout",
                        message: "the provider fell silent in the middle of its reply".to_owned(),
                    }),
                },
            };
            self.since = None;
            match more {
                Ok(Some(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.received = self.received.saturating_add(data.len());
                    if self.received > MAX_REPLY {
                        self.waiting.push_back(Event::Failed(Failure::too_long()));
                        continue;
                    }
                    self.account.see(&data);
                    self.waiting.extend(self.decoder.feed(&data));
                }
                Ok(None) => {
                    self.waiting.extend(self.decoder.finish());
                    self.upstream = None;
                }
                Err(failure) => {
                    if let Some(lease) = self.lease.take()
                        && matches!(failure.code, "upstream_error" | "upstream_timeout")
                    {
                        lease.report(Verdict::Failing { reason: failure.message.clone() });
                    }
                    self.waiting.push_back(Event::Failed(failure));
                    self.upstream = None;
                }
            }
        }
    }

    /// The next event, if it is there already.
    pub(crate) fn at_hand(&mut self) -> Option<Event> {
        let event = self.waiting.pop_front()?;
        if matches!(event, Event::Finished { .. } | Event::Failed(_)) {
            self.upstream = None;
            self.waiting.clear();
        }
        Some(event)
    }
}
