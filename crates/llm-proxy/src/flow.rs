//! One request on its way: who is asked, who next when that comes to nothing, and what the client gets.
//!
//! Candidates are asked in turn, each with its credentials in turn, until one begins to reply. All of it
//! is one future, which goes on inside of the response's body where a client of a stream has to be told
//! something before it is done ([`crate::silence`]).

use std::{sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, Uri},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use loom_core::{Error, Principal, Result, principal::RequestInfo};
use tokio::time::Instant;

use crate::{
    LlmProxy,
    attempt::{Attempt, Begun, Next, Prepared, Refusal, Way, What, out_of_time},
    candidates::Candidates,
    dialect::Operation,
    exchange::along,
    frames::Surface,
    ledger::Opening,
    limits::Need,
    live::Account,
    native,
    observe::Observer,
    pool::CALLERS,
    provider::Target,
    refused::Refused,
    relay::{Relay, relay},
    silence,
};

/// Requests to providers for one of a client's.
const MAX_ATTEMPTS: usize = 12;
/// Before the same place is asked again; each time twice as long, and up to half as much by chance of
/// the clock, so that many do not come back at once.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is asked, in the client's form.
pub(crate) enum Ask {
    Wire {
        surface: Operation,
        body: Bytes,
        /// The client has stream options of its own.
        own_options: bool,
    },
    Native(Box<native::Request>),
    /// It is in the last candidate's words already.
    Spent,
}

/// A request that was read.
pub(crate) struct Asking {
    pub(crate) principal: Principal,
    pub(crate) info: RequestInfo,
    /// The client's, as they came.
    pub(crate) headers: HeaderMap,
    pub(crate) uri: Uri,
    pub(crate) surface: Surface,
    /// As the client calls it.
    pub(crate) model: String,
    pub(crate) streamed: bool,
    pub(crate) ask: Ask,
    pub(crate) request_bytes: usize,
    /// Tokens that the client lets it answer with at most.
    pub(crate) max_output: Option<u64>,
    /// Tokens, about.
    pub(crate) input_estimate: u64,
}

/// What became of a request.
pub(crate) enum Ended {
    Reply(Response),
    Refused(Box<Refused>),
}

impl IntoResponse for Ended {
    fn into_response(self) -> Response {
        match self {
            Self::Reply(response) => response,
            Self::Refused(refused) => refused.into_response(),
        }
    }
}

struct Flow {
    proxy: LlmProxy,
    info: RequestInfo,
    headers: HeaderMap,
    /// Of these, what is for whoever answers in other words; made when it is needed.
    along: Option<HeaderMap>,
    uri: Uri,
    surface: Surface,
    model: String,
    streamed: bool,
    ask: Ask,
    candidates: Candidates,
    account: Account,
    deadline: Instant,
    attempts: usize,
    /// Of what came to nothing, what tells most.
    worst: Option<Refusal>,
}

impl Ask {
    /// In the words of a provider.
    ///
    /// # Errors
    /// For what it cannot be told.
    fn prepare(&self, flow: &Forming<'_>, target: &Target) -> Result<Prepared> {
        match self {
            Self::Wire { surface, body, own_options }
                if target
                    .provider
                    .speaks(*surface, target.rename.as_deref().unwrap_or(flow.model)) =>
            {
                crate::http::passed(*surface, body, *own_options, flow.streamed, target)
            }
            Self::Wire { surface, body, .. } => {
                crate::translated::told(*surface, body, target, flow.request_id, flow.now)
            }
            Self::Native(request) => native::told(request, &target.provider, flow.streamed),
            Self::Spent => Err(Error::internal("a request has no candidate left to be told to")),
        }
    }
}

/// What the form of a request depends on beside the request.
struct Forming<'a> {
    /// As the client calls it.
    model: &'a str,
    streamed: bool,
    request_id: &'a Arc<str>,
    now: i64,
}

impl LlmProxy {
    /// Asks, and answers.
    ///
    /// # Errors
    /// For a request that nobody can be asked, and who is not let in.
    pub(crate) async fn ask(&self, asking: Asking, mut candidates: Candidates) -> Result<Response> {
        let Asking {
            principal,
            info,
            headers,
            uri,
            surface,
            model,
            streamed,
            mut ask,
            request_bytes,
            max_output,
            input_estimate,
        } = asking;
        if headers.contains_key(CALLERS) {
            candidates = candidates.of_whom_a_token_is()?;
        }
        let now = self.clock.now().timestamp();
        let forming = Forming { model: &model, streamed, request_id: &info.id, now };
        let (first, prepared) = candidates.prepare(|target| ask.prepare(&forming, target))?;
        if candidates.is_empty() {
            // It may be large.
            ask = Ask::Spent;
        }
        let deadline = Instant::now() + self.timeouts.total;
        let meter = self
            .open_account(&Opening {
                principal: &principal,
                info: &info,
                headers: &headers,
                provider: &first.provider,
                model: first.routed().unwrap_or(&model),
                streamed,
                request_bytes,
                need: Need {
                    operation: prepared.operation,
                    surface: surface.into(),
                    max_output,
                    input_estimate,
                },
            })
            .await?;
        let account = Account::new(meter, model.clone(), Observer::json(prepared.operation));
        let waits = streamed && surface.streams();
        let mut told = HeaderMap::new();
        if waits {
            account.tell(&mut told);
        }
        let request_id = Arc::clone(&info.id);
        let flow = Flow {
            proxy: self.clone(),
            info,
            headers,
            along: None,
            uri,
            surface,
            model,
            streamed,
            ask,
            candidates,
            account,
            deadline,
            attempts: 0,
            worst: None,
        };
        let running = Box::pin(flow.run(first, prepared));
        Ok(if waits {
            silence::answer(running, surface, self.timeouts.keep_alive, told, request_id).await
        } else {
            running.await.into_response()
        })
    }
}

impl Flow {
    async fn run(mut self, first: Target, prepared: Prepared) -> Ended {
        let nobody = Refusal::ours(
            &first.provider,
            &prepared,
            Error::unavailable("no provider is left to be asked; try again"),
        );
        let mut next = Some((first, prepared));
        while let Some((target, prepared)) = next {
            match self.ask_one(&target, prepared).await {
                Some(Ok(ended)) => return self.begun(ended),
                Some(Err(refusal)) => return self.refused(refusal),
                None => {}
            }
            next = self.next().await;
        }
        let refusal = self.worst.take().unwrap_or(nobody);
        self.refused(refusal)
    }

    /// The next that can be told the request, and that it may be told to.
    async fn next(&mut self) -> Option<(Target, Prepared)> {
        loop {
            if self.attempts >= MAX_ATTEMPTS || Instant::now() >= self.deadline {
                return None;
            }
            let (target, prepared) = self.prepared()?;
            match self.admit(&target, &prepared).await {
                Ok(()) => return Some((target, prepared)),
                Err(refusal) => self.note(refusal),
            }
        }
    }

    fn prepared(&mut self) -> Option<(Target, Prepared)> {
        let now = self.proxy.clock.now().timestamp();
        let forming =
            Forming { model: &self.model, streamed: self.streamed, request_id: &self.info.id, now };
        let ask = &self.ask;
        let next = self.candidates.prepare(|target| ask.prepare(&forming, target)).ok();
        if self.candidates.is_empty() {
            self.ask = Ask::Spent;
        }
        next
    }

    /// Limits of models, and prices, are others there.
    async fn admit(&mut self, target: &Target, prepared: &Prepared) -> Result<(), Refusal> {
        self.account.served_by(&target.provider, prepared.operation, target.routed(), None);
        self.account.admit(&self.proxy.limits).await.map_err(|error| {
            let mut refusal = Refusal::ours(&target.provider, prepared, error);
            refusal.model = target.routed().map(str::to_owned);
            refusal
        })
    }

    /// One candidate, with its credentials in turn. None: another may do better.
    async fn ask_one(
        &mut self,
        target: &Target,
        mut prepared: Prepared,
    ) -> Option<Result<(Begun, Prepared), Refusal>> {
        let provider = &target.provider;
        let mut tried = Vec::new();
        let mut again = if self.candidates.is_empty() { self.proxy.timeouts.retries } else { 0 };
        let mut pause = FIRST_PAUSE;
        let mut may_pass = false;
        loop {
            let lease = if provider.is_demo() {
                None
            } else {
                match provider.lease_for(&self.headers, &tried, self.proxy.clock.now()) {
                    Ok(lease) => Some(lease),
                    Err(_) if may_pass && again > 0 && !tried.is_empty() => {
                        again -= 1;
                        tried.clear();
                        if !self.wait(pause).await {
                            return None;
                        }
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        continue;
                    }
                    // That nobody else is left tells less than why those who were asked refused.
                    Err(why) if !tried.is_empty() && why.code() == "upstream_unavailable" => {
                        return None;
                    }
                    Err(why) => {
                        self.note(Refusal::ours(provider, &prepared, why));
                        return None;
                    }
                }
            };
            self.begin_attempt(target, &prepared, lease.as_ref());
            let attempt = Attempt {
                proxy: &self.proxy,
                provider,
                prepared: &prepared,
                headers: if prepared.is_passed() {
                    &self.headers
                } else {
                    self.along.get_or_insert_with(|| along(&self.headers))
                },
                query: if prepared.is_passed() { self.uri.query() } else { None },
                streamed: self.streamed,
                deadline: self.deadline,
            };
            match attempt.run(lease.as_ref(), &mut self.account).await {
                Ok(mut begun) => {
                    provider.measures.attempts.sound();
                    if let Some(lease) = &lease {
                        lease.report(crate::pool::Verdict::Sound);
                    }
                    begun.lease = lease;
                    if let Way::Passed { .. } = prepared.way {
                        prepared.plain = None;
                    }
                    return Some(Ok((begun, prepared)));
                }
                Err((mut refusal, verdict)) => {
                    // What a route names and a provider does not have is not the client's fault.
                    let unknown = refusal.status() == http::StatusCode::NOT_FOUND;
                    if unknown && target.routed().is_some() && !self.candidates.is_empty() {
                        refusal.next = Next::Other;
                    }
                    provider.measures.attempts.failed(refusal.next, &verdict);
                    tracing::debug!(
                        provider = &*provider.name,
                        credential = lease.as_ref().map(crate::pool::Lease::name),
                        status = refusal.status().as_u16(),
                        ?verdict,
                        "an attempt came to nothing"
                    );
                    if let Some(lease) = lease {
                        lease.report(verdict);
                        refusal.credential = lease.id();
                        tried.push(lease.key());
                    }
                    refusal.model = target.routed().map(str::to_owned);
                    if refusal.next == Next::Nothing {
                        return Some(Err(refusal));
                    }
                    may_pass |= refusal.next == Next::Again;
                    let is_demo = provider.is_demo();
                    self.note(refusal);
                    let over = self.attempts >= MAX_ATTEMPTS || Instant::now() >= self.deadline;
                    if over || is_demo {
                        return None;
                    }
                }
            }
        }
    }

    fn begin_attempt(
        &mut self,
        target: &Target,
        prepared: &Prepared,
        lease: Option<&crate::pool::Lease>,
    ) {
        self.attempts += 1;
        if self.attempts > 1 {
            // The one before ends there, too, whatever is left of it.
            if let Some(Refusal { what: What::Stream(begun), .. }) = &mut self.worst {
                begun.body = reqwest::Body::from("");
            }
            self.account.watch(Observer::json(prepared.operation));
        }
        let credential = lease.and_then(crate::pool::Lease::id);
        self.account.served_by(&target.provider, prepared.operation, target.routed(), credential);
    }

    /// Keeps what tells the client more.
    fn note(&mut self, refusal: Refusal) {
        if self.worst.as_ref().is_none_or(|worst| refusal.weight() >= worst.weight()) {
            self.worst = Some(refusal);
        }
    }

    /// Is there time left after it?
    async fn wait(&mut self, pause: Duration) -> bool {
        let by_chance =
            pause.mul_f64(f64::from(self.proxy.clock.now().timestamp_subsec_micros() % 500) / 1e3);
        let until = Instant::now() + pause + by_chance;
        if until >= self.deadline {
            self.note_out_of_time();
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep_until(until) => true,
            () = self.proxy.stop.cancelled() => false,
        }
    }

    /// Of several credentials at their limits the answer is that of one; the client can come again when
    /// the first of them is available.
    fn tell_the_shortest(&self, refusal: &mut Refusal) {
        if let What::Answer(parts, _) = &mut refusal.what
            && parts.status == http::StatusCode::TOO_MANY_REQUESTS
            && !self.headers.contains_key(CALLERS)
            && let Some(secs) = refusal.provider.sooner(&parts.headers, self.proxy.clock.now())
        {
            parts.headers.remove("retry-after-ms");
            parts.headers.insert(http::header::RETRY_AFTER, secs.into());
        }
    }

    fn note_out_of_time(&mut self) {
        if let Some(Refusal { what: What::Error(error), .. }) = &mut self.worst {
            *error = out_of_time(self.proxy.timeouts.total);
        }
    }

    fn begun(self, (begun, prepared): (Begun, Prepared)) -> Ended {
        let Self { proxy, info, account, surface, deadline, .. } = self;
        match (surface, prepared.way) {
            (Surface::Wire(_), Way::Passed { .. }) => {
                Ended::Reply(relay(begun, proxy.relay(&info.id, deadline), account))
            }
            (Surface::Wire(_), Way::Told(Some(form))) => {
                Ended::Reply(proxy.tell(begun, *form, account, deadline))
            }
            (_, _) => Ended::Reply(proxy.tell_natively(begun, account, self.streamed, deadline)),
        }
    }

    fn refused(self, mut refusal: Refusal) -> Ended {
        self.tell_the_shortest(&mut refusal);
        let Self { proxy, info, mut account, surface, deadline, model: asked, .. } = self;
        let provider = Arc::clone(&refusal.provider);
        let model = refusal.model.as_deref();
        account.served_by(&provider, refusal.operation, model, refusal.credential);
        match refusal.what {
            // What it said before the error, and the error, as they came.
            What::Stream(begun) if refusal.passed => {
                account.watch(Observer::stream(refusal.operation));
                for data in &begun.held {
                    account.see(data);
                }
                account.answered(
                    begun.parts.status,
                    crate::exchange::upstream_id(&begun.parts.headers),
                );
                Ended::Reply(relay(*begun, proxy.relay(&info.id, deadline), account))
            }
            what => Ended::Refused(Box::new(Refused {
                what,
                provider,
                passed: refusal.passed,
                surface,
                model: asked,
                request_id: info.id,
                now: proxy.clock.now(),
                account,
            })),
        }
    }
}

impl LlmProxy {
    fn relay(&self, request_id: &Arc<str>, deadline: Instant) -> Relay {
        Relay {
            idle: self.timeouts.idle,
            keep_alive: self.timeouts.keep_alive,
            deadline,
            request_id: Arc::clone(request_id),
            stop: self.stop.clone().cancelled_owned(),
        }
    }
}
