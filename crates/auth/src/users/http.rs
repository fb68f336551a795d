//! The routes of users.

use axum::extract::State;
use loom_core::{Json, Principal, Result, error::Problem, principal::Via};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{Me, MeVia},
    store,
};
use crate::{Auth, organisations::store as organisations};

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().routes(routes!(get_me))
}

/// Who this request is
#[utoipa::path(get, path = "/auth/me", tag = "auth", security(("api_key" = [])),
    responses((status = 200, body = Me), (status = 401, body = Problem, content_type = "application/problem+json")))]
async fn get_me(State(auth): State<Auth>, principal: Principal) -> Result<Json<Me>> {
    let (user, organisations) = match principal.user_id() {
        Some(user) => (
            Some(store::user(&auth.pool, user).await?),
            organisations::organisations(&auth.pool, user).await?,
        ),
        None => (
            None,
            organisations::organisation(&auth.pool, principal.org, principal.role)
                .await?
                .into_iter()
                .collect(),
        ),
    };
    let via = match principal.via {
        Via::ApiKey(id) => MeVia::ApiKey { id },
        Via::Session(id) => MeVia::Session { id },
        Via::WeaverToken(id) => MeVia::WeaverToken { id },
        Via::DevMode => MeVia::DevMode,
    };
    Ok(Json(Me {
        user,
        org_id: principal.org,
        role: principal.role,
        organisations,
        via,
        scopes: principal.scopes.iter().collect(),
    }))
}
