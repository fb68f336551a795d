//! The load: so many keep-alive connections, each sending its next request when the response before it is complete.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::response::Response;

/// What runs when the time is over may still finish for so long.
const DRAIN: Duration = Duration::from_secs(10);
/// A connection gives up after so many failures.
const PATIENCE: u64 = 100;

pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) request: Request,
    pub(crate) expect: Expect,
    pub(crate) connections: usize,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
}

/// Writes a request into an empty buffer.
type Write = dyn Fn(&mut Vec<u8>) + Send + Sync;

/// A request as it goes over the wire.
#[derive(Clone)]
pub(crate) enum Request {
    Same(Bytes),
    /// Another each time.
    Each(Arc<Write>),
}

/// What a good response (its status is 200) has.
pub(crate) enum Expect {
    /// Whatever it is.
    Any,
    Length(usize),
    Events {
        count: usize,
        last: Bytes,
    },
    /// Of a gateway that writes replies anew: these bytes near the end.
    Holds(&'static [u8]),
}

/// What was seen; times in nanoseconds, those of responses that were complete within the window.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) latencies: Vec<u64>,
    pub(crate) first_bytes: Vec<u64>,
    /// Between an event of a stream and the next one.
    pub(crate) gaps: Vec<u64>,
    /// Events that arrived in one read with the event before them.
    pub(crate) merged: u64,
    /// Of the warm-up too.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

/// A whole request, ready to send.
pub(crate) fn request(
    method: &str,
    path: &str,
    address: SocketAddr,
    bearer: Option<&str>,
    body: &str,
) -> Bytes {
    let bearer = bearer.map(|token| ("authorization", format!("Bearer {token}")));
    request_with(method, path, address, bearer.as_slice(), body)
}

/// With headers of the caller's.
pub(crate) fn request_with(
    method: &str,
    path: &str,
    address: SocketAddr,
    headers: &[(&str, String)],
    body: &str,
) -> Bytes {
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    Bytes::from(format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{headers}content-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    ))
}

/// Sends one request on a connection of its own.
pub(crate) async fn once(address: SocketAddr, request: &Bytes) -> Result<(u16, Vec<u8>)> {
    let mut connection = Connection::open(address).await?;
    connection.exchange(&Request::Same(request.clone())).await?;
    Ok((connection.response.status, connection.response.body))
}

/// Puts the load on. `probe` is called when the window opens and when it closes.
pub(crate) async fn run<P>(plan: &Arc<Plan>, probe: impl Fn() -> P) -> (Tally, P, P) {
    run_all(plan, DRAIN, probe).await
}

/// The same; what runs when the time is over may still finish for `drain`.
pub(crate) async fn run_all<P>(
    plan: &Arc<Plan>,
    drain: Duration,
    probe: impl Fn() -> P,
) -> (Tally, P, P) {
    let from = Instant::now() + plan.warm_up;
    let until = from + plan.window;
    let mut workers = JoinSet::new();
    for _ in 0..plan.connections {
        let plan = Arc::clone(plan);
        workers.spawn(async move { work(&plan, from, until).await });
    }
    sleep_until(from).await;
    let before = probe();
    sleep_until(until).await;
    let after = probe();
    let mut total = Tally::default();
    while let Ok(Some(worker)) = timeout_at(until + drain, workers.join_next()).await {
        match worker {
            Ok(tally) => total.add(tally),
            Err(error) => total.fail(&error.into()),
        }
    }
    for _ in 0..workers.len() {
        total.fail(&anyhow::anyhow!(
            "a response was not complete {} s after the end",
            drain.as_secs()
        ));
    }
    (total, before, after)
}

async fn work(plan: &Plan, from: Instant, until: Instant) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    loop {
        let start = Instant::now();
        if start >= until || tally.errors >= PATIENCE {
            return tally;
        }
        let result = attempt(plan, &mut connection, start).await;
        let end = Instant::now();
        match (result, &mut connection) {
            (Ok(()), Some(open)) => {
                if (from..until).contains(&end) {
                    tally.latencies.push(nanoseconds(end - start));
                    tally.first_bytes.extend(open.first_byte.map(|at| nanoseconds(at - start)));
                    tally.gaps.append(&mut open.gaps);
                    tally.merged += open.merged;
                }
                if open.response.close {
                    connection = None;
                }
            }
            (Ok(()), None) => {}
            (Err(error), _) => {
                tally.fail(&error);
                connection = None;
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn attempt(plan: &Plan, connection: &mut Option<Connection>, start: Instant) -> Result<()> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::open(plan.address).await?),
    };
    open.exchange(&plan.request)
        .await
        .with_context(|| format!("{} ms after the request", start.elapsed().as_millis()))?;
    open.verify(&plan.expect)
}

struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
    written: Vec<u8>,
    response: Response,
    first_byte: Option<Instant>,
    events: usize,
    gaps: Vec<u64>,
    merged: u64,
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).await.context("connecting")?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(64 * 1024),
            written: Vec::new(),
            response: Response::default(),
            first_byte: None,
            events: 0,
            gaps: Vec::new(),
            merged: 0,
        })
    }

    async fn exchange(&mut self, request: &Request) -> Result<()> {
        self.response.reset();
        self.first_byte = None;
        self.events = 0;
        self.gaps.clear();
        self.merged = 0;
        let mut last_event = None;
        let request: &[u8] = match request {
            Request::Same(request) => request,
            Request::Each(write) => {
                self.written.clear();
                write(&mut self.written);
                &self.written
            }
        };
        self.socket.write_all(request).await.context("sending the request")?;
        loop {
            self.buffer.clear();
            if self.socket.read_buf(&mut self.buffer).await.context("reading the response")? == 0 {
                bail!("the connection was closed in a response");
            }
            let now = Instant::now();
            let seen = self.response.body.len();
            let done = self.response.feed(&self.buffer)?;
            if self.response.body.len() > seen {
                self.first_byte.get_or_insert(now);
                self.count_events(seen, now, &mut last_event);
            }
            if done {
                return Ok(());
            }
        }
    }

    /// Counts the ends of events (empty lines) in the body from `seen` on.
    fn count_events(&mut self, seen: usize, now: Instant, last: &mut Option<Instant>) {
        let new = self.response.body.get(seen.saturating_sub(1)..).unwrap_or_default();
        let events = memchr::memmem::find_iter(new, b"\n\n").count();
        if events == 0 {
            return;
        }
        self.events += events;
        self.gaps.extend(last.replace(now).map(|last| nanoseconds(now - last)));
        self.gaps.extend(std::iter::repeat_n(0, events - 1));
        self.merged += events as u64 - 1;
    }

    fn verify(&self, expect: &Expect) -> Result<()> {
        let Response { status, body, .. } = &self.response;
        ensure!(*status == 200, "status {status}: {}", excerpt(body));
        match expect {
            Expect::Any => {}
            Expect::Length(length) => {
                ensure!(
                    body.len() == *length,
                    "{} bytes instead of {length}: {}",
                    body.len(),
                    excerpt(body)
                );
            }
            Expect::Events { count, last } => {
                ensure!(self.events == *count, "{} events instead of {count}", self.events);
                ensure!(body.ends_with(last), "the last event is missing");
            }
            Expect::Holds(word) => {
                let found = memchr::memmem::find(body, word).is_some();
                ensure!(found, "`{}` is missing: {}", word.escape_ascii(), excerpt(body));
            }
        }
        Ok(())
    }
}

impl Tally {
    fn add(&mut self, mut other: Self) {
        self.latencies.append(&mut other.latencies);
        self.first_bytes.append(&mut other.first_bytes);
        self.gaps.append(&mut other.gaps);
        self.merged += other.merged;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| format!("{error:#}"));
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::{Expect, Plan, Request, Tally, once, request, run};
    use crate::mock::{self, Api, EVENTS};

    async fn mock_load(api: Api, stream: bool, pace: Option<Duration>, expect: Expect) -> Tally {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(mock::serve(listener));
        let request = request("POST", api.path(), address, None, &api.request_body(stream, pace));
        let plan = Plan {
            address,
            request: Request::Same(request),
            expect,
            connections: 2,
            warm_up: Duration::from_millis(10),
            window: Duration::from_millis(200),
        };
        let (tally, (), ()) = run(&Arc::new(plan), || ()).await;
        server.abort();
        tally
    }

    fn stream_of(api: Api) -> Expect {
        Expect::Events { count: EVENTS, last: api.replies().events[EVENTS - 1].clone() }
    }

    #[tokio::test]
    async fn good_responses_are_counted() {
        for api in [Api::Openai, Api::Anthropic] {
            let json = mock_load(api, false, None, Expect::Length(api.replies().json.len())).await;
            assert_eq!((json.errors, json.first_error), (0, None), "{api:?}");
            assert!(!json.latencies.is_empty(), "{api:?}");
            let stream = mock_load(api, true, None, stream_of(api)).await;
            assert_eq!((stream.errors, stream.first_error), (0, None), "{api:?}");
            assert_eq!(stream.first_bytes.len(), stream.latencies.len(), "{api:?}");
            assert_eq!(stream.gaps.len(), stream.latencies.len() * (EVENTS - 1), "{api:?}");
        }
    }

    #[tokio::test]
    async fn a_paced_stream_has_gaps() {
        let pace = Duration::from_millis(2);
        let tally = mock_load(Api::Openai, true, Some(pace), stream_of(Api::Openai)).await;
        assert_eq!(tally.errors, 0);
        assert!(!tally.gaps.is_empty());
        let streams = tally.latencies.len() as u128;
        let least = pace.as_nanos() * (EVENTS as u128 - 1);
        assert!(
            tally.gaps.iter().copied().map(u128::from).sum::<u128>() >= streams * least * 9 / 10
        );
    }

    #[tokio::test]
    async fn bad_responses_are_errors() {
        let short = mock_load(Api::Openai, false, None, Expect::Length(1)).await;
        assert!(short.latencies.is_empty() && short.errors > 0);
        assert!(short.first_error.unwrap().contains("instead of 1"));
        let other = Expect::Events { count: EVENTS, last: "data: other\n\n".into() };
        let cut = mock_load(Api::Openai, true, None, other).await;
        assert!(cut.latencies.is_empty() && cut.first_error.unwrap().contains("last event"));
    }

    #[tokio::test]
    async fn one_request_gives_its_status() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(mock::serve(listener));
        let (status, body) =
            once(address, &request("GET", "/nowhere", address, None, "")).await.unwrap();
        server.abort();
        assert_eq!((status, body.as_slice()), (404, [].as_slice()));
    }
}
