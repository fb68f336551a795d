//! Watching weavers.

use axum::{extract::State, response::Response};
use http::request::Parts;
use loom_core::{
    Principal, Query, Result,
    error::Problem,
    id::WeaverId,
    sse::{self, Leash, Recheck},
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    CHANNEL, Weavers,
    access::{self, Access},
    store,
    stream::{self, Told},
};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WatchQuery {
    /// Of this one only.
    weaver: Option<WeaverId>,
}

/// Watch weavers
///
/// `init` with how many there are of each status, then `weaver` for each change: `id`, `status`, `reason`,
/// `expires_at`, `version`. `reset`: some may be missing, read the list again. Ends with `bye` after an hour at
/// the latest; connect again.
#[utoipa::path(
    get,
    path = "/api/weavers/stream",
    operation_id = "watch_weavers",
    tag = "weavers",
    params(WatchQuery),
    responses(
        (status = 200, description = "Events; the data of `weaver`:", body = Told, content_type = "text/event-stream"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`weaver_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_watchers`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn watch_weavers(
    State(weavers): State<Weavers>,
    principal: Principal,
    Query(query): Query<WatchQuery>,
    parts: Parts,
) -> Result<Response> {
    let access = access::reads(&principal)?;
    let seat = weavers.seats.sit(principal.holder())?;
    // In this order: what happens in between is told.
    let said = weavers.deps.hub.subscribe(CHANNEL);
    if let Some(id) = query.weaver {
        weavers.visible(access, id).await?;
    }
    let mut db = weavers.deps.pool.acquire().await?;
    let counts = store::list::counts(&mut db, access).await?;
    drop(db);
    let leash = Leash::new(weavers.leaving.clone(), recheck(&weavers, access, parts));
    let init = json!({"counts": counts});
    Ok(sse::raw_response(stream::events(access, query.weaver, said, &init, seat, leash)))
}

pub(crate) fn recheck(weavers: &Weavers, access: Access, parts: Parts) -> Recheck {
    sse::recheck(&weavers.deps.who, parts, move |now| {
        access::reads(&now).is_ok_and(|may| may == access)
    })
}
