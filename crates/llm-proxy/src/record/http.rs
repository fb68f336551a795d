//! What an organisation wants to be kept, and what is: for its admins.

use axum::{extract::State, middleware};
use loom_core::{
    Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::LlmRequestId,
    principal::{RequestInfo, Scope, required},
};
use serde::Serialize;
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    capture::Capture,
    settings::{Change, Settings},
    store,
};
use crate::LlmProxy;

pub(crate) fn routes(proxy: LlmProxy) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(get_llm_settings, change_llm_settings))
        .routes(routes!(delete_llm_captures))
        .routes(routes!(get_llm_capture))
        .route_layer(middleware::from_fn(required))
        .with_state(proxy)
}

/// How many were deleted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LlmCapturesDeleted)]
struct Deleted {
    deleted_count: u64,
}

/// What is kept of an organisation's requests to models
#[utoipa::path(get, path = "/api/orgs/{org}/llm/settings", tag = "llm", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug")),
    responses((status = 200, body = Settings),
        (status = 403, description = "For admins and owners", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn get_llm_settings(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    Path(org): Path<String>,
) -> Result<Json<Settings>> {
    let here = proxy.orgs.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminRead))?;
    let mut db = proxy.pool.acquire().await?;
    Ok(Json(store::settings(&mut db, here.org).await?))
}

/// Change what is kept of an organisation's requests to models
///
/// What is absent stays. All replicas follow at once. When the cache is turned off, what is in it is
/// deleted; what was captured stays for its time, or until it is deleted.
#[utoipa::path(patch, path = "/api/orgs/{org}/llm/settings", tag = "llm", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug")), request_body = Change,
    responses((status = 200, body = Settings),
        (status = 403, description = "For admins and owners", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn change_llm_settings(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path(org): Path<String>,
    Json(change): Json<Change>,
) -> Result<Json<Settings>> {
    let here = proxy.orgs.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminWrite))?;
    let mut tx = loom_db::begin(&proxy.pool).await?;
    store::make_settings(&mut tx, here.org, proxy.clock.now()).await?;
    let was = store::settings(&mut tx, here.org).await?;
    let is = was.changed(&change)?;
    store::put_settings(&mut tx, here.org, &is, proxy.clock.now()).await?;
    if was.cache.enabled && !is.cache.enabled {
        store::delete_cached(&mut tx, here.org).await?;
    }
    tx.commit().await?;
    proxy.record.settings.read(&proxy.pool).await?;
    let details = json!({"from": was, "to": is});
    proxy.audit.done(&here, &info, "llm_settings.change", here.org.to_string(), details).await?;
    Ok(Json(is))
}

/// Delete all captured requests and replies of an organisation
#[utoipa::path(delete, path = "/api/orgs/{org}/llm/captures", tag = "llm", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug")),
    responses((status = 200, body = Deleted),
        (status = 403, description = "For admins and owners", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn delete_llm_captures(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path(org): Path<String>,
) -> Result<Json<Deleted>> {
    let here = proxy.orgs.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminWrite))?;
    let mut db = proxy.pool.acquire().await?;
    let deleted_count = store::delete_captures(&mut db, here.org).await?;
    drop(db);
    let details = json!({"deleted_count": deleted_count});
    proxy.audit.done(&here, &info, "llm_captures.delete", here.org.to_string(), details).await?;
    Ok(Json(Deleted { deleted_count }))
}

/// A request to a model and its reply, as they were captured
///
/// Only while the organisation has them captured, and for its admins. Each reading is in the audit log.
#[utoipa::path(get, path = "/api/llm/requests/{id}/capture", tag = "llm", security(("api_key" = [])),
    params(("id" = LlmRequestId, Path, description = "As in the log of requests")),
    responses((status = 200, body = Capture),
        (status = 403, description = "For admins and owners", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nothing was captured, or it is past its time", body = Problem, content_type = "application/problem+json")))]
async fn get_llm_capture(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<LlmRequestId>,
) -> Result<Json<Capture>> {
    authorize(&principal, Action::ManageOrg(Scope::AdminRead))?;
    let capture = proxy.capture(principal.org, id).await?;
    proxy.audit.done(&principal, &info, "llm_capture.read", id.to_string(), json!({})).await?;
    Ok(Json(capture))
}
