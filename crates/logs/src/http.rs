//! The routes: lines, the stream of them, the servers there are; and what servers ask each other.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode, Uri, header, request::Parts};
use loom_core::{
    Error, Json, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    port::{Audit, Reauthenticate},
    principal::{RequestInfo, Scope, required},
    sse::{self, Recheck},
};
use serde::Serialize;
use serde_json::json;
use tracing::Instrument as _;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    Logs,
    filter::{Filter, line_id},
    model::{Lines, LogQuery},
    read,
    render::WATCHING_SPAN,
    replicas::{
        peer,
        store::{self, ReplicaRow},
    },
    watch::{self, Leash},
};

const LINES: &str = "/internal/logs";
const STREAM: &str = "/internal/logs/stream";

#[derive(Clone)]
struct Admin {
    logs: Logs,
    audit: Arc<dyn Audit>,
    who: Arc<dyn Reauthenticate>,
}

impl Logs {
    /// The admin routes, and those for the other servers.
    pub fn routes(&self, audit: Arc<dyn Audit>, who: Arc<dyn Reauthenticate>) -> OpenApiRouter {
        let peers = Router::new()
            .route(LINES, get(peer_lines))
            .route(STREAM, get(peer_stream))
            .route_layer(middleware::from_fn(quietly))
            .with_state(self.clone());
        OpenApiRouter::new()
            .routes(routes!(list_log_lines))
            .routes(routes!(stream_log_lines))
            .route_layer(middleware::from_fn(quietly))
            .routes(routes!(list_replicas))
            .route_layer(middleware::from_fn(required))
            .with_state(Admin { logs: self.clone(), audit, who })
            .merge(peers.into())
    }
}

/// What is logged here is not for those who watch. The span is there at every level.
async fn quietly(request: Request, next: Next) -> Response {
    next.run(request).instrument(tracing::error_span!(WATCHING_SPAN)).await
}

/// The newest lines of the log
///
/// Of one server, from memory: what it kept of the lines since it started. With `after_id`: the lines
/// behind that one, and `gap` when some of them are gone. Reading is recorded in the audit log.
#[utoipa::path(get, path = "/api/admin/logs", tag = "logs", security(("api_key" = [])),
    params(LogQuery),
    responses((status = 200, body = Lines),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins and auditors", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such replica", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`replica_unreachable`: nobody knows its address", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`replica_unreachable`: it does not answer", body = Problem, content_type = "application/problem+json")))]
async fn list_log_lines(
    State(admin): State<Admin>,
    principal: Principal,
    info: RequestInfo,
    Query(query): Query<LogQuery>,
) -> Result<Response> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    let filter = Filter::new(&query)?;
    let other = admin.replica(&query).await?;
    admin.record(&principal, &info, "logs.read", &query).await?;
    if let Some(replica) = other {
        let answer = peer::ask(&admin.logs, &replica, LINES, &query, &principal.holder()).await?;
        return peer::pass_on(answer).await;
    }
    lines(&admin.logs, filter).await
}

/// The log as it grows
///
/// Server-sent events: one per line, `data` as in the list and `id` to resume from with
/// `Last-Event-ID` (or `after_id`); without either it begins with the next line. `event: gap`
/// (`missed`, `from`, `to`) stands where lines are missing. A comment every 15 s, `event: bye` at the
/// end: after an hour (`max_duration`), when the credential is not good any more (`revoked`, looked at
/// each minute), or when the server goes down (`shutdown`). Recorded in the audit log.
#[utoipa::path(get, path = "/api/admin/logs/stream", tag = "logs", security(("api_key" = [])),
    params(LogQuery, ("Last-Event-ID" = Option<String>, Header, description = "The id of the last line seen")),
    responses((status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins and auditors", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such replica", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`replica_unreachable`: nobody knows its address", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_watchers`: 20 of a server, 3 of one user", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`replica_unreachable`: it does not answer", body = Problem, content_type = "application/problem+json")))]
async fn stream_log_lines(
    State(admin): State<Admin>,
    principal: Principal,
    info: RequestInfo,
    Query(mut query): Query<LogQuery>,
    parts: Parts,
) -> Result<Response> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    if let Some(id) = parts.headers.get("last-event-id") {
        let id = id.to_str().unwrap_or("?");
        line_id("Last-Event-ID", id)?;
        query.after_id = Some(id.to_owned());
    }
    let filter = Filter::new(&query)?;
    let logs = &admin.logs;
    let leash = Leash::new(logs.stop.clone(), admin.recheck(parts));
    if let Some(replica) = admin.replica(&query).await? {
        admin.record(&principal, &info, "logs.watch", &query).await?;
        let answer = peer::ask(logs, &replica, STREAM, &query, &principal.holder()).await?;
        if answer.status() != StatusCode::OK {
            return peer::pass_on(answer).await;
        }
        return Ok(sse::raw_response(leash.hold(peer::pieces(answer))));
    }
    let seat = logs.watchers.sit(principal.holder())?;
    admin.record(&principal, &info, "logs.watch", &query).await?;
    Ok(sse::raw_response(watch::events(&logs.buffer, filter, seat, leash)))
}

/// A server of this installation.
#[derive(Serialize, ToSchema)]
struct Replica {
    id: Uuid,
    /// As in the lines of its log and in the runs of jobs.
    name: String,
    version: String,
    /// Where the others reach it; null when they do not.
    address: Option<String>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    started_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    last_seen: DateTime<Utc>,
    /// The one that answers.
    #[serde(rename = "self")]
    is_self: bool,
    /// It has not been heard of for more than 90 s; after ten minutes it is taken off.
    stale: bool,
}

#[derive(Serialize, ToSchema)]
struct Replicas {
    replicas: Vec<Replica>,
}

/// The servers of this installation, the one that runs longest first
#[utoipa::path(get, path = "/api/admin/replicas", tag = "logs", security(("api_key" = [])),
    responses((status = 200, body = Replicas),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins and auditors", body = Problem, content_type = "application/problem+json")))]
async fn list_replicas(State(admin): State<Admin>, principal: Principal) -> Result<Json<Replicas>> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    let own = admin.logs.id;
    let rows = store::replicas(&admin.logs.pool).await?;
    let replicas = rows.into_iter().map(|row| Replica {
        is_self: row.id == own,
        id: row.id,
        name: row.name,
        version: row.version,
        address: row.address,
        started_at: row.started_at,
        last_seen: row.last_seen,
        stale: row.stale,
    });
    Ok(Json(Replicas { replicas: replicas.collect() }))
}

/// Another server's admin wants lines of ours.
async fn peer_lines(
    State(logs): State<Logs>,
    headers: HeaderMap,
    uri: Uri,
    query: Query<LogQuery>,
) -> Result<Response> {
    peer::verify(&logs, &headers, &question(&uri))?;
    lines(&logs, Filter::new(&query.0)?).await
}

async fn peer_stream(
    State(logs): State<Logs>,
    headers: HeaderMap,
    uri: Uri,
    query: Query<LogQuery>,
) -> Result<Response> {
    let user = peer::verify(&logs, &headers, &question(&uri))?;
    let filter = Filter::new(&query.0)?;
    let seat = logs.watchers.sit(user)?;
    // The server that the user asked looks whether they still may.
    let leash = Leash::new(logs.stop.clone(), Box::new(|| Box::pin(std::future::ready(true))));
    Ok(sse::raw_response(watch::events(&logs.buffer, filter, seat, leash)))
}

fn question(uri: &Uri) -> String {
    format!("{}?{}", uri.path(), uri.query().unwrap_or_default())
}

async fn lines(logs: &Logs, filter: Filter) -> Result<Response> {
    let buffer = logs.buffer.clone();
    // Looking through a large buffer takes a while.
    let lines: Lines = tokio::task::spawn_blocking(move || read::lines(&buffer, &filter))
        .await
        .map_err(Error::internal)?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(lines)).into_response())
}
impl Admin {
    /// The other server that is asked for, unless it is this one.
    async fn replica(&self, query: &LogQuery) -> Result<Option<ReplicaRow>> {
        let Some(wanted) = query.replica.as_deref().filter(|wanted| !wanted.is_empty()) else {
            return Ok(None);
        };
        if wanted == self.logs.buffer.replica() || wanted.parse() == Ok(self.logs.id) {
            return Ok(None);
        }
        let rows = store::replicas(&self.logs.pool).await?;
        // Of one name the newest: the others are gone.
        let named = |row: &ReplicaRow| row.name == wanted || wanted.parse() == Ok(row.id);
        rows.into_iter().rev().find(named).map(Some).ok_or_else(|| Error::not_found("replica"))
    }

    async fn record(
        &self,
        principal: &Principal,
        info: &RequestInfo,
        action: &'static str,
        query: &LogQuery,
    ) -> Result<()> {
        let target = query.replica.clone().filter(|replica| !replica.is_empty());
        // Somebody may look for a secret that got out.
        let mut details = json!({ "query": query });
        loom_redact::shared().redact_json(&mut details);
        let target = target.unwrap_or_else(|| self.logs.buffer.replica().to_owned());
        self.audit.done(principal, info, action, target, details).await
    }

    fn recheck(&self, parts: Parts) -> Recheck {
        let may = |now: Principal| authorize(&now, Action::InspectSystem(Scope::AdminRead)).is_ok();
        let recheck = sse::recheck(&self.who, parts, may);
        Box::new(move || Box::pin(recheck().instrument(tracing::error_span!(WATCHING_SPAN))))
    }
}
