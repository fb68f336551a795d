//! Sessions of a project, followed live.

use std::{fmt::Write, sync::Arc, time::Duration};

use axum::{extract::State, response::Response};
use bytes::Bytes;
use futures::{Stream, stream};
use http::request::Parts;
use loom_core::{
    Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::{OrgId, ProjectId},
    principal::{Authentication, Scope},
    sse::{self, Bye, KEEP_ALIVE, Leash, Recheck, Seat},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::broadcast,
    time::{Instant, timeout_at},
};

use crate::{
    Sessions,
    feed::{Heard, Told, What},
};

const RECHECK: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// Events are given out on an authorisation that is no older than this.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// Id, number or slug.
    #[serde(alias = "project_id")]
    project: String,
}

/// Follow the sessions of a project.
///
/// Server-sent events: first `ready`; then, at most once a second each, `session.started`, `session.ended`
/// and `session.crashed` with their number as `count`, and `release.health_changed` when a release falls
/// below the bar of an alert, or is above it again. `lagged`: something was missed; read again. `bye` is
/// the last event: after an hour (`max_duration`), when the credential is not good any more (`revoked`),
/// or when the server goes down (`shutdown`).
#[utoipa::path(
    get,
    path = "/api/app-sessions/stream",
    operation_id = "watch_app_sessions",
    tag = "app-sessions",
    params(StreamQuery),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = 400, description = "`invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`sessions:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such project", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_watchers`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn watch_app_sessions(
    State(sessions): State<Sessions>,
    principal: Principal,
    Query(query): Query<StreamQuery>,
    parts: Parts,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::SessionsRead))?;
    let project = sessions.project(&principal, &query.project).await?;
    let (seat, heard) = sessions.feed.sit(principal.holder())?;
    let recheck = recheck(&sessions, principal.org, parts);
    let leash = Leash::new(sessions.feed.leaving.clone(), recheck, RECHECK, LONGEST);
    let watch = Watch {
        org: project.org,
        project: project.id,
        heard,
        _seat: seat,
        leash,
        begun: false,
        ended: false,
    };
    Ok(sse::raw_response(watch.events()))
}

/// Asks who is behind the request once more, and what they may now.
fn recheck(sessions: &Sessions, org: OrgId, parts: Parts) -> Recheck {
    let (again, parts) = (Arc::clone(&sessions.deps.who), Arc::new(parts));
    Box::new(move || {
        let (again, parts) = (Arc::clone(&again), Arc::clone(&parts));
        Box::pin(async move {
            match again.again(&parts).await {
                Authentication::Known(now) => {
                    now.org == org && authorize(&now, Action::Use(Scope::SessionsRead)).is_ok()
                }
                // Nobody could be asked: an outage is no reason to go blind.
                Authentication::Refused(error) => error.status().is_server_error(),
                Authentication::Anonymous => false,
            }
        })
    })
}

struct Watch {
    org: OrgId,
    project: ProjectId,
    heard: broadcast::Receiver<Heard>,
    _seat: Seat,
    leash: Leash,
    begun: bool,
    ended: bool,
}

impl Watch {
    fn events(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut watch| async move {
            if watch.ended {
                return None;
            }
            let piece = match watch.piece().await {
                Ok(piece) => Bytes::from(piece),
                Err(bye) => {
                    watch.ended = true;
                    Bytes::from_static(bye.event().as_bytes())
                }
            };
            Some((piece, watch))
        })
    }

    async fn piece(&mut self) -> std::result::Result<String, Bye> {
        if !self.begun {
            self.begun = true;
            return Ok("event: ready\ndata: {}\n\n".to_owned());
        }
        // What is heard of other projects is no sign of life here.
        let until = Instant::now() + KEEP_ALIVE;
        loop {
            let next = timeout_at(until, self.heard.recv());
            let mut piece = String::new();
            match self.leash.unless_ended(next).await? {
                Ok(Ok(Heard::Told(told))) => self.write(&told, &mut piece),
                Ok(Ok(Heard::ReadAgain)) => piece.push_str("event: lagged\ndata: {}\n\n"),
                Ok(Err(broadcast::error::RecvError::Lagged(skipped))) => {
                    // Writing into a string does not fail.
                    let _ = write!(piece, "event: lagged\ndata: {{\"skipped\":{skipped}}}\n\n");
                }
                Ok(Err(broadcast::error::RecvError::Closed)) => return Err(Bye::Shutdown),
                Err(_) => return Ok(": keep-alive\n\n".to_owned()),
            }
            if !piece.is_empty() {
                self.leash.check_again(FRESH).await?;
                return Ok(piece);
            }
        }
    }

    fn write(&self, told: &Told, piece: &mut String) {
        if told.org != self.org || told.project != self.project {
            return;
        }
        match &told.what {
            What::Sessions { started, ended, crashed } => {
                let kinds = [("started", started), ("ended", ended), ("crashed", crashed)];
                for (kind, count) in kinds.into_iter().filter(|(_, count)| **count > 0) {
                    let _ = write!(piece, "event: session.{kind}\ndata: {{\"count\":{count}}}\n\n");
                }
            }
            What::HealthChanged { release, alert, kind, firing, value } => {
                let data = json!({
                    "release": release, "alert": alert, "kind": kind, "firing": firing, "value": value
                });
                let _ = write!(piece, "event: release.health_changed\ndata: {data}\n\n");
            }
        }
    }
}
