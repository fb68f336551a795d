//! The routes of administration.

use axum::extract::State;
use loom_core::{
    Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::UserId,
    page::cut,
    principal::{RequestInfo, Scope},
    text,
};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{AdminUser, AdminUserDetail, AdminUsers, RolesChange, UserQuery},
    store,
};
use crate::{
    Auth,
    authenticate::{Revoked, tell},
    organisations::store as organisations,
};

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .routes(routes!(list_users))
        .routes(routes!(get_user))
        .routes(routes!(change_roles))
        .routes(routes!(disable_user))
        .routes(routes!(enable_user))
}

/// The users of this installation, newest first
#[utoipa::path(get, path = "/api/admin/users", tag = "admin", security(("api_key" = [])), params(UserQuery),
    responses((status = 200, body = AdminUsers),
        (status = 403, description = "For system admins and auditors", body = Problem, content_type = "application/problem+json")))]
async fn list_users(
    State(auth): State<Auth>,
    principal: Principal,
    Query(query): Query<UserQuery>,
) -> Result<Json<AdminUsers>> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    let part = query.q.as_deref().map(str::trim).filter(|part| !part.is_empty());
    if part.is_some_and(|part| !text::is_plain_line(part, 254)) {
        return Err(loom_core::Error::invalid("q", "is one line of at most 254 bytes"));
    }
    let page = query.page();
    let kind = format!("users:{}", part.unwrap_or_default());
    let limit = page.limit()?;
    let users = store::users(&auth.pool, part, page.after_time(&kind)?, limit + 1).await?;
    let (users, next_cursor) = cut(users, limit, &kind, |user| (user.created_at, user.id));
    Ok(Json(AdminUsers { users, next_cursor }))
}

/// A user, with what the user is a member of
#[utoipa::path(get, path = "/api/admin/users/{id}", tag = "admin", security(("api_key" = [])),
    params(("id" = UserId, Path)),
    responses((status = 200, body = AdminUserDetail),
        (status = 403, description = "For system admins and auditors", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn get_user(
    State(auth): State<Auth>,
    principal: Principal,
    Path(id): Path<UserId>,
) -> Result<Json<AdminUserDetail>> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    let user = store::user(&auth.pool, id).await?;
    let organisations = organisations::organisations(&auth.pool, id).await?;
    Ok(Json(AdminUserDetail { user, organisations }))
}

/// Change the global roles of a user
///
/// One system admin always remains. Whose roles change signs in anew; keys stay.
#[utoipa::path(patch, path = "/api/admin/users/{id}/roles", tag = "admin", security(("api_key" = [])),
    params(("id" = UserId, Path)), request_body = RolesChange,
    responses((status = 200, body = AdminUser),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`last_admin`", body = Problem, content_type = "application/problem+json")))]
async fn change_roles(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<UserId>,
    Json(change): Json<RolesChange>,
) -> Result<Json<AdminUser>> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let mut tx = loom_db::begin(&auth.pool).await?;
    let was = store::user(&mut *tx, id).await?;
    if change.system_admin == Some(false) {
        store::keep_an_admin(&mut tx, id).await?;
    }
    store::set_roles(&mut *tx, id, change.system_admin, change.auditor).await?;
    let user = store::user(&mut *tx, id).await?;
    let mut changed = vec![Revoked::User(id)];
    tell(&mut *tx, &changed).await?;
    if (was.is_system_admin, was.is_auditor) != (user.is_system_admin, user.is_auditor) {
        // A session is worth what it was begun for: with other rights one signs in anew.
        changed.extend(auth.end_sessions_of(&mut tx, id).await?);
    }
    tx.commit().await?;
    auth.forget(&changed).await;
    let details = json!({
        "system_admin": {"from": was.is_system_admin, "to": user.is_system_admin},
        "auditor": {"from": was.is_auditor, "to": user.is_auditor},
    });
    auth.done(&principal, None, &info, "user.change_roles", id, details).await?;
    Ok(Json(user))
}

/// Disable a user: nothing of theirs is let in any more, at once
///
/// Their keys end for good.
#[utoipa::path(post, path = "/api/admin/users/{id}/disable", tag = "admin", security(("api_key" = [])),
    params(("id" = UserId, Path)),
    responses((status = 200, body = AdminUser),
        (status = 403, description = "For system admins", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`last_admin`", body = Problem, content_type = "application/problem+json")))]
async fn disable_user(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<UserId>,
) -> Result<Json<AdminUser>> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let mut tx = loom_db::begin(&auth.pool).await?;
    store::keep_an_admin(&mut tx, id).await?;
    let mut gone = store::disable(&mut tx, id, auth.clock.now()).await?;
    let credentials_ended = gone.len().saturating_sub(1);
    let sessions = auth.end_sessions_of(&mut tx, id).await?;
    let sessions_ended = sessions.len();
    let user = store::user(&mut *tx, id).await?;
    tell(&mut *tx, &gone).await?;
    tx.commit().await?;
    gone.extend(sessions);
    auth.forget(&gone).await;
    let details = json!({"keys_ended": credentials_ended, "sessions_ended": sessions_ended});
    auth.done(&principal, None, &info, "user.disable", id, details).await?;
    Ok(Json(user))
}

/// Let a disabled user in again
///
/// What ended when they were disabled stays ended.
#[utoipa::path(post, path = "/api/admin/users/{id}/enable", tag = "admin", security(("api_key" = [])),
    params(("id" = UserId, Path)),
    responses((status = 200, body = AdminUser),
        (status = 403, description = "For system admins", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn enable_user(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<UserId>,
) -> Result<Json<AdminUser>> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let mut tx = loom_db::begin(&auth.pool).await?;
    store::user(&mut *tx, id).await?;
    store::enable(&mut *tx, id).await?;
    let user = store::user(&mut *tx, id).await?;
    let changed = [Revoked::User(id)];
    tell(&mut *tx, &changed).await?;
    tx.commit().await?;
    auth.forget(&changed).await;
    auth.done(&principal, None, &info, "user.enable", id, json!({})).await?;
    Ok(Json(user))
}
