//! `POST /api/crash/capture` and `/batch`.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderMap, StatusCode, header, request::Parts};
use loom_core::{
    Error, Json, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    extract::{parse_json, require_json},
    id::{EventId, IssueId, OrgId, ProjectKeyId},
    origin,
    port::{Delivery, DsnKey, HeldBody, Project, ProjectDirectory, Reported, Taken},
    principal::{Authentication, RequestInfo, Scope},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{Crashes, event, intake::MAX_EVENT_BYTES};

const KEY: &str = "x-crash-api-key";
const MAX_BATCH: usize = 100;
/// Of a body with one event.
const MAX_BODY_BYTES: usize = 2 << 20;
/// Of a batch's body.
const MAX_BATCH_BYTES: usize = 16 << 20;

/// What became of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Captured {
    pub event_id: EventId,
    /// Null while it is still to be processed: it is stored, and will be.
    pub issue_id: Option<IssueId>,
    /// As `WEB-123`.
    pub short_id: Option<String>,
    pub is_new_issue: bool,
    /// It brought a resolved issue back.
    pub is_regression: bool,
}

/// What became of one of many: the event, or why there is none.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum BatchResult {
    Captured(Captured),
    Refused { error: Problem },
}

/// In the order of the events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchResults {
    pub results: Vec<BatchResult>,
}

/// Up to 100 events.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Batch {
    #[schema(value_type = Vec<Object>, max_items = 100)]
    pub events: Vec<Value>,
}

/// Who sends: with a project's key, or somebody who is known.
pub(crate) enum Sender {
    Key(Arc<DsnKey>),
    Org(OrgId),
}

impl Sender {
    fn org(&self) -> OrgId {
        match self {
            Self::Key(key) => key.project.org,
            Self::Org(org) => *org,
        }
    }

    fn key(&self) -> Option<&DsnKey> {
        match self {
            Self::Key(key) => Some(key),
            Self::Org(_) => None,
        }
    }
}

/// Before the body is read: nobody gets so far without a good key.
impl FromRequestParts<Crashes> for Sender {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, crashes: &Crashes) -> Result<Self> {
        let authentication = parts.extensions.get().cloned().unwrap_or(Authentication::Anonymous);
        crashes.sender(authentication, &parts.headers).await
    }
}

/// Send an event and learn what became of it
///
/// The simple form: `project_id` (id, number or slug; not with a project's key), `exception_type`, `exception_value`,
/// `stacktrace {frames[]}`, and what else an event may have (`release`, `environment`, `platform`, `tags`, `user`,
/// `breadcrumbs`, `extra`, `contexts`, `level`, `timestamp`, `fingerprint`, `session_id`, `thread_id`). An event as SDKs send it is taken, too.
/// With an `event_id` it can be sent again without counting twice. With `session_id` that session is one that crashed, unless the
/// error was handled (`handled: true`).
/// Authenticated by a key with `crashes:write`, or by the public key of a project's DSN in `x-crash-api-key`.
#[utoipa::path(post, path = "/api/crash/capture", tag = "crashes", security(("api_key" = []), ()),
    params(("x-crash-api-key" = Option<String>, Header, description = "The public key of a DSN: 32 hexadecimal digits")),
    request_body = Object,
    responses((status = 200, body = Captured),
        (status = 202, description = "Stored; its processing takes longer", body = Captured),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing, or the key is disabled, or the origin is not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such project", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body comes too slowly", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "A rate limit of the key or the organisation is reached", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no memory for the body just now", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn capture_crash(
    State(crashes): State<Crashes>,
    sender: Sender,
    info: RequestInfo,
    request: Request,
) -> Result<Response> {
    let (headers, body) = crashes.body(&sender, request, MAX_BODY_BYTES).await?;
    let event: Value = parse_json(&body.bytes)?;
    let captured = crashes.capture(&sender, &info, &headers, event).await?;
    let status = if captured.issue_id.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(captured)).into_response())
}

/// Send up to 100 events
///
/// Each as for `/api/crash/capture`; what is wrong with one costs no other. Each counts towards the rate limits of the key
/// and the organisation; one over them is refused in its place, with `rate_limited`.
#[utoipa::path(post, path = "/api/crash/batch", tag = "crashes", security(("api_key" = []), ()),
    params(("x-crash-api-key" = Option<String>, Header, description = "The public key of a DSN: 32 hexadecimal digits")),
    request_body = Batch,
    responses((status = 200, body = BatchResults),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing, or the key is disabled, or the origin is not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body comes too slowly", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no memory for the body just now", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn capture_crashes(
    State(crashes): State<Crashes>,
    sender: Sender,
    info: RequestInfo,
    request: Request,
) -> Result<Json<BatchResults>> {
    let (headers, body) = crashes.body(&sender, request, MAX_BATCH_BYTES).await?;
    let batch: Batch = parse_json(&body.bytes)?;
    if batch.events.len() > MAX_BATCH {
        return Err(Error::invalid("events", "has at most 100"));
    }
    let all =
        batch.events.into_iter().map(|event| crashes.capture(&sender, &info, &headers, event));
    let results = join_all(all).await.into_iter().map(|captured| match captured {
        Ok(captured) => BatchResult::Captured(captured),
        Err(error) => BatchResult::Refused { error: error.problem(&info.id) },
    });
    Ok(Json(BatchResults { results: results.collect() }))
}

impl Crashes {
    async fn sender(&self, authentication: Authentication, headers: &HeaderMap) -> Result<Sender> {
        if let Some(key) = headers.get(KEY) {
            let key = key.to_str().unwrap_or_default().trim().to_ascii_lowercase();
            let found = self.deps.directory.by_key(&key).await?.ok_or_else(|| {
                Error::unauthenticated("`x-crash-api-key` is no key of a project")
            })?;
            if !found.enabled {
                return Err(Error::forbidden("this key is disabled"));
            }
            // What is not sent by a page has none.
            let from = headers.get(header::ORIGIN).map(|from| from.to_str().unwrap_or_default());
            let allowed = &found.project.allowed_origins;
            if from.is_some_and(|from| !origin::is_allowed(allowed, from)) {
                return Err(Error::forbidden("the project does not take events of this origin"));
            }
            return Ok(Sender::Key(found));
        }
        let principal: Principal = match authentication {
            Authentication::Known(principal) => principal,
            Authentication::Refused(error) => return Err(error),
            Authentication::Anonymous => {
                return Err(Error::unauthenticated(
                    "send an API key as `Authorization: Bearer <key>`, or the public key of the project as \
                     `x-crash-api-key`",
                ));
            }
        };
        authorize(&principal, Action::Use(Scope::CrashesWrite))?;
        Ok(Sender::Org(principal.org))
    }

    async fn body(
        &self,
        sender: &Sender,
        request: Request,
        limit: usize,
    ) -> Result<(HeaderMap, HeldBody)> {
        let (parts, body) = request.into_parts();
        require_json(&parts.headers)?;
        let body = self.deps.gate.read(sender.org(), &parts.headers, body, limit).await?;
        Ok((parts.headers, body))
    }

    async fn capture(
        &self,
        sender: &Sender,
        info: &RequestInfo,
        headers: &HeaderMap,
        event: Value,
    ) -> Result<Captured> {
        let (project, key) = self.project_of(sender, &event).await?;
        let now = self.deps.clock.now();
        self.deps.gate.count(project.org, sender.key(), Reported::Event, now)?;
        let given_id = event_id(&event)?;
        let id = given_id.unwrap_or_else(|| EventId::new(now));
        let session = Session::of(&event);
        let event = event::from_simple(event).map_err(Error::invalid_fields)?;
        let payload = serde_json::to_vec(&event).map_err(Error::internal)?;
        if payload.len() > MAX_EVENT_BYTES {
            return Err(Error::too_large("an event is at most 1 MiB of JSON"));
        }
        let text = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
        let delivery = Delivery {
            project,
            key,
            received_at: now,
            sent_at: None,
            client: Some(info.ip),
            user_agent: text("user-agent"),
            sdk: None,
        };
        let place = (delivery.project.id, id);
        let waits = self.pipeline.waiting.wait(place);
        if let Taken::Rejected(reason) = self.take(&delivery, id, Bytes::from(payload)).await? {
            return Err(Error::invalid("", reason));
        }
        if let Some(session) = session {
            let Session { id, release, environment } = session;
            let at = delivery.received_at;
            self.deps.sessions.crashed(&delivery, &id, &release, &environment, at).await?;
        }
        let became = self.await_grouping(place, now, given_id.is_some(), waits).await?;
        Ok(match became {
            Some(became) => Captured {
                event_id: id,
                issue_id: Some(became.issue_id),
                short_id: Some(became.short_id),
                is_new_issue: became.is_new_issue,
                is_regression: became.is_regression,
            },
            None => Captured {
                event_id: id,
                issue_id: None,
                short_id: None,
                is_new_issue: false,
                is_regression: false,
            },
        })
    }

    async fn project_of(
        &self,
        sender: &Sender,
        event: &Value,
    ) -> Result<(Arc<Project>, Option<ProjectKeyId>)> {
        let named = match event.get("project_id").or_else(|| event.get("project")) {
            Some(Value::String(named)) => Some(named.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        match sender {
            Sender::Key(key) => {
                let other = match &named {
                    Some(named) => {
                        let found = self.deps.directory.find(key.project.org, named).await?;
                        found.is_none_or(|found| found.id != key.project.id)
                    }
                    None => false,
                };
                if other {
                    return Err(Error::forbidden("the key is of another project"));
                }
                Ok((Arc::clone(&key.project), Some(key.id)))
            }
            Sender::Org(org) => {
                let named = named.ok_or_else(|| {
                    Error::invalid("project_id", "is missing: the id, number or slug of a project")
                })?;
                let found = self.deps.directory.find(*org, &named).await?;
                Ok((found.ok_or_else(crate::projects::not_found)?, None))
            }
        }
    }
}

fn event_id(event: &Value) -> Result<Option<EventId>> {
    match event.get("event_id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => id
            .parse()
            .map(Some)
            .map_err(|_| Error::invalid("event_id", "is a UUID, with or without dashes")),
        Some(_) => Err(Error::invalid("event_id", "is a text")),
    }
}

/// The session that an event of the simple form says has crashed.
struct Session {
    id: String,
    release: String,
    environment: String,
}

impl Session {
    fn of(event: &Value) -> Option<Self> {
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        let is_error = text("exception_type").is_some() || event.get("exception").is_some();
        let is_mild = matches!(text("level"), Some("debug" | "info" | "warning"));
        let is_handled = event.get("handled").and_then(Value::as_bool) == Some(true);
        if !is_error || is_mild || is_handled {
            return None;
        }
        Some(Self {
            id: text("session_id")?.to_owned(),
            // A session belongs to a release.
            release: text("release")?.to_owned(),
            environment: text("environment").unwrap_or_default().to_owned(),
        })
    }
}
