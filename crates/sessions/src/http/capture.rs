//! Sessions told over the native routes: by somebody who is signed in, by a key, or by an application with
//! its project's DSN key from the origins that the project allows.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use loom_core::{
    Error, Json, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    extract::{parse_json, require_json},
    id::{OrgId, new_uuid},
    origin,
    port::{DsnKey, Project, Reported},
    principal::{Authentication, Scope},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    Sessions,
    session::{Class, Session},
    store::intake,
    wire,
};

const KEY: &str = "x-crash-api-key";
const MAX_BODY_BYTES: usize = 100 << 10;

/// A project's routes for what is told of sessions; each also under `/api/sessions`.
pub(crate) fn routes(sessions: &Sessions) -> OpenApiRouter {
    let documented = OpenApiRouter::new()
        .routes(routes!(start_app_session))
        .routes(routes!(update_app_session))
        .routes(routes!(end_app_session));
    let other_names: Router<Sessions> = Router::new()
        .route("/api/sessions/start", post(start_app_session))
        .route("/api/sessions/update", post(update_app_session))
        .route("/api/sessions/end", post(end_app_session));
    documented
        .merge(OpenApiRouter::from(other_names))
        .layer(middleware::from_fn(cross_origin))
        .with_state(sessions.clone())
}

/// Whether a page of this origin may send, as the handler found out.
#[derive(Clone)]
struct Allowed(HeaderValue);

/// Answers what browsers ask before, and says in the answer what the project allows.
async fn cross_origin(request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let Some(origin) = origin else { return next.run(request).await };
    if request.method() == Method::OPTIONS {
        // Which project it is about is not said yet; the request itself is checked.
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
            (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST")),
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("content-type, x-crash-api-key"),
            ),
            (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600")),
            (header::VARY, HeaderValue::from_static("origin")),
        ];
        return (StatusCode::NO_CONTENT, headers).into_response();
    }
    let mut response = next.run(request).await;
    if let Some(Allowed(origin)) = response.extensions_mut().remove() {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("retry-after, x-request-id"),
        );
    }
    response
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AppSessionStatus)]
pub(crate) enum Status {
    #[default]
    Active,
    Exited,
    Errored,
    Unhandled,
    Abnormal,
    Crashed,
}

/// What is told of a session.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = AppSessionUpdate)]
pub(crate) struct SessionUpdate {
    /// Id, number or slug; with a DSN key it may be absent.
    #[expect(dead_code, reason = "`Named` reads it, before the rest is looked at")]
    project_id: Option<serde_json::Value>,
    /// Best a UUID; a start without one is given one.
    session_id: Option<String>,
    /// Who uses the application: any text that is the same each time. A digest of it is kept.
    distinct_id: Option<String>,
    /// Needed, unless the session is known.
    release: Option<String>,
    /// `production` when absent.
    environment: Option<String>,
    status: Option<Status>,
    #[serde(alias = "error_count")]
    errors: Option<i64>,
    /// Within the last five days.
    started_at: Option<DateTime<Utc>>,
    duration_ms: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AppSessionTaken)]
pub(crate) struct SessionTaken {
    /// As it is kept.
    session_id: Uuid,
    /// False: it is not among the share of sessions that this server keeps. Told again as crashed, it is.
    sampled: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Start,
    Update,
    End,
}

/// Tell that a session has begun.
#[utoipa::path(
    post,
    path = "/api/app-sessions/start",
    operation_id = "start_app_session",
    tag = "app-sessions",
    request_body = SessionUpdate,
    params(("x-crash-api-key" = Option<String>, Header, description = "The key in a project's DSN, in place of a credential")),
    responses(
        (status = 200, description = "Stored; the same again changes nothing", body = SessionTaken),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`sessions:write` is missing, or the origin is not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such project", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body comes too slowly", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "A rate limit of the key or the organisation is reached", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no memory for the body just now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn start_app_session(
    State(sessions): State<Sessions>,
    request: Request,
) -> Response {
    answer(&sessions, Verb::Start, request).await
}

/// Tell how a session goes on.
#[utoipa::path(
    post,
    path = "/api/app-sessions/update",
    operation_id = "update_app_session",
    tag = "app-sessions",
    request_body = SessionUpdate,
    params(("x-crash-api-key" = Option<String>, Header, description = "The key in a project's DSN, in place of a credential")),
    responses(
        (status = 200, description = "Stored. A session never becomes better than it was", body = SessionTaken),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`sessions:write` is missing, or the origin is not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such project; or no such session, and no `release` to make it with", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body comes too slowly", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "A rate limit of the key or the organisation is reached", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no memory for the body just now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn update_app_session(
    State(sessions): State<Sessions>,
    request: Request,
) -> Response {
    answer(&sessions, Verb::Update, request).await
}

/// Tell that a session has ended.
#[utoipa::path(
    post,
    path = "/api/app-sessions/end",
    operation_id = "end_app_session",
    tag = "app-sessions",
    request_body = SessionUpdate,
    params(("x-crash-api-key" = Option<String>, Header, description = "The key in a project's DSN, in place of a credential")),
    responses(
        (status = 200, description = "Stored; an end told again changes nothing", body = SessionTaken),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`sessions:write` is missing, or the origin is not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such project; or no such session, and no `release` to make it with", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body comes too slowly", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "A rate limit of the key or the organisation is reached", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no memory for the body just now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn end_app_session(
    State(sessions): State<Sessions>,
    request: Request,
) -> Response {
    answer(&sessions, Verb::End, request).await
}

async fn answer(sessions: &Sessions, verb: Verb, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut allowed = None;
    let taken = take(sessions, verb, &parts, body, &mut allowed).await;
    let mut response = match taken {
        Ok(taken) => Json(taken).into_response(),
        Err(error) => error.into_response(),
    };
    if let Some(allowed) = allowed {
        response.extensions_mut().insert(allowed);
    }
    response
}

/// Who tells.
enum Sender {
    Key(Arc<DsnKey>),
    Known(Principal),
}

impl Sender {
    fn org(&self) -> OrgId {
        match self {
            Self::Key(key) => key.project.org,
            Self::Known(principal) => principal.org,
        }
    }

    fn key(&self) -> Option<&DsnKey> {
        match self {
            Self::Key(key) => Some(key),
            Self::Known(_) => None,
        }
    }
}

/// Before the body is read: nobody gets so far without a good key.
async fn sender(
    sessions: &Sessions,
    parts: &Parts,
    allowed: &mut Option<Allowed>,
) -> Result<Sender> {
    let headers: &HeaderMap = &parts.headers;
    let Some(key) = headers.get(KEY) else {
        let principal: Principal = match parts.extensions.get::<Authentication>() {
            Some(Authentication::Known(principal)) => principal.clone(),
            Some(Authentication::Refused(error)) => return Err(error.clone()),
            Some(Authentication::Anonymous) | None => {
                return Err(Error::unauthenticated(
                    "send an API key with `sessions:write` as `Authorization: Bearer <key>`, or the key in \
                     the project's DSN as `x-crash-api-key`",
                ));
            }
        };
        authorize(&principal, Action::Use(Scope::SessionsWrite))?;
        return Ok(Sender::Known(principal));
    };
    let unknown = || Error::unauthenticated("this is the key of no project, or it is switched off");
    let key = key.to_str().map_err(|_| unknown())?.trim().to_ascii_lowercase();
    let found = sessions.deps.projects.by_key(&key).await?;
    let key = found.filter(|key| key.enabled).ok_or_else(unknown)?;
    if let Some(from) = headers.get(header::ORIGIN) {
        if !origin::is_allowed(&key.project.allowed_origins, from.to_str().unwrap_or_default()) {
            return Err(Error::forbidden(
                "pages of this origin may not send to the project; add it to `allowed_origins`",
            ));
        }
        *allowed = Some(Allowed(from.clone()));
    }
    Ok(Sender::Key(key))
}

async fn project_of(
    sessions: &Sessions,
    sender: &Sender,
    named: Option<String>,
) -> Result<Arc<Project>> {
    match sender {
        Sender::Known(principal) => {
            let named = named.ok_or_else(|| Error::invalid("project_id", "is missing"))?;
            sessions.project(principal, &named).await
        }
        Sender::Key(key) => {
            let project = Arc::clone(&key.project);
            let is_it = |name: &str| {
                name == project.slug
                    || name == project.number.to_string()
                    || name.eq_ignore_ascii_case(&project.id.to_string())
            };
            if named.is_some_and(|named| !is_it(&named)) {
                let message = "is not the project that the key belongs to";
                return Err(Error::invalid("project_id", message));
            }
            Ok(project)
        }
    }
}

async fn take(
    sessions: &Sessions,
    verb: Verb,
    parts: &Parts,
    body: Body,
    allowed: &mut Option<Allowed>,
) -> Result<SessionTaken> {
    let sender = sender(sessions, parts, allowed).await?;
    let gate = &sessions.deps.gate;
    let body = gate.read(sender.org(), &parts.headers, body, MAX_BODY_BYTES).await?;
    // Who may is decided before what is sent is looked at closely.
    let named = serde_json::from_slice::<Named>(&body.bytes)
        .ok()
        .and_then(|named| project_name(named.project_id.as_ref()));
    let project = project_of(sessions, &sender, named).await?;
    require_json(&parts.headers)?;
    gate.count(project.org, sender.key(), Reported::Session, sessions.now())?;
    let update: SessionUpdate = parse_json(&body.bytes)?;
    let session = read(sessions, verb, &project, update).await?;
    let session_id = session.sid;
    Ok(SessionTaken { session_id, sampled: sessions.take(session).await? })
}

/// Whose it is, of a body that may be wrong in all else.
#[derive(Deserialize)]
struct Named {
    project_id: Option<serde_json::Value>,
}

fn project_name(value: Option<&serde_json::Value>) -> Option<String> {
    match value? {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

async fn read(
    sessions: &Sessions,
    verb: Verb,
    project: &Project,
    update: SessionUpdate,
) -> Result<Session> {
    let now = sessions.now();
    let sid = match update.session_id.as_deref() {
        Some(text) => {
            wire::session_id(text).map_err(|reason| Error::invalid("session_id", reason))?
        }
        None if verb == Verb::Start => new_uuid(now),
        None => return Err(Error::invalid("session_id", "is missing")),
    };
    let environment = || wire::environment(update.environment.as_deref());
    let (release, environment) = match update.release.as_deref() {
        Some(text) => (
            wire::release(text).map_err(|reason| Error::invalid("release", reason))?,
            environment(),
        ),
        None if verb == Verb::Start => return Err(Error::invalid("release", "is missing")),
        None => {
            let found = intake::find(&sessions.deps.pool, project.org, project.id, sid).await?;
            found.ok_or_else(|| Error::not_found("session"))?
        }
    };
    let (started, guessed) = match update.started_at {
        Some(at) => {
            let at = wire::began(at, now).map_err(|reason| Error::invalid("started_at", reason))?;
            (at, false)
        }
        None => (now, verb != Verb::Start),
    };
    let errors = update.errors.unwrap_or_default();
    let errors = i32::try_from(errors)
        .ok()
        .filter(|errors| *errors >= 0)
        .ok_or_else(|| Error::invalid("errors", "is a number from 0"))?;
    if update.duration_ms.is_some_and(|ms| !(0..=315_360_000_000).contains(&ms)) {
        return Err(Error::invalid("duration_ms", "is from 0 to ten years"));
    }
    let status = update.status.unwrap_or_default();
    let by_errors = if errors > 0 { Class::Errored } else { Class::Healthy };
    let class = match status {
        Status::Active | Status::Exited => by_errors,
        Status::Errored => Class::Errored,
        Status::Unhandled => Class::Unhandled,
        Status::Abnormal => Class::Abnormal,
        Status::Crashed => Class::Crashed,
    };
    Ok(Session {
        org: project.org,
        project: project.id,
        sid,
        started,
        guessed,
        release,
        environment,
        class,
        ended: verb == Verb::End || !matches!(status, Status::Active | Status::Errored),
        errors,
        duration_ms: update.duration_ms,
        user: update
            .distinct_id
            .as_deref()
            .and_then(|id| wire::user(&sessions.deps.salt, project.id.0, id)),
        count: 1,
        weight: sessions.weight(),
        updated_at: now,
    })
}
