//! The routes of the log of requests.

use axum::{extract::State, middleware};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::LlmRequestId,
    page::cut,
    principal::{OrgRole, Scope, required},
};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{Filters, Logged, LoggedPage, RequestsQuery},
    store::{self, Seen},
};
use crate::LlmProxy;

pub(crate) fn routes(proxy: LlmProxy) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_llm_requests))
        .routes(routes!(get_llm_request))
        .route_layer(middleware::from_fn(required))
        .with_state(proxy)
}

fn seen_by(principal: &Principal) -> Seen {
    // An admin's key that is only for models is in many hands that are no admin's.
    let is_admin = principal.role >= OrgRole::Admin && principal.scopes.contains(Scope::AdminRead);
    match principal.user_id() {
        _ if is_admin => Seen::All,
        Some(user) => Seen::Of(user.0),
        None => Seen::Nobodys,
    }
}

/// Requests to models, newest first
///
/// Admins (with `admin:read`) see all of their organisation, other members their own, service keys and
/// weavers those that are no user's. What was said is not in it.
#[utoipa::path(get, path = "/api/llm/requests", tag = "llm", security(("api_key" = [])), params(RequestsQuery),
    responses((status = 200, body = LoggedPage),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn list_llm_requests(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    Query(query): Query<RequestsQuery>,
) -> Result<Json<LoggedPage>> {
    authorize(&principal, Action::Use(Scope::LlmUse))?;
    let page = query.page();
    let limit = page.limit()?;
    let filters = query.check()?;
    let seen = seen_by(&principal);
    let kind = format!("llm_requests:{}", kind(&principal, seen, &filters));
    let after = page.after_time(&kind)?;
    let found = store::page(&proxy.pool, principal.org, seen, &filters, after, limit + 1).await?;
    let (requests, next_cursor) =
        cut(found, limit, &kind, |request| (request.started_at, request.id));
    Ok(Json(LoggedPage { requests, next_cursor }))
}

/// A cursor is good for one set of filters.
fn kind(principal: &Principal, seen: Seen, filters: &Filters) -> String {
    let query = &filters.query;
    let ids = [query.user_id, query.api_key_id, filters.thread, query.weaver_id];
    let texts = [&query.model, &query.provider, &query.tag, &query.request_id];
    let numbers = [filters.min_cost_nanousd, query.status.map(i64::from)];
    let times = [query.from, query.to];
    let seen = format!("{seen:?}");
    json!([principal.org, seen, ids, texts, numbers, times, query.outcome]).to_string()
}

/// One request to a model
#[utoipa::path(get, path = "/api/llm/requests/{id}", tag = "llm", security(("api_key" = [])),
    params(("id" = LlmRequestId, Path)),
    responses((status = 200, body = Logged),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn get_llm_request(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    Path(id): Path<LlmRequestId>,
) -> Result<Json<Logged>> {
    authorize(&principal, Action::Use(Scope::LlmUse))?;
    let found = store::one(&proxy.pool, principal.org, seen_by(&principal), id).await?;
    found.map(Json).ok_or_else(|| Error::not_found("request"))
}
