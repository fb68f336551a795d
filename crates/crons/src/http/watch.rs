//! Monitors, followed live.

use axum::{extract::State, response::Response};
use http::request::Parts;
use loom_core::{
    Error, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    principal::Scope,
    sse::{self, Leash},
};
use serde::Deserialize;

use super::{find, reads};
use crate::{CHANNEL, Crons, store, stream};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WatchQuery {
    /// Only this monitor, by its slug.
    monitor: Option<String>,
}

/// Follow the monitors of your organisation
///
/// Server-sent events: first `init` with the totals; then `checkin.started`, `checkin.ok`, `checkin.error`,
/// `checkin.log`, `monitor.missed`, `monitor.timeout`, `monitor.unknown`, `monitor.failing` (an incident
/// opened) and `monitor.recovered` (it closed). `reset`: events may be missing; read again. `bye` is the last:
/// after an hour (`max_duration`), when the credential is not good any more (`revoked`), or when the server
/// goes down (`shutdown`).
#[utoipa::path(
    get,
    path = "/api/crons/stream",
    operation_id = "watch_monitors",
    tag = "crons",
    params(WatchQuery),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_watchers`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn watch_monitors(
    State(crons): State<Crons>,
    principal: Principal,
    Query(query): Query<WatchQuery>,
    parts: Parts,
) -> Result<Response> {
    reads(&principal)?;
    let seat = crons.seats.sit(principal.holder())?;
    // In this order: what happens in between is told.
    let said = crons.deps.hub.subscribe(CHANNEL);
    let mut db = crons.deps.pool.acquire().await?;
    if let Some(slug) = &query.monitor {
        find(&mut db, &principal, slug).await?;
    }
    let now = crons.deps.clock.now();
    let totals = store::stats::overview(&mut db, principal.org, now).await?;
    drop(db);
    let init = serde_json::to_value(&totals).map_err(Error::internal)?;
    let org = principal.org;
    let may = move |now: Principal| {
        now.org == org && authorize(&now, Action::Use(Scope::CronsRead)).is_ok()
    };
    let recheck = sse::recheck(&crons.deps.who, parts, may);
    let leash = Leash::new(crons.leaving.clone(), recheck);
    let events = stream::events(org, query.monitor, said, &init, seat, leash);
    Ok(sse::raw_response(events))
}
