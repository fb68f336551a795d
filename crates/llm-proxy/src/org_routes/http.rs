//! The routes' own API.

use axum::{
    extract::State,
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
};
use loom_core::{
    Error, Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    principal::{RequestInfo, Scope, required},
};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{Route, RouteDraft, Routes, check_name},
    store,
};
use crate::LlmProxy;

pub(crate) fn routes(proxy: LlmProxy) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_llm_routes))
        .routes(routes!(get_llm_route, put_llm_route, delete_llm_route))
        .route_layer(middleware::from_fn(required))
        .with_state(proxy)
}

fn not_found() -> Error {
    Error::not_found("route")
}

/// The model routes of an organisation
#[utoipa::path(get, path = "/api/orgs/{org}/llm/routes", tag = "llm", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug")),
    responses((status = 200, body = Routes),
        (status = 403, description = "`llm:use` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn list_llm_routes(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    Path(org): Path<String>,
) -> Result<Json<Routes>> {
    let here = proxy.orgs.acting_in(&principal, &org).await?;
    authorize(&here, Action::Use(Scope::LlmUse))?;
    Ok(Json(Routes { routes: store::list(&proxy.pool, here.org).await? }))
}

/// One model route
#[utoipa::path(get, path = "/api/orgs/{org}/llm/routes/{name}", tag = "llm", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), ("name" = String, Path)),
    responses((status = 200, body = Route),
        (status = 403, description = "`llm:use` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn get_llm_route(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    Path((org, name)): Path<(String, String)>,
) -> Result<Json<Route>> {
    let here = proxy.orgs.acting_in(&principal, &org).await?;
    authorize(&here, Action::Use(Scope::LlmUse))?;
    let routes = store::list(&proxy.pool, here.org).await?;
    routes.into_iter().find(|route| route.name == name).map(Json).ok_or_else(not_found)
}

/// Create or replace a model route
///
/// From then on, on every replica, a request whose `model` is the route's name goes to its targets: by
/// weight among those of the lowest priority, to the others when these fail. A route may have the name of
/// a model, and hides it; `provider/model` is never a route.
#[utoipa::path(put, path = "/api/orgs/{org}/llm/routes/{name}", tag = "llm", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"),
        ("name" = String, Path, description = "1 to 100 of A-Z, a-z, 0-9, `.`, `_`, `:`, `-`")),
    request_body = RouteDraft,
    responses((status = 200, body = Route), (status = 201, description = "It is new", body = Route),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`quota_exceeded`", body = Problem, content_type = "application/problem+json")))]
async fn put_llm_route(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path((org, name)): Path<(String, String)>,
    Json(draft): Json<RouteDraft>,
) -> Result<Response> {
    let here = proxy.orgs.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminWrite))?;
    check_name(&name)?;
    draft.check(|provider| proxy.providers.named(provider).is_some())?;
    let now = proxy.clock.now();
    let mut db = loom_db::begin(&proxy.pool).await?;
    let (is_new, created_at) = store::put(&mut db, here.org, &name, &draft, now).await?;
    db.commit().await?;
    proxy.read_routes(Some(here.org)).await?;
    let details = json!({"enabled": draft.enabled, "targets": draft.targets});
    proxy.audit.done(&here, &info, "llm_route.put", name.clone(), details).await?;
    let RouteDraft { enabled, targets } = draft;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let route = Route { name, enabled, targets, created_at, updated_at: now };
    Ok((status, Json(route)).into_response())
}

/// Delete a model route
#[utoipa::path(delete, path = "/api/orgs/{org}/llm/routes/{name}", tag = "llm", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), ("name" = String, Path)),
    responses((status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn delete_llm_route(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path((org, name)): Path<(String, String)>,
) -> Result<StatusCode> {
    let here = proxy.orgs.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminWrite))?;
    let mut db = loom_db::begin(&proxy.pool).await?;
    let was_there = store::delete(&mut db, here.org, &name).await?;
    db.commit().await?;
    if !was_there {
        return Err(not_found());
    }
    proxy.read_routes(Some(here.org)).await?;
    proxy.audit.done(&here, &info, "llm_route.delete", name, json!({})).await?;
    Ok(StatusCode::NO_CONTENT)
}
