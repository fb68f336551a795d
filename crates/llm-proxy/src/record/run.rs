//! Requests with an idempotency key: each runs once, whoever waits for it, and its reply is kept for a day.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use loom_core::{Error, Result, id::new_uuid};
use metrics::counter;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use uuid::Uuid;

use super::{
    call::{Call, Digest, Key, reused},
    flight::{Flight, Seat},
    kept::{Kept, is_sound},
    store,
};
use crate::{LlmProxy, trailer};

/// How long a finished reply is there for its repeats.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// A longer reply reaches its client, but is not kept.
const MAX_KEPT: usize = 8 << 20;
/// At once on one replica: each holds its reply, and may go on without a client.
const MAX_RUNS: usize = 2048;
/// Who runs a request says that it lives; others take it for dead when it has not for so long.
const LEASE: Duration = Duration::from_secs(30);
const BEAT: Duration = Duration::from_secs(10);
/// A request that nobody waits for any more goes on for so long, for the client to come back to.
const DRAIN: Duration = Duration::from_secs(300);
/// Pauses between looks at a run of another replica.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// The runs on this replica.
pub(super) type Flights = Mutex<HashMap<Digest, Arc<Flight>>>;

/// What a run finds when it begins.
enum Found {
    /// The key is free: it is this run's now.
    Free,
    Kept(Kept),
}

/// One run, from its claim to the end.
struct Run {
    proxy: LlmProxy,
    call: Arc<Call>,
    key: Digest,
    attempt: Uuid,
    flight: Arc<Flight>,
}

impl LlmProxy {
    /// Joins the run of this key on this replica, or begins one. It goes on when the client leaves.
    pub(super) async fn keyed(
        self,
        key: &Key,
        call: Arc<Call>,
        answer: BoxFuture<'static, Response>,
    ) -> Response {
        let digest = self.record.digester.of_key(&call, key);
        let body = self.record.digester.of_body(&call);
        let (seat, is_repeat) = match self.board(digest, body) {
            Ok(Boarded::Joined(seat)) => {
                count("joined");
                (seat, true)
            }
            Ok(Boarded::Begun(flight, seat)) => {
                let attempt = new_uuid(self.clock.now());
                let run = Run { proxy: self.clone(), call, key: digest, attempt, flight };
                let span = loom_core::telemetry::current();
                let run = trailer::within(trailer::wanted(), run.run(answer));
                let run = loom_core::telemetry::within(span, run);
                let log = tracing::Instrument::instrument(run, tracing::Span::current());
                self.record.tasks.spawn(log);
                (seat, false)
            }
            Err(error) => return error.into_response(),
        };
        seat.response(is_repeat).await
    }

    fn board(&self, key: Digest, body: Digest) -> Result<Boarded> {
        let mut flights = self.record.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key) {
            return if flight.body == body {
                Ok(Boarded::Joined(flight.board()))
            } else {
                count("reused");
                Err(reused())
            };
        }
        if flights.len() >= MAX_RUNS {
            return Err(Error::overloaded("requests with an idempotency key"));
        }
        let (flight, seat) = Flight::new(body);
        flights.insert(key, Arc::clone(&flight));
        Ok(Boarded::Begun(flight, seat))
    }
}

enum Boarded {
    Joined(Seat),
    Begun(Arc<Flight>, Seat),
}

impl Run {
    fn claim(&self) -> store::Claim<'_> {
        store::Claim { org: self.call.principal.org, key: &self.key, attempt: self.attempt }
    }

    /// Nobody joins any more.
    fn leave(&self) {
        let flights = &self.proxy.record.flights;
        let mut flights = flights.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            flights.remove(&self.key);
        }
    }

    async fn run(self, answer: BoxFuture<'static, Response>) {
        match self.find().await {
            Ok(Found::Free) => {
                count("run");
                self.fly(answer).await;
            }
            Ok(Found::Kept(kept)) => {
                count("replayed");
                self.leave();
                self.tell_at_once(kept.response(), true).await;
            }
            Err(error) => {
                self.leave();
                self.tell_at_once(error.into_response(), false).await;
            }
        }
    }

    /// A response that is there as a whole.
    async fn tell_at_once(&self, response: Response, is_replay: bool) {
        let (head, body) = response.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
        // The body before the head: it is told with its length then.
        self.flight.push(body.unwrap_or_default());
        self.flight.end(None);
        self.flight.begin(head, is_replay);
    }

    /// Takes the key, or finds what is known under it; waits for a run of another replica.
    async fn find(&self) -> Result<Found> {
        let (proxy, org) = (&self.proxy, self.call.principal.org);
        let until = Instant::now() + proxy.timeouts.first_byte;
        let mut pause = FIRST_LOOK;
        let mut waits = false;
        loop {
            let now = proxy.clock.now();
            let times = [now, now + LEASE, now + KEEP];
            if store::claim(&proxy.pool, &self.claim(), &self.flight.body, times).await? {
                return Ok(Found::Free);
            }
            if let Some(known) = store::known(&proxy.pool, org, &self.key).await? {
                // Nobody learns anything by how long this takes: both are digests with a key.
                if known.body_digest != self.flight.body {
                    count("reused");
                    return Err(reused());
                }
                if let Some(sealed) = known.sealed_reply {
                    let context = context(&self.call, &self.key, known.attempt);
                    let plain = proxy.vault.unseal_bytes(&context, &sealed)?;
                    return Ok(Found::Kept(Kept::from_bytes(plain)?));
                }
                if known.state == "too_large" {
                    count("too_large");
                    return Err(Error::conflict(
                        "idempotency_too_large",
                        "the reply to this request was given, and was too large (over 8 MiB) to be kept for a repeat; to ask again, use a new key",
                    ));
                }
            }
            if !waits {
                count("waited");
                waits = true;
            }
            if Instant::now() >= until {
                return Err(still_running());
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(LAST_LOOK),
                () = proxy.stop.cancelled() => {
                    return Err(Error::unavailable("this server is going down; try again"));
                }
                () = self.flight.deserted() => return Err(still_running()),
            }
        }
    }

    async fn fly(&self, answer: BoxFuture<'static, Response>) {
        let mut beat = std::pin::pin!(self.beat());
        let response = tokio::select! {
            response = answer => response,
            () = &mut beat => return self.end().await,
        };
        let (head, mut body) = response.into_parts();
        let (status, headers) = (head.status, head.headers.clone());
        if !status.is_success() {
            // A retry that comes at once must find the key free.
            self.give_up().await;
        }
        self.flight.begin(head, false);
        let mut pieces = Vec::new();
        let mut size = 0;
        let mut trailers = None;
        let ended = loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = &mut beat => return self.end().await,
            };
            let data = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(frame) => {
                        trailers = frame.into_trailers().ok();
                        continue;
                    }
                },
                Some(Err(_)) => break false,
                None => break true,
            };
            size += data.len();
            pieces.push(data.clone());
            self.flight.push(data);
            if size > MAX_KEPT {
                if status.is_success() {
                    warn(store::finish(&self.proxy.pool, &self.claim(), None).await);
                }
                self.leave();
                self.flight.hand_over(body);
                return;
            }
        };
        let is_sound = is_sound(&self.call.surface, status, &headers, &pieces, ended);
        if status.is_success() && !is_sound {
            self.give_up().await;
        }
        if ended {
            self.flight.end(trailers);
        } else {
            self.flight.break_off();
        }
        if is_sound {
            self.keep(Kept::new(status, &headers, &pieces)).await;
            self.leave();
        }
    }

    /// Says again and again that this run lives. Resolves when it must end: nobody has waited for it for
    /// too long, or the server goes down.
    async fn beat(&self) {
        let mut ticks = interval_at(Instant::now() + BEAT, BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deserted_since = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.proxy.record.stop.cancelled() => return,
            }
            let until = self.proxy.clock.now() + LEASE;
            match store::renew(&self.proxy.pool, &self.claim(), until).await {
                Ok(true) => {}
                Ok(false) => tracing::warn!(
                    "another server has taken over the idempotency key of a request that runs here"
                ),
                Err(error) => {
                    tracing::warn!(?error, "the claim of an idempotency key could not be renewed");
                }
            }
            if !self.flight.is_deserted() {
                deserted_since = None;
            } else if deserted_since.get_or_insert_with(Instant::now).elapsed() > DRAIN {
                return;
            }
        }
    }

    /// Ended by ourselves, with nobody there.
    async fn end(&self) {
        self.give_up().await;
        self.flight.break_off();
    }

    /// Nothing of it is kept; the key is free for another try.
    async fn give_up(&self) {
        count("failed");
        warn(store::release(&self.proxy.pool, &self.claim()).await);
        self.leave();
    }

    async fn keep(&self, kept: Kept) {
        let context = context(&self.call, &self.key, self.attempt);
        let proxy = self.proxy.clone();
        let sealing = move || proxy.vault.seal_bytes(&context, &kept.to_bytes()?);
        let sealed = tokio::task::spawn_blocking(sealing).await.map_err(Error::internal);
        let done = match sealed {
            Ok(Ok(sealed)) => store::finish(&self.proxy.pool, &self.claim(), Some(&sealed)).await,
            Ok(Err(error)) | Err(error) => Err(error),
        };
        warn(done);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.leave();
    }
}

fn context(call: &Call, key: &Digest, attempt: Uuid) -> String {
    format!("llm_idempotency_keys/{}/{}/{attempt}", call.principal.org, super::hex(key))
}

fn still_running() -> Error {
    Error::conflict(
        "idempotency_running",
        "the request with this idempotency key is still running on another server; try again",
    )
    .retry_after(Duration::from_secs(5))
}

fn warn(result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!(
            ?error,
            "what became of an idempotency key could not be stored: a repeat may run anew, or has to wait until the claim ends"
        );
    }
}

fn count(result: &'static str) {
    counter!("loom_llm_idempotent_requests_total", "result" => result).increment(1);
}
