//! Pings, as Healthchecks takes them: any method, the key in the path, answers in plain text.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
    routing::any,
};
use chrono::{DateTime, Utc};
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use loom_core::Result;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    Crons,
    draft::{MonitorDraft, is_environment, is_slug},
    model::{DEFAULT_ENVIRONMENT, Source},
    report::{Kind, Report, RunKey, believable},
    schedule::{Schedule, Unit},
};

/// A body is read to its end so that whoever sends it can send it all, but not for ever.
const MOST_READ: usize = 64 << 20;
const LONGEST_READ: Duration = Duration::from_secs(30);
/// Read beyond the limit: a secret that the limit would cut in two must be seen whole to be masked.
const SPARE: usize = 4096;

#[derive(Debug, Deserialize)]
struct PingQuery {
    rid: Option<String>,
    create: Option<String>,
    /// Beyond Healthchecks: in which environment, when, and how long it took. For what reports later.
    env: Option<String>,
    at: Option<String>,
    duration_ms: Option<i64>,
}

pub(crate) fn routes(crons: &Crons) -> Router {
    Router::new()
        .route("/ping/{key}", any(by_key))
        .route("/ping/{key}/", any(by_key))
        .route("/ping/{key}/{second}", any(by_two))
        .route("/ping/{key}/{second}/", any(by_two))
        .route("/ping/{key}/{second}/{action}", any(by_three))
        .route("/ping/{key}/{second}/{action}/", any(by_three))
        .with_state(crons.clone())
}

type Parameters = std::result::Result<Query<PingQuery>, QueryRejection>;

async fn by_key(
    State(crons): State<Crons>,
    Path(key): Path<String>,
    query: Parameters,
    request: Request,
) -> Response {
    let Ok(key) = key.parse::<Uuid>() else { return answer(&crons, 404, "not found") };
    ping(&crons, To::Key(key), "", query, request).await
}

async fn by_two(
    State(crons): State<Crons>,
    Path((key, second)): Path<(String, String)>,
    query: Parameters,
    request: Request,
) -> Response {
    match key.parse::<Uuid>() {
        Ok(key) => ping(&crons, To::Key(key), &second, query, request).await,
        Err(_) => ping(&crons, To::Slug(&key, &second), "", query, request).await,
    }
}

async fn by_three(
    State(crons): State<Crons>,
    Path((key, slug, action)): Path<(String, String, String)>,
    query: Parameters,
    request: Request,
) -> Response {
    ping(&crons, To::Slug(&key, &slug), &action, query, request).await
}

/// Whose ping it is.
enum To<'a> {
    Key(Uuid),
    /// Ping key and slug.
    Slug(&'a str, &'a str),
}

fn answer(crons: &Crons, status: u16, text: &'static str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    headers.insert("ping-body-limit", HeaderValue::from(crons.config.body_limit));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A refusal in words of the surface.
struct Refused(u16, &'static str);

async fn ping(
    crons: &Crons,
    to: To<'_>,
    action: &str,
    query: Parameters,
    request: Request,
) -> Response {
    let received_at = crons.deps.clock.now();
    let Ok(Query(query)) = query else { return answer(crons, 400, "invalid url format") };
    let output = body_of(request.into_body(), crons.config.body_limit).await;
    match take(crons, to, action, &query, output, received_at).await {
        Ok(Ok(created)) => {
            if created {
                answer(crons, 201, "Created")
            } else {
                answer(crons, 200, "OK")
            }
        }
        Ok(Err(Refused(status, text))) => answer(crons, status, text),
        Err(error) if error.status() == StatusCode::NOT_FOUND => answer(crons, 404, "not found"),
        Err(error) => {
            let text = match error.status() {
                StatusCode::TOO_MANY_REQUESTS => "rate limit exceeded",
                status if status.is_client_error() => "not accepted",
                _ => "not available; try again",
            };
            let after = error.retry_after_secs();
            tracing::warn!(?error, "a ping could not be taken");
            let mut response = answer(crons, error.status().as_u16(), text);
            if let Some(after) = after {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after));
            }
            response
        }
    }
}

/// True: the monitor was made.
async fn take(
    crons: &Crons,
    to: To<'_>,
    action: &str,
    query: &PingQuery,
    output: Option<String>,
    received_at: DateTime<Utc>,
) -> Result<std::result::Result<bool, Refused>> {
    let bad_url = Refused(400, "invalid url format");
    let (kind, exit_code) = match action {
        "" => (Kind::End { ok: true }, None),
        "start" => (Kind::Start, None),
        "fail" => (Kind::End { ok: false }, None),
        "log" => (Kind::Log, None),
        status if status.bytes().all(|c| c.is_ascii_digit()) => match status.parse::<u8>() {
            Ok(status) => (Kind::End { ok: status == 0 }, Some(i16::from(status))),
            Err(_) => return Ok(Err(bad_url)),
        },
        _ => return Ok(Err(bad_url)),
    };
    let key = match query.rid.as_deref().map(str::parse) {
        None => RunKey::Newest(false),
        Some(Ok(key)) => RunKey::Given(key),
        Some(Err(_)) => return Ok(Err(Refused(400, "invalid uuid format"))),
    };
    let at = match query.at.as_deref().map(time_of) {
        None => received_at,
        Some(Some(at)) => match believable(at, received_at) {
            Ok(at) => at,
            Err(_) => return Ok(Err(Refused(400, "invalid time"))),
        },
        Some(None) => return Ok(Err(Refused(400, "invalid time"))),
    };
    let environment = query.env.clone().unwrap_or_else(|| DEFAULT_ENVIRONMENT.to_owned());
    let longest = 366 * 86_400_000;
    if !is_environment(&environment)
        || query.duration_ms.is_some_and(|ms| !(0..=longest).contains(&ms))
    {
        return Ok(Err(bad_url));
    }
    let (monitor, created) = match to {
        To::Key(key) => match crons.engine.by_ping_key(key).await? {
            Some(monitor) => (monitor, false),
            None => return Ok(Err(Refused(404, "not found"))),
        },
        To::Slug(key, slug) => {
            let is_shaped =
                |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_".contains(&c);
            if !slug.bytes().all(is_shaped) {
                return Ok(Err(bad_url));
            }
            let digest = Sha256::digest(key.as_bytes()).into();
            let Some((org, project)) = crons.engine.key(digest).await? else {
                return Ok(Err(Refused(404, "not found")));
            };
            match crons.engine.by_slug(org, slug).await? {
                Some(monitor) => (monitor, false),
                None if query.create.as_deref() != Some("1") => {
                    return Ok(Err(Refused(404, "not found")));
                }
                None if !is_slug(slug) => return Ok(Err(bad_url)),
                None => {
                    // A day and an hour, as there.
                    let schedule = Schedule::Interval { value: 1, unit: Unit::Day };
                    let draft = MonitorDraft::plain(slug.to_owned(), schedule, 60.0);
                    let (wanted, _) = draft.check(org, project, "ping", received_at)?;
                    crons.upsert(wanted).await?
                }
            }
        }
    };
    let mut report = Report::new(
        monitor,
        environment,
        (key, kind),
        at,
        query.duration_ms,
        received_at,
        Source::Ping,
    );
    report.exit_code = exit_code;
    report.output = output;
    crons.submit(report).await?;
    Ok(Ok(created))
}

/// RFC 3339, or seconds since 1970.
fn time_of(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(secs) = text.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, reason = "what is too large is no time")]
        return DateTime::from_timestamp_millis((secs * 1000.0) as i64);
    }
    // A plus in a query is a space.
    DateTime::parse_from_rfc3339(&text.replace(' ', "+")).ok().map(|at| at.to_utc())
}

/// The beginning of a body as text, without secrets; None when there is none. The rest is read and dropped.
async fn body_of(mut body: Body, limit: usize) -> Option<String> {
    let mut kept = Vec::new();
    let mut read = 0;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(data) = frame.data_ref() else { continue };
            read += data.len();
            let room = (limit + SPARE).saturating_sub(kept.len()).min(data.len());
            kept.extend_from_slice(data.get(..room).unwrap_or_default());
            if read > MOST_READ {
                break;
            }
        }
    };
    // What has come by then is what there is.
    let _ = tokio::time::timeout(LONGEST_READ, reading).await;
    output(&String::from_utf8_lossy(&kept), limit)
}

/// What is kept of what a run wrote.
pub(crate) fn output(text: &str, limit: usize) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let text = text.replace('\0', "\u{fffd}");
    let text = loom_redact::shared().redact(&text);
    Some(loom_core::text::cut(&text, limit).to_owned())
}
