//! One request to one provider with one credential: what it answers, and what is to be done then.
//!
//! A stream's announcement (`message_start`, a chunk with nothing but a role) is held back until
//! something of the reply itself has come: up to there another provider can be asked in its place.

use std::{collections::VecDeque, pin::Pin, sync::Arc, sync::atomic::Ordering, time::Duration};

use axum::http::{HeaderMap, StatusCode, response::Parts};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use loom_core::{Error, Result, id::CredentialId};
use reqwest::Body;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    LlmProxy, demo,
    dialect::Operation,
    exchange::{is_event_stream, upstream_id},
    forward::{
        Incoming, MAX_ERROR_BODY, concealed, no_answer, read_to, request_headers, without_org,
    },
    live::{Account, Live},
    observe::Observer,
    pool::{Lease, Verdict, put_on},
    provider::Provider,
    relay::has_ended,
    translate::{
        reply::Reply,
        stream::{self, Decoder},
    },
    translated::{Form, said},
    vertex,
};

/// A whole reply longer than this is none.
const MAX_REPLY: usize = 64 << 20;
/// An announcement longer than this is passed on before anything follows it.
const MAX_HELD: usize = 256 << 10;
/// How a chat request ends that asks for usage on the client's behalf.
const ASKS_FOR_USAGE: &[u8] = br#","stream_options":{"include_usage":true}}"#;

/// A request in the words of a provider.
pub(crate) struct Prepared {
    pub(crate) operation: Operation,
    pub(crate) body: Bytes,
    /// The same without the usage that was asked for on the client's behalf.
    pub(crate) plain: Option<Bytes>,
    pub(crate) way: Way,
}

/// How the request, and the reply to it, go through.
pub(crate) enum Way {
    /// As they come. `own_options`: the client had stream options of its own.
    Passed { own_options: bool },
    /// In other words; the client's form, or None for the native one.
    Told(Option<Box<Form>>),
}

impl Prepared {
    pub(crate) fn is_passed(&self) -> bool {
        matches!(self.way, Way::Passed { .. })
    }
}

/// A reply that begins: what comes next is the client's.
pub(crate) struct Begun {
    pub(crate) provider: Arc<Provider>,
    pub(crate) operation: Operation,
    pub(crate) parts: Parts,
    /// What has come already, and was looked at.
    pub(crate) held: VecDeque<Bytes>,
    pub(crate) body: Body,
    pub(crate) streams: bool,
    /// Usage was asked for on the client's behalf: the chunk that brings it stays here.
    pub(crate) withhold_usage: bool,
    /// All of it, where it is told in other words and does not stream.
    pub(crate) reply: Option<Reply>,
    /// Wound up for the attempt, and good for the rest.
    pub(crate) timer: Pin<Box<Sleep>>,
    /// Counts as in flight to the end of the reply.
    pub(crate) lease: Option<Lease>,
}

impl Begun {
    /// Its events, for who tells them in other words.
    pub(crate) fn live(self, proxy: &LlmProxy, account: Account, deadline: Instant) -> Live {
        Live {
            upstream: Some(self.body),
            decoder: Decoder::new(self.operation),
            account,
            held: self.held,
            lease: self.lease,
            idle: proxy.timeouts.idle,
            since: None,
            deadline,
            stop: proxy.stop.clone(),
            waiting: VecDeque::new(),
            received: 0,
        }
    }
}

/// An attempt that came to nothing.
pub(crate) struct Refusal {
    pub(crate) provider: Arc<Provider>,
    pub(crate) operation: Operation,
    pub(crate) passed: bool,
    pub(crate) credential: Option<CredentialId>,
    /// Its model there, where a route chose it.
    pub(crate) model: Option<String>,
    pub(crate) what: What,
    pub(crate) next: Next,
}

pub(crate) enum What {
    /// The provider's own words, without our secret.
    Answer(Box<Parts>, Bytes),
    /// A stream that told of an error before anything else.
    Stream(Box<Begun>),
    /// It did not come to an answer.
    Error(Error),
}

/// What may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: the request itself is refused.
    Nothing,
    /// Another credential, or another provider.
    Other,
    /// The same, or just to try again.
    Again,
}

impl Refusal {
    /// Nobody was asked.
    pub(crate) fn ours(provider: &Arc<Provider>, prepared: &Prepared, error: Error) -> Self {
        Self::new(provider, prepared, What::Error(error), Next::Other)
    }

    fn new(provider: &Arc<Provider>, prepared: &Prepared, what: What, next: Next) -> Self {
        Self {
            provider: Arc::clone(provider),
            operation: prepared.operation,
            passed: prepared.is_passed(),
            credential: None,
            model: None,
            what,
            next,
        }
    }

    /// Of several, the client is told of the one that tells it most; of two that tell as much, the later.
    pub(crate) fn weight(&self) -> u8 {
        match &self.what {
            What::Answer(parts, _) => match parts.status.as_u16() {
                429 => 5,
                408 | 500.. => 4,
                401..=403 => 1,
                _ => 6,
            },
            What::Stream(_) => 4,
            What::Error(error) => match error.status() {
                StatusCode::TOO_MANY_REQUESTS => 3,
                StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => 2,
                _ => 0,
            },
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match &self.what {
            What::Answer(parts, _) => parts.status,
            What::Stream(begun) => begun.parts.status,
            What::Error(error) => error.status(),
        }
    }
}

pub(crate) struct Attempt<'a> {
    pub(crate) proxy: &'a LlmProxy,
    pub(crate) provider: &'a Arc<Provider>,
    pub(crate) prepared: &'a Prepared,
    /// The client's, as far as they may go along.
    pub(crate) headers: &'a HeaderMap,
    pub(crate) query: Option<&'a str>,
    /// The client asked for a stream.
    pub(crate) streamed: bool,
    /// Of the request, whoever is asked in turn.
    pub(crate) deadline: Instant,
}

/// What an attempt came to, beside what it says of the credential.
type Outcome<T> = Result<T, (Refusal, Verdict)>;

impl Attempt<'_> {
    /// Resolves when it is clear what becomes of it. Dropping the future ends the request there.
    pub(crate) async fn run(&self, lease: Option<&Lease>, account: &mut Account) -> Outcome<Begun> {
        let due = Instant::now() + self.proxy.timeouts.first_byte;
        let mut timer = Box::pin(sleep_until(due.min(self.deadline)));
        let mut answer = self.send(self.prepared.body.clone(), lease, &mut timer).await?;
        let mut withhold_usage = self.prepared.plain.is_some();
        if answer.status() == StatusCode::BAD_REQUEST
            && let Some(plain) = self.plain()
        {
            let (parts, body) = answer.into_parts();
            let told = self.read(body, &mut timer).await;
            if memchr::memmem::find(&told, b"stream_options").is_none() {
                return Err(self.refused(parts, told, lease));
            }
            answer = self.send(plain, lease, &mut timer).await?;
            withhold_usage = false;
            // Options of the client's own may be what was refused, and any request can make a provider
            // repeat the word: only that it goes well without them tells.
            let own = matches!(self.prepared.way, Way::Passed { own_options: true });
            if !own && answer.status().is_success() {
                self.provider.note_refusal_of_stream_options();
            }
        }
        if answer.status().is_success() {
            self.begin(answer, withhold_usage, timer, account).await
        } else {
            let (parts, body) = answer.into_parts();
            let told = self.read(body, &mut timer).await;
            Err(self.refused(parts, told, lease))
        }
    }

    /// The request without what some providers refuse, if that is in it.
    fn plain(&self) -> Option<Bytes> {
        match self.prepared.way {
            Way::Passed { .. } => self.prepared.plain.clone(),
            Way::Told(_) => {
                let rest = self.prepared.body.strip_suffix(ASKS_FOR_USAGE)?;
                Some([rest, b"}"].concat().into())
            }
        }
    }

    async fn send(
        &self,
        body: Bytes,
        lease: Option<&Lease>,
        timer: &mut Pin<Box<Sleep>>,
    ) -> Outcome<Incoming> {
        let (proxy, provider) = (self.proxy, self.provider);
        let Some(lease) = lease else {
            return demo::answer(self.prepared.operation, &body)
                .map_err(|error| self.failed(error, Next::Nothing));
        };
        let mut headers = request_headers(self.headers, provider.dialect);
        let credential = lease.headers().await;
        put_on(&mut headers, credential.map_err(|error| self.failed(error, Next::Other))?);
        let query = self.query.and_then(without_org);
        let (url, body) = provider
            .addressed(self.prepared.operation, query.as_deref(), body)
            .map_err(|error| self.failed(error, Next::Nothing))?;
        let sending = proxy.client.post(url).headers(headers).body(body).send();
        let answered = tokio::select! {
            biased;
            answered = sending => match answered {
                Ok(answer) => Ok(http::Response::from(answer)),
                Err(error) => Err(no_answer(provider, error)),
            },
            () = timer.as_mut() => Err(self.too_late()),
            () = proxy.stop.cancelled() => {
                return Err(self.failed(going_down(), Next::Nothing));
            }
        };
        let sound = answered.as_ref().is_ok_and(|answer| !answer.status().is_server_error());
        provider.failing.store(!sound, Ordering::Relaxed);
        answered.map_err(|error| self.failed(error, Next::Again))
    }

    /// A success: up to the first of the reply itself, or all of it where it is told in other words and
    /// does not stream.
    async fn begin(
        &self,
        answer: Incoming,
        withhold_usage: bool,
        timer: Pin<Box<Sleep>>,
        account: &mut Account,
    ) -> Outcome<Begun> {
        let (parts, body) = answer.into_parts();
        let operation = self.prepared.operation;
        let streams =
            is_event_stream(&parts.headers) && (self.prepared.is_passed() || self.streamed);
        account.watch(if streams {
            Observer::stream(operation)
        } else {
            Observer::json(operation)
        });
        account.answered(parts.status, upstream_id(&parts.headers));
        let mut begun = Begun {
            provider: Arc::clone(self.provider),
            operation,
            parts,
            held: VecDeque::new(),
            body,
            streams,
            withhold_usage,
            reply: None,
            timer,
            lease: None,
        };
        if !streams && !self.prepared.is_passed() {
            let reply = self.whole(&mut begun, account).await;
            begun.reply = Some(reply.map_err(|error| self.broken(error))?);
            return Ok(begun);
        }
        let mut size = 0;
        while !has_ended(&begun.body) {
            match self.more(&mut begun).await {
                Ok(Some(data)) if data.is_empty() => {}
                Ok(Some(data)) => {
                    size += data.len();
                    account.see(&data);
                    begun.held.push_back(data);
                    let seen = account.seen();
                    if !streams || seen.begun || seen.complete || size > MAX_HELD {
                        break;
                    }
                    if let Some(error) = &seen.error {
                        let (next, verdict) = judge_event(error);
                        if next != Next::Nothing {
                            self.provider.failing.store(true, Ordering::Relaxed);
                        }
                        return Err((self.refusal(What::Stream(Box::new(begun)), next), verdict));
                    }
                }
                // It is not asked once more: not every body can be.
                Ok(None) if !streams => {
                    begun.body = Body::from("");
                    break;
                }
                Ok(None) => {
                    let what = "ended its reply before it was complete";
                    return Err(self.broken(self.bad_gateway(what)));
                }
                Err(error) => return Err(self.broken(error)),
            }
        }
        let seen = account.seen();
        if streams && !seen.begun && !seen.complete && has_ended(&begun.body) {
            return Err(self.broken(self.bad_gateway("ended its reply before it was complete")));
        }
        Ok(begun)
    }

    /// The next piece; None at the end.
    async fn more(&self, begun: &mut Begun) -> Result<Option<Bytes>> {
        let idle = Instant::now() + self.proxy.timeouts.idle;
        let due = idle.min(self.deadline);
        if begun.timer.deadline() != due {
            begun.timer.as_mut().reset(due);
        }
        tokio::select! {
            biased;
            frame = begun.body.frame() => match frame {
                Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
                Some(Err(error)) => {
                    let what = "broke off in the middle of its reply";
                    Err(self.bad_gateway(what).because(error))
                }
                None => Ok(None),
            },
            () = begun.timer.as_mut() => Err(if due == self.deadline {
                self.out_of_time()
            } else {
                let name = &self.provider.name;
                let detail = format!("the provider `{name}` fell silent in the middle of its reply");
                Error::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", detail)
            }),
            () = self.proxy.stop.cancelled() => Err(going_down()),
        }
    }

    async fn whole(&self, begun: &mut Begun, account: &mut Account) -> Result<Reply> {
        let mut whole = BytesMut::new();
        while let Some(data) = self.more(begun).await? {
            if whole.len() + data.len() > MAX_REPLY {
                return Err(self.bad_gateway("sent a reply that is larger than this server takes"));
            }
            account.see(&data);
            whole.extend_from_slice(&data);
        }
        stream::whole(begun.operation, &whole).map_err(|error| {
            // Some tell of an error with the status of a success.
            let what = match said(&whole) {
                (Some(message), _) => format!("failed: {}", loom_core::text::cut(&message, 2000)),
                (None, _) => "sent a reply that cannot be read".to_owned(),
            };
            self.bad_gateway(&what).because(error)
        })
    }

    /// What there is of an error's body, without waiting for it for long.
    async fn read(&self, body: Body, timer: &mut Pin<Box<Sleep>>) -> Bytes {
        timer.as_mut().reset((Instant::now() + self.proxy.timeouts.idle).min(self.deadline));
        tokio::select! {
            biased;
            told = read_to(body, MAX_ERROR_BODY) => told,
            () = timer.as_mut() => Bytes::new(),
        }
    }

    fn refused(&self, parts: Parts, told: Bytes, lease: Option<&Lease>) -> (Refusal, Verdict) {
        let now = self.proxy.clock.now();
        let verdict = Verdict::of(parts.status, &parts.headers, &told, now);
        let next = match (parts.status.as_u16(), &verdict) {
            (402, _) | (_, Verdict::RateLimited { .. } | Verdict::Refused { .. }) => Next::Other,
            (_, Verdict::Failing { .. }) => {
                let no = parts.headers.get("x-should-retry").is_some_and(|value| value == "false");
                if no { Next::Other } else { Next::Again }
            }
            _ => Next::Nothing,
        };
        let (parts, mut told) = concealed(parts, told, self.provider, lease);
        if self.provider.is_vertex() && self.prepared.is_passed() {
            told = vertex::reworded(self.prepared.operation, parts.status, told);
        }
        (self.refusal(What::Answer(Box::new(parts), told), next), verdict)
    }

    fn refusal(&self, what: What, next: Next) -> Refusal {
        Refusal::new(self.provider, self.prepared, what, next)
    }

    fn failed(&self, error: Error, next: Next) -> (Refusal, Verdict) {
        let verdict = match next {
            Next::Nothing | Next::Other => Verdict::Neutral,
            Next::Again => Verdict::Failing { reason: error.detail().to_owned() },
        };
        (self.refusal(What::Error(error), next), verdict)
    }

    /// A reply that did not come to its end, before the client got anything of it.
    fn broken(&self, error: Error) -> (Refusal, Verdict) {
        if error.status() == StatusCode::SERVICE_UNAVAILABLE {
            return self.failed(error, Next::Nothing);
        }
        self.provider.failing.store(true, Ordering::Relaxed);
        self.failed(error, Next::Again)
    }

    fn bad_gateway(&self, what: &str) -> Error {
        let detail = format!("the provider `{}` {what}", self.provider.name);
        Error::new(StatusCode::BAD_GATEWAY, "upstream_error", detail)
    }

    fn too_late(&self) -> Error {
        if Instant::now() >= self.deadline {
            return self.out_of_time();
        }
        let detail = format!(
            "the provider `{}` did not begin to answer within {} s",
            self.provider.name,
            self.proxy.timeouts.first_byte.as_secs()
        );
        Error::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", detail)
    }

    fn out_of_time(&self) -> Error {
        out_of_time(self.proxy.timeouts.total)
    }
}

pub(crate) fn out_of_time(total: Duration) -> Error {
    let detail = format!("the request could not be answered within {} s", total.as_secs());
    Error::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", detail)
}

fn going_down() -> Error {
    Error::unavailable("this server is going down; try again")
}

/// By the code or type of an error event: a request that the provider will never take, or what another
/// may do better.
fn judge_event(code: &str) -> (Next, Verdict) {
    const CLIENTS: [&str; 6] =
        ["invalid", "not_found", "too_large", "context_length", "content_", "unsupported"];
    if CLIENTS.iter().any(|word| code.contains(word)) {
        return (Next::Nothing, Verdict::Sound);
    }
    if code.contains("rate_limit") || code == "insufficient_quota" {
        let out_of_quota = code == "insufficient_quota";
        return (Next::Other, Verdict::RateLimited { retry_after: None, out_of_quota });
    }
    (Next::Again, Verdict::Failing { reason: code.to_owned() })
}
