//! The mock's listener, its one handler, and the body that plays a script.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    io,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, Request, State},
    response::Response,
};
use futures::stream;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;
use tokio::{task::yield_now, time::sleep};

use super::{
    errors, headers,
    record::{Ended, Log, Open},
    route::{self, Ask, Wire},
    script::{Head, Reply, Script, Step},
    trigger,
};
use socket::{Breaker, Sockets};

mod socket;

/// Anthropic's limit on a body; the other wire has it here too.
const MAX_BODY: usize = 32 * 1024 * 1024;

pub(super) struct Shared {
    key: String,
    queue: Mutex<VecDeque<(Option<String>, Script)>>,
    pub(super) log: Arc<Log>,
}

impl Shared {
    pub(super) fn new(key: &str) -> Self {
        Self { key: key.to_owned(), queue: Mutex::default(), log: Arc::new(Log::new()) }
    }

    pub(super) fn enqueue(&self, path: Option<String>, script: Script) {
        self.queue.lock().unwrap().push_back((path, script));
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.lock().unwrap().len()
    }

    fn script(&self, is_post: bool, path: &str) -> Option<Script> {
        let mut queue = self.queue.lock().unwrap();
        let at = queue.iter().position(|(only, _)| {
            only.as_ref().map_or(is_post, |only| path.ends_with(only.as_str()))
        })?;
        queue.remove(at).map(|(_, script)| script)
    }
}

pub(super) async fn run(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let app = Router::new().fallback(handle).with_state(shared);
    let listener = Sockets::new(listener);
    let service = app.into_make_service_with_connect_info::<Breaker>();
    axum::serve(listener, service).await.expect("serving does not fail");
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(breaker): ConnectInfo<Breaker>,
    request: Request,
) -> Result<Response, Infallible> {
    let (head, body) = request.into_parts();
    // Beyond the limit the vendor answers without looking; what was sent is not recorded.
    let (body, fits) =
        to_bytes(body, MAX_BODY).await.map_or_else(|_| (Default::default(), false), |b| (b, true));
    let json = serde_json::from_slice(&body);
    let path_and_query = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let open =
        shared.log.arrived(head.method.clone(), path_and_query, head.headers.clone(), body.clone());
    let number = open.number;
    let path = head.uri.path();
    let mut json: Result<Value, _> = json;
    let vertex = route::vertex(&head.method, &head.uri);
    let (wire, route) = match &vertex {
        Some(vertex) => (vertex.wire, Some(vertex.route.clone())),
        None => route::find(&head.method, path, &head.headers),
    };
    let mut is_known = true;
    if let (Some(vertex), Ok(body)) = (&vertex, &mut json) {
        is_known = route::is_vertex_body(vertex, body);
        body["model"] = vertex.model.clone().into();
        body["stream"] = vertex.streams.into();
    }
    let is_post = head.method == http::Method::POST;
    let reply = if !fits {
        errors::reply(wire, 413, number)
    } else if !route::authorized(wire, &head.headers, &shared.key) {
        errors::reply(wire, 401, number)
    } else {
        match (route, json) {
            (None, _) => errors::reply(wire, 404, number),
            _ if !is_known => errors::reply(wire, 400, number),
            (Some(_), Err(_)) if is_post => errors::reply(wire, 400, number),
            (Some(route), json) => {
                let ask = Ask { wire, route, body: json.unwrap_or_default(), number };
                match shared.script(is_post, path) {
                    Some(Script::Reply(reply)) => reply,
                    Some(Script::Model(model)) => trigger::reply(&ask, &model),
                    None => trigger::reply(&ask, ask.model()),
                }
            }
        }
    };
    Ok(respond(wire, reply, open, breaker).await)
}

async fn respond(wire: Wire, reply: Reply, open: Open, breaker: Breaker) -> Response {
    match reply.head {
        Head::Now => {}
        Head::After(pause) => sleep(pause).await,
        Head::Never => pending().await,
    }
    let mut all = headers::vendor(wire, open.number);
    let mut given = http::HeaderMap::new();
    for (name, value) in &reply.headers {
        let name = HeaderName::try_from(name).expect("a header name");
        given.append(name, HeaderValue::try_from(value).expect("a header value"));
    }
    let is_stream =
        given.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"text/event"));
    all.extend(given);
    if is_stream {
        all.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
    } else if let Some(length) = length(&reply.steps) {
        all.entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    let mut response = Response::new(play(reply.steps, open, breaker));
    *response.status_mut() = StatusCode::from_u16(reply.status).expect("a status");
    *response.headers_mut() = all;
    response
}

/// Of a body that will be sent in full.
fn length(steps: &[Step]) -> Option<usize> {
    steps.iter().try_fold(0, |sum, step| match step {
        Step::Bytes(bytes) => Some(sum + bytes.len()),
        Step::Pause(_) => Some(sum),
        Step::Stall | Step::Reset | Step::Close | Step::End => None,
    })
}

struct Play {
    steps: VecDeque<Step>,
    open: Open,
    breaker: Breaker,
}

fn play(steps: Vec<Step>, open: Open, breaker: Breaker) -> Body {
    let play = Play { steps: steps.into(), open, breaker };
    Body::from_stream(stream::unfold(play, |mut play| async move {
        loop {
            // Being pending once makes hyper flush what it has, so that no two chunks are merged.
            yield_now().await;
            match play.steps.pop_front() {
                Some(Step::Bytes(bytes)) => {
                    // With a content length hyper does not ask for more than that.
                    let more = play.steps.iter().any(|step| !matches!(step, Step::Pause(_)));
                    if !more {
                        play.open.end(Ended::Finished);
                    }
                    return Some((Ok(bytes), play));
                }
                Some(Step::Pause(pause)) => sleep(pause).await,
                Some(Step::Stall) => pending().await,
                Some(step @ (Step::Reset | Step::Close)) => {
                    if matches!(step, Step::Reset) {
                        play.breaker.reset();
                    }
                    play.open.end(Ended::Broken);
                    play.steps.clear();
                    return Some((Err(io::Error::other("broken by the script")), play));
                }
                Some(Step::End) | None => {
                    play.open.end(Ended::Finished);
                    return None;
                }
            }
        }
    }))
}
