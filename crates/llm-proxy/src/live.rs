//! A provider's stream as events: whatever it does, one `Finished` or one `Failed` ends it. And the
//! account of a reply that is told in another form than it came in.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt;
use loom_core::id::LlmRequestId;
use tokio_util::sync::CancellationToken;

use crate::{
    dialect::Operation,
    drain,
    ledger::{Meter, Outcome},
    observe::Observer,
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

    /// [`Meter::tell`].
    pub(crate) fn tell(&self, headers: &mut http::HeaderMap) {
        if let Some(meter) = &self.meter {
            meter.tell(headers);
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
    fn leave(&mut self, upstream: reqwest::Body) {
        let seen = &self.observer.seen;
        if !seen.complete
            && seen.error.is_none()
            && let Some(meter) = self.meter.take()
        {
            let observer = std::mem::replace(&mut self.observer, Observer::json(Operation::Chat));
            drain::leave(upstream, observer, meter, ());
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
    fn drop(&mut self) {
        let complete = self.observer.seen.complete;
        let outcome = if complete { Outcome::Succeeded } else { Outcome::Cancelled };
        self.settle(outcome, None);
    }
}

/// A running stream.
pub(crate) struct Live {
    /// None: at its end. Dropping it ends the request at the provider.
    pub(crate) upstream: Option<reqwest::Body>,
    pub(crate) decoder: Decoder,
    pub(crate) account: Account,
    pub(crate) idle: Duration,
    pub(crate) stop: CancellationToken,
    pub(crate) waiting: VecDeque<Event>,
    pub(crate) received: usize,
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            self.account.leave(upstream);
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
            let upstream = self.upstream.as_mut()?;
            let more = tokio::select! {
                biased;
                () = self.stop.cancelled() => Err(Failure {
                    code: "unavailable",
                    message: "this server is going down".to_owned(),
                }),
                frame = tokio::time::timeout(self.idle, upstream.frame()) => match frame {
                    Ok(Some(Ok(frame))) => Ok(Some(frame)),
                    Ok(None) => Ok(None),
                    Ok(Some(Err(error))) => {
                        tracing::warn!(%error, "a provider broke off in the middle of its reply");
                        Err(Failure::upstream("the provider broke off in the middle of its reply"))
                    }
                    Err(_) => Err(Failure {
                        code: "upstream_timeout",
                        message: "the provider fell silent in the middle of its reply".to_owned(),
                    }),
                },
            };
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
