//! The route of usage.

use axum::{extract::State, middleware};
use loom_core::{
    Json, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    principal::{OrgRole, Scope, required},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{Answer, UsageQuery},
    read,
    sum::Whose,
};
use crate::LlmProxy;

pub(crate) fn routes(proxy: LlmProxy) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(llm_usage))
        .route_layer(middleware::from_fn(required))
        .with_state(proxy)
}

/// What models were used for, and what it cost
///
/// Up to the last request that has ended. Admins (with `admin:read`) see all of their organisation, other
/// members what is their own, and service keys and weavers what is nobody's own.
#[utoipa::path(get, path = "/api/llm/usage", tag = "llm", security(("api_key" = [])), params(UsageQuery),
    responses((status = 200, body = Answer),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn llm_usage(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    Query(query): Query<UsageQuery>,
) -> Result<Json<Answer>> {
    authorize(&principal, Action::Use(Scope::LlmUse))?;
    let question = query.check(proxy.clock.now())?;
    Ok(Json(read::usage(&proxy.pool, principal.org, whose(&principal), &question).await?))
}

/// Whose requests somebody is shown.
pub(super) fn whose(principal: &Principal) -> Whose {
    let is_admin = principal.role >= OrgRole::Admin && principal.scopes.contains(Scope::AdminRead);
    match principal.user_id() {
        _ if is_admin => Whose::Everybodys,
        Some(user) => Whose::Of(user.0),
        None => Whose::Nobodys,
    }
}
