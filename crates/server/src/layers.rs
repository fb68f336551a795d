//! What surrounds every request: its id, its span and one log line, metrics, panics, time limits, and
//! the last touch on errors.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use loom_auth::Auth;
use loom_core::{
    Clock, Error,
    id::new_uuid,
    principal::{Authentication, RequestInfo},
    telemetry,
};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tracing::Instrument;

use crate::{
    client_address::Proxies,
    otlp::Sampler,
    trace::{self, Traced},
    unread::Unread,
};

const REQUEST_ID: &str = "x-request-id";

/// The peer of a connection, put there by the accept loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub SocketAddr);

/// Asked by machines, again and again, and most of all when something is wrong.
const PROBES: [&str; 4] = ["/health", "/health/live", "/health/ready", "/metrics"];

/// What the outermost layer needs.
#[derive(Clone)]
pub(crate) struct Outermost {
    pub(crate) clock: Clock,
    pub(crate) auth: Auth,
    pub(crate) proxies: Proxies,
    /// None: no request is traced.
    pub(crate) sampler: Option<Sampler>,
}

/// The outermost layer: who is asking, and what became of it.
pub(crate) async fn observe(
    State(outermost): State<Outermost>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let id = request_id(&parts, &outermost.clock);
    let ip = parts.extensions.get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
    let ip = outermost.proxies.client(ip, &parts.headers);
    let info = RequestInfo { id: Arc::clone(&id), ip };
    parts.extensions.insert(info.clone());
    let route = parts.extensions.get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("(none)", MatchedPath::as_str);
    let method = method_label(&parts.method);
    let parent = trace::parent(&parts.headers);
    let traced = Traced::begin(outermost.sampler, parent, &outermost.clock);
    let context = traced.as_ref().map(|traced| traced.context);
    let trace_id = context.or(parent).map(|place| format!("{:032x}", place.trace_id));
    let span = tracing::info_span!("request", request_id = &*id, trace_id);
    let in_flight = InFlight::new();
    let (body, unread) = Unread::watch(body, &parts.headers);
    let handled = async {
        // Probes are for everybody, and must not wait for the database to know who asks. Applications show
        // the keys of their projects, which are no credentials here and nobody's guesses at one.
        let authentication = if PROBES.contains(&route) || loom_ingest::is_sentry_route(route) {
            Authentication::Anonymous
        } else {
            outermost.auth.authenticate(&parts).await
        };
        if let (Some(traced), Authentication::Known(principal)) = (&traced, &authentication) {
            let _ = traced.org.set(principal.org);
        }
        parts.extensions.insert(authentication.clone());
        let answer = next.run(Request::from_parts(parts, body)).await;
        if let (Authentication::Known(principal), Some(error)) =
            (&authentication, answer.extensions().get::<Error>())
            && error.code() == "forbidden"
        {
            outermost.auth.note_denied(principal, &info, method, route);
        }
        answer
    };
    let answer = {
        let handled = telemetry::within(context, handled);
        AssertUnwindSafe(handled).catch_unwind().instrument(span).await
    };
    unread.drain().await;
    drop(in_flight);

    let mut response = answer.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let what = what.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Error::internal(format!("a handler panicked: {what}")).into_response()
    });
    let error = response.extensions().get::<Error>().cloned();
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/problem+json");
    if let Some(error) = error.clone().filter(|_| is_problem) {
        response = name_request(&response, error, &id);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().entry(REQUEST_ID).or_insert(value);
    }
    let line = Line {
        id: &id,
        trace_id: trace_id.as_deref(),
        method,
        route,
        ip,
        status: response.status(),
        elapsed: started.elapsed(),
    };
    line.log(error.as_ref());
    line.measure();
    if let Some(traced) = traced {
        let code = error.as_ref().map(Error::code);
        traced.end(method, route, line.status, code, &id, line.elapsed);
    }
    response
}

/// Counts a request while it is being handled, also when its client goes away.
struct InFlight;

impl InFlight {
    fn new() -> Self {
        IN_FLIGHT.with(|gauge| gauge.increment(1));
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        IN_FLIGHT.with(|gauge| gauge.decrement(1));
    }
}

/// Any word can stand as a method; only the usual ones become labels.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// The client's own id when it is a sane one, else a new one.
fn request_id(request: &Parts, clock: &Clock) -> Arc<str> {
    request
        .headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| {
            (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        })
        .map_or_else(|| new_uuid(clock.now()).to_string().into(), Into::into)
}

/// The same error with the request's id in its document; headers that were set on the way stay, all
/// but those that tell of the former body.
fn name_request(response: &Response, error: Error, id: &str) -> Response {
    let mut named = error.respond(id);
    let of_the_body = [header::CONTENT_LENGTH, header::CONTENT_ENCODING];
    for name in response.headers().keys().filter(|name| !of_the_body.contains(name)) {
        if !named.headers().contains_key(name) {
            for value in response.headers().get_all(name) {
                named.headers_mut().append(name, value.clone());
            }
        }
    }
    named
}

/// What became of a request.
struct Line<'a> {
    id: &'a str,
    trace_id: Option<&'a str>,
    method: &'static str,
    route: &'a str,
    ip: IpAddr,
    status: StatusCode,
    elapsed: Duration,
}

impl Line<'_> {
    /// Outside the request's span: the line says all of it by itself.
    fn log(&self, error: Option<&Error>) {
        let Line { id: request_id, trace_id, method, route, ip, .. } = *self;
        let duration_ms = self.elapsed.as_secs_f64() * 1e3;
        let status = self.status.as_u16();
        match error {
            Some(error) if status >= 500 => tracing::error!(
                request_id, trace_id, method, route, status, duration_ms, peer = %ip,
                code = error.code(), detail = error.detail(), cause = error.cause(), "request"
            ),
            Some(error) => tracing::info!(
                request_id, trace_id, method, route, status, duration_ms, peer = %ip,
                code = error.code(), detail = error.detail(), "request"
            ),
            None => {
                tracing::info!(request_id, trace_id, method, route, status, duration_ms, peer = %ip, "request");
            }
        }
    }

    fn measure(&self) {
        MEASURES.with_borrow_mut(|measures| {
            if !measures.contains_key(self.route) {
                measures.insert(self.route.to_owned(), Vec::new());
            }
            let Some(of_route) = measures.get_mut(self.route) else { return };
            let same = |m: &&Measure| m.method == self.method && m.status == self.status;
            if of_route.iter().find(same).is_none() {
                of_route.push(Measure::new(self));
            }
            if let Some(measure) = of_route.iter().find(same) {
                measure.requests.increment(1);
                measure.seconds.record(self.elapsed.as_secs_f64());
            }
        });
    }
}

thread_local! {
    /// By route template. Looking a metric up by its labels costs more than all that is measured here.
    static MEASURES: RefCell<HashMap<String, Vec<Measure>>> = RefCell::default();
    static IN_FLIGHT: Gauge = gauge!("loom_http_requests_in_flight");
}

struct Measure {
    method: &'static str,
    status: StatusCode,
    requests: Counter,
    seconds: Histogram,
}

impl Measure {
    fn new(line: &Line<'_>) -> Self {
        let (method, route, status) =
            (line.method, line.route.to_owned(), line.status.as_str().to_owned());
        Self {
            method,
            status: line.status,
            requests: counter!("loom_http_requests_total", "method" => method, "route" => route.clone(), "status" => status),
            seconds: histogram!("loom_http_request_seconds", "method" => method, "route" => route),
        }
    }
}

/// A limit on the time until a response begins; streams go on behind it.
pub(crate) async fn time_limit(
    State(limit): State<Duration>,
    request: Request,
    next: Next,
) -> Response {
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        Error::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "timeout",
            format!(
                "this took longer than {} s and was given up; nothing half done remains",
                limit.as_secs()
            ),
        )
        .retry_after(Duration::from_secs(1))
        .into_response()
    })
}

/// No route has this path.
/// The dashboard's addresses are the page's, in a browser.
pub(crate) async fn no_such_route(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if let Some(page) = loom_dashboard::page(&method, &uri, &headers) {
        return page;
    }
    Error::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is no such route; GET /api/openapi.json lists them all",
    )
    .into_response()
}

/// The route exists, with another method.
pub(crate) async fn wrong_method() -> Error {
    Error::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this route takes another method; see `allow`",
    )
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use axum::{Router, body::Body, middleware::from_fn_with_state, routing::get};
    use futures::future::BoxFuture;
    use tower::ServiceExt;

    use super::*;

    fn app() -> Router {
        // Whoever makes an HTTP client needs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fail = || -> BoxFuture<'static, &'static str> {
            Box::pin(async { panic!("password hunter2 in src/secret.rs") })
        };
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            "at last"
        };
        let (clock, database) = (Clock::system(), loom_db::Database::disconnected());
        let notify =
            loom_notify::Notify::silent(database.pool().clone(), clock.clone(), &[]).unwrap();
        let auth =
            Auth::new(database.pool().clone(), clock.clone(), notify, Default::default()).unwrap();
        let outermost = Outermost { clock, auth, proxies: Proxies::default(), sampler: None };
        Router::new()
            .route("/fail", get(fail))
            .route("/slow", get(slow))
            .route("/well", get(|| async { "well" }))
            .layer(from_fn_with_state(Duration::from_secs(30), time_limit))
            .layer(from_fn_with_state(outermost, observe))
    }

    async fn ask(app: &Router, path: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::get(path).header(REQUEST_ID, "req-1").body(Body::empty()).unwrap();
        let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_handler_that_panics_answers_500_without_its_inside_and_others_go_on() {
        let app = app();
        for _ in 0..2 {
            let (status, headers, text) = ask(&app, "/fail").await;
            assert_eq!(status, 500);
            assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(headers[REQUEST_ID], "req-1");
            let problem: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (&problem["code"], &problem["request_id"]),
                (&"internal".into(), &"req-1".into())
            );
            assert!(!text.contains("hunter2") && !text.contains(".rs"), "{text}");
            assert_eq!(ask(&app, "/well").await.2, "well");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_takes_too_long_is_given_up_with_a_503() {
        let started = tokio::time::Instant::now();
        let (status, headers, text) = ask(&app(), "/slow").await;
        assert_eq!(status, 503);
        assert_eq!(headers[header::RETRY_AFTER], "1");
        assert!(text.contains("\"timeout\""), "{text}");
        assert_eq!(started.elapsed().as_secs(), 30);
    }

    #[test]
    fn an_error_that_was_compressed_on_the_way_is_renamed_as_what_it_is() {
        let mut response = Error::not_found("thread").into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        let named = name_request(&response, Error::not_found("thread"), "req-1");
        assert!(!named.headers().contains_key(header::CONTENT_ENCODING));
        assert_eq!(named.headers().get_all(header::VARY).iter().count(), 2);
        assert_eq!(named.headers().get_all(header::CONTENT_TYPE).iter().count(), 1);
    }
}
