//! The routes of sessions.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::SessionId,
    page::{PageQuery, cut},
    principal::{RequestInfo, Scope},
};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{Sessions, WsToken},
    session_of, store, ws,
};
use crate::{Auth, path::only_users};

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .routes(routes!(list_sessions))
        .routes(routes!(revoke_session))
        .routes(routes!(log_out))
        .routes(routes!(get_ws_token))
}

/// Your own sign-ins, newest first
#[utoipa::path(get, path = "/api/sessions", tag = "auth", security(("api_key" = []), ("session" = [])), params(PageQuery),
    responses((status = 200, body = Sessions), (status = 401, body = Problem, content_type = "application/problem+json")))]
async fn list_sessions(
    State(auth): State<Auth>,
    principal: Principal,
    Query(page): Query<PageQuery>,
) -> Result<Json<Sessions>> {
    authorize(&principal, Action::Use(Scope::AdminRead))?;
    let user = only_users(&principal)?;
    let kind = format!("sessions:{user}");
    let (limit, after) = (page.limit()?, page.after_time(&kind)?);
    let current = session_of(&principal);
    let now = auth.clock.now();
    let sessions = store::list(&auth.pool, user, current, after, limit + 1, now).await?;
    let (sessions, next_cursor) =
        cut(sessions, limit, &kind, |session| (session.created_at, session.id));
    Ok(Json(Sessions { sessions, next_cursor }))
}

/// End one of your own sign-ins at once
#[utoipa::path(delete, path = "/api/sessions/{id}", tag = "auth", security(("api_key" = []), ("session" = [])),
    params(("id" = SessionId, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn revoke_session(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<SessionId>,
) -> Result<StatusCode> {
    authorize(&principal, Action::Use(Scope::AdminWrite))?;
    auth.revoke_own_session(&principal, &info, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End the session of this request
#[utoipa::path(post, path = "/auth/logout", tag = "auth", security(("session" = [])),
    responses((status = 204), (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`no_session`: this request was not authenticated by a session", body = Problem, content_type = "application/problem+json")))]
async fn log_out(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
) -> Result<Response> {
    let id = session_of(&principal).ok_or_else(|| {
        Error::conflict(
            "no_session",
            "this request was not authenticated by a session; revoke a key instead",
        )
    })?;
    auth.revoke_own_session(&principal, &info, id).await?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, auth.no_session_cookie())]).into_response())
}

/// A token for one WebSocket
///
/// For clients that cannot send headers with one. It stands for the credential of this request, in
/// `?token=` of one WebSocket request, for 30 seconds.
#[utoipa::path(get, path = "/auth/ws-token", tag = "auth", security(("api_key" = []), ("session" = [])),
    responses((status = 200, body = WsToken), (status = 401, body = Problem, content_type = "application/problem+json")))]
async fn get_ws_token(
    State(auth): State<Auth>,
    principal: Principal,
    headers: HeaderMap,
) -> Result<Response> {
    let token = auth.ws_token(&principal, auth.shown_credential(&headers)?).await?;
    let expires_in = u32::try_from(ws::LIFE.as_secs()).unwrap_or_default();
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(WsToken { token, expires_in })).into_response())
}

impl Auth {
    pub(crate) async fn revoke_own_session(
        &self,
        principal: &Principal,
        info: &RequestInfo,
        id: SessionId,
    ) -> Result<()> {
        let user = only_users(principal)?;
        if !self.end_session(user, id).await? {
            return Err(Error::not_found("session"));
        }
        self.done(principal, None, info, "session.revoke", id, json!({})).await
    }
}
