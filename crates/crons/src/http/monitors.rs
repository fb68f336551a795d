//! Monitors: listed, made, changed, paused, deleted.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    error::Problem,
    page::{self, PageQuery},
    principal::RequestInfo,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{find, may_write, not_found, reads, writes};
use crate::{
    Crons,
    draft::{MonitorDraft, MonitorPatch},
    model::{Activity, Health, Monitor, MonitorView},
    store::{self, monitors::Filter},
};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    tag: Option<String>,
    /// A project's id, number or slug.
    project: Option<String>,
    #[param(inline)]
    status: Option<Activity>,
    /// In at least one environment.
    #[param(inline)]
    health: Option<Health>,
    /// A part of the slug or name.
    q: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MonitorPage {
    monitors: Vec<MonitorView>,
    /// Null at the end.
    next_cursor: Option<String>,
}

/// List monitors, the newest first
#[utoipa::path(
    get,
    path = "/api/crons/monitors",
    operation_id = "list_monitors",
    tag = "crons",
    params(PageQuery, ListQuery),
    responses(
        (status = 200, body = MonitorPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn list_monitors(
    State(crons): State<Crons>,
    principal: Principal,
    Query(page): Query<PageQuery>,
    Query(query): Query<ListQuery>,
) -> Result<Json<MonitorPage>> {
    reads(&principal)?;
    let project = match &query.project {
        Some(project) => Some(crons.project(principal.org, project).await?),
        None => None,
    };
    let kind = format!(
        "monitors:{:?}:{project:?}:{:?}:{:?}:{:?}",
        query.tag, query.status, query.health, query.q
    );
    let limit = page.limit()?;
    let after = page.after_time(&kind)?;
    let now = crons.deps.clock.now();
    let filter = Filter {
        tag: query.tag,
        project,
        paused: query.status.map(|status| status == Activity::Paused),
        health: query.health.map(|health| (health, now)),
        text: query.q,
    };
    let mut db = crons.deps.pool.acquire().await?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found = store::monitors::list(&mut db, principal.org, &filter, after, one_more).await?;
    let (found, next_cursor) =
        page::cut(found, limit, &kind, |monitor| (monitor.created_at, monitor.id.0));
    let ids: Vec<Uuid> = found.iter().map(|monitor| monitor.id.0).collect();
    let states = store::states::of(&mut db, principal.org, &ids).await?;
    let view = |monitor: &Monitor| {
        let states = states.get(&monitor.id).map(Vec::as_slice).unwrap_or_default();
        monitor.view(states, &crons.config.base_url, may_write(&principal), now)
    };
    Ok(Json(MonitorPage { monitors: found.iter().map(view).collect(), next_cursor }))
}

/// Create a monitor
///
/// Its environments are judged from now on: a run that does not come by `next_expected_at` and the margin is
/// missed.
#[utoipa::path(
    post,
    path = "/api/crons/monitors",
    operation_id = "create_monitor",
    tag = "crons",
    request_body = MonitorDraft,
    responses(
        (status = 201, body = MonitorView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`slug_taken` or `too_many_monitors`", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn create_monitor(
    State(crons): State<Crons>,
    principal: Principal,
    info: RequestInfo,
    Json(draft): Json<MonitorDraft>,
) -> Result<Response> {
    writes(&principal)?;
    let project = match &draft.project_id {
        Some(project) => Some(crons.project(principal.org, project).await?),
        None => None,
    };
    let now = crons.deps.clock.now();
    let (mut monitor, environments) = draft.check(principal.org, project, "api", now)?;
    // Somebody has to hear of it: for a start whoever made it.
    if principal.user_id().is_some() && principal.name.contains('@') {
        monitor.alerts.emails.push(principal.name.to_string());
    }
    let mut tx = loom_db::begin(&crons.deps.pool).await?;
    if !crons.make(&mut tx, &monitor, &environments).await? {
        return Err(Error::conflict(
            "slug_taken",
            "there is a monitor of this slug in the organisation already",
        ));
    }
    tx.commit().await?;
    let details = json!({"slug": monitor.slug});
    let target = monitor.id.to_string();
    crons.deps.audit.done(&principal, &info, "cron_monitor.create", target, details).await?;
    let location = format!("/api/crons/monitors/{}", monitor.slug);
    let view = view(&crons, &principal, &monitor).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
}

pub(super) async fn view(
    crons: &Crons,
    principal: &Principal,
    monitor: &Monitor,
) -> Result<MonitorView> {
    let mut db = crons.deps.pool.acquire().await?;
    let mut states = store::states::of(&mut db, principal.org, &[monitor.id.0]).await?;
    let states = states.remove(&monitor.id).unwrap_or_default();
    let now = crons.deps.clock.now();
    Ok(monitor.view(&states, &crons.config.base_url, may_write(principal), now))
}

/// Read a monitor
#[utoipa::path(
    get,
    path = "/api/crons/monitors/{slug}",
    operation_id = "get_monitor",
    tag = "crons",
    params(("slug" = String, Path)),
    responses(
        (status = 200, body = MonitorView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn get_monitor(
    State(crons): State<Crons>,
    principal: Principal,
    Path(slug): Path<String>,
) -> Result<Json<MonitorView>> {
    reads(&principal)?;
    let mut db = crons.deps.pool.acquire().await?;
    let monitor = find(&mut db, &principal, &slug).await?;
    drop(db);
    view(&crons, &principal, &monitor).await.map(Json)
}

/// Change a monitor
#[utoipa::path(
    patch,
    path = "/api/crons/monitors/{slug}",
    operation_id = "patch_monitor",
    tag = "crons",
    params(("slug" = String, Path)),
    request_body = MonitorPatch,
    responses(
        (status = 200, body = MonitorView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn patch_monitor(
    State(crons): State<Crons>,
    principal: Principal,
    info: RequestInfo,
    Path(slug): Path<String>,
    Json(patch): Json<MonitorPatch>,
) -> Result<Json<MonitorView>> {
    writes(&principal)?;
    let project = match &patch.project_id {
        Some(Some(project)) => Some(Some(crons.project(principal.org, project).await?)),
        Some(None) => Some(None),
        None => None,
    };
    let now = crons.deps.clock.now();
    let mut tx = loom_db::begin(&crons.deps.pool).await?;
    let found = store::monitors::lock(&mut tx, principal.org, &slug).await?;
    let mut monitor = found.ok_or_else(not_found)?;
    let before = (monitor.schedule.clone(), monitor.timezone.clone(), monitor.margin_secs);
    let environments = patch.apply(&mut monitor, project, now)?;
    store::monitors::update(&mut tx, &monitor).await?;
    let mut states = store::states::lock_all(&mut tx, principal.org, monitor.id).await?;
    if let Some(wanted) = environments {
        let gone: Vec<String> = states
            .iter()
            .map(|state| state.name.clone())
            .filter(|name| !wanted.contains(name))
            .collect();
        store::incidents::close_of(&mut tx, principal.org, monitor.id, &gone, now).await?;
        store::states::remove(&mut tx, principal.org, monitor.id, &gone).await?;
        states.retain(|state| wanted.contains(&state.name));
        let known: Vec<&str> = states.iter().map(|state| state.name.as_str()).collect();
        let new: Vec<String> =
            wanted.iter().filter(|name| !known.contains(&name.as_str())).cloned().collect();
        crons.make_environments(&mut tx, &monitor, &new, now).await?;
    }
    if before != (monitor.schedule.clone(), monitor.timezone.clone(), monitor.margin_secs) {
        crons.expect_anew(&mut tx, &monitor, &states, now).await?;
    }
    tx.commit().await?;
    crons.engine.changed(Some(monitor.id)).await;
    let details = json!({"slug": monitor.slug});
    let target = monitor.id.to_string();
    crons.deps.audit.done(&principal, &info, "cron_monitor.update", target, details).await?;
    view(&crons, &principal, &monitor).await.map(Json)
}

/// Delete a monitor
///
/// With its incidents; its check-ins go when their time is over.
#[utoipa::path(
    delete,
    path = "/api/crons/monitors/{slug}",
    operation_id = "delete_monitor",
    tag = "crons",
    params(("slug" = String, Path)),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn delete_monitor(
    State(crons): State<Crons>,
    principal: Principal,
    info: RequestInfo,
    Path(slug): Path<String>,
) -> Result<StatusCode> {
    writes(&principal)?;
    let mut tx = loom_db::begin(&crons.deps.pool).await?;
    let found = store::monitors::lock(&mut tx, principal.org, &slug).await?;
    let monitor = found.ok_or_else(not_found)?;
    if let Some(receiver) = &monitor.alerts.webhook {
        crons.deps.notify.drop_hook(&mut tx, principal.org, receiver.id).await?;
    }
    store::monitors::delete(&mut tx, principal.org, monitor.id).await?;
    tx.commit().await?;
    crons.engine.changed(Some(monitor.id)).await;
    let details = json!({"slug": monitor.slug});
    let target = monitor.id.to_string();
    crons.deps.audit.done(&principal, &info, "cron_monitor.delete", target, details).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Pause a monitor
///
/// Nothing is expected of it until it goes on; what its job tells meanwhile is kept, and judged by nobody.
#[utoipa::path(
    post,
    path = "/api/crons/monitors/{slug}/pause",
    operation_id = "pause_monitor",
    tag = "crons",
    params(("slug" = String, Path)),
    responses(
        (status = 200, body = MonitorView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn pause_monitor(
    State(crons): State<Crons>,
    principal: Principal,
    Path(slug): Path<String>,
) -> Result<Json<MonitorView>> {
    change(&crons, &principal, &slug, |monitor, now| {
        monitor.paused_at = monitor.paused_at.or(Some(now));
    })
    .await
}

/// Let a monitor go on
///
/// Judged from the next run that its schedule has.
#[utoipa::path(
    post,
    path = "/api/crons/monitors/{slug}/resume",
    operation_id = "resume_monitor",
    tag = "crons",
    params(("slug" = String, Path)),
    responses(
        (status = 200, body = MonitorView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn resume_monitor(
    State(crons): State<Crons>,
    principal: Principal,
    Path(slug): Path<String>,
) -> Result<Json<MonitorView>> {
    change(&crons, &principal, &slug, |monitor, _| monitor.paused_at = None).await
}

/// Give a monitor a new ping URL
///
/// The old one is not known any more from then on.
#[utoipa::path(
    post,
    path = "/api/crons/monitors/{slug}/rotate-key",
    operation_id = "rotate_ping_key",
    tag = "crons",
    params(("slug" = String, Path)),
    responses(
        (status = 200, body = MonitorView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn rotate_ping_key(
    State(crons): State<Crons>,
    principal: Principal,
    info: RequestInfo,
    Path(slug): Path<String>,
) -> Result<Json<MonitorView>> {
    let view = change(&crons, &principal, &slug, |monitor, _| {
        monitor.ping_key = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    })
    .await?;
    let target = view.0.id.to_string();
    let audit = &crons.deps.audit;
    audit.done(&principal, &info, "cron_monitor.rotate_key", target, json!({"slug": slug})).await?;
    Ok(view)
}

async fn change(
    crons: &Crons,
    principal: &Principal,
    slug: &str,
    how: impl FnOnce(&mut Monitor, chrono::DateTime<chrono::Utc>),
) -> Result<Json<MonitorView>> {
    writes(principal)?;
    let now = crons.deps.clock.now();
    let mut tx = loom_db::begin(&crons.deps.pool).await?;
    let found = store::monitors::lock(&mut tx, principal.org, slug).await?;
    let mut monitor = found.ok_or_else(not_found)?;
    let paused = monitor.paused_at;
    how(&mut monitor, now);
    monitor.updated_at = now;
    store::monitors::update(&mut tx, &monitor).await?;
    if paused.is_some() != monitor.paused_at.is_some() {
        let states = store::states::lock_all(&mut tx, principal.org, monitor.id).await?;
        crons.expect_anew(&mut tx, &monitor, &states, now).await?;
        if monitor.paused_at.is_none() {
            // What nobody was told of meanwhile, or is to be reminded of.
            let reminds = monitor.alerts.reminder_minutes.is_some();
            store::incidents::tell_again(&mut tx, principal.org, monitor.id, reminds, now).await?;
        }
    }
    tx.commit().await?;
    crons.engine.changed(Some(monitor.id)).await;
    view(crons, principal, &monitor).await.map(Json)
}
