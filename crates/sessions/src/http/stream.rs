//! Sessions of a project, followed live.

use std::fmt::Write;

use axum::{extract::State, response::Response};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, future::ready, stream};
use http::request::Parts;
use loom_core::{
    Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::{OrgId, ProjectId},
    principal::Scope,
    sse::{self, Leash},
};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast;

use crate::{
    Sessions,
    feed::{Heard, What},
};

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
    let org = principal.org;
    let may = move |now: Principal| {
        now.org == org && authorize(&now, Action::Use(Scope::SessionsRead)).is_ok()
    };
    let recheck = sse::recheck(&sessions.deps.who, parts, may);
    let leash = Leash::new(sessions.feed.leaving.clone(), recheck);
    let begin = Bytes::from_static(b"event: ready\ndata: {}\n\n");
    let heard = pieces(project.org, project.id, heard);
    Ok(sse::raw_response(sse::watch(begin, heard, leash, seat)))
}

/// What is heard of one project, until the feed ends.
fn pieces(
    org: OrgId,
    project: ProjectId,
    heard: broadcast::Receiver<Heard>,
) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(heard, move |mut heard| async move {
        let mut piece = String::new();
        match heard.recv().await {
            Ok(Heard::Told(told)) if (told.org, told.project) == (org, project) => {
                write(&told.what, &mut piece);
            }
            Ok(Heard::Told(_)) => {}
            Ok(Heard::ReadAgain) => piece.push_str("event: lagged\ndata: {}\n\n"),
            Err(broadcast::error::RecvError::Lagged(skipped)) => {
                // Writing into a string does not fail.
                let _ = write!(piece, "event: lagged\ndata: {{\"skipped\":{skipped}}}\n\n");
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        }
        Some((Bytes::from(piece), heard))
    })
    .filter(|piece| ready(!piece.is_empty()))
}

fn write(what: &What, piece: &mut String) {
    match what {
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
