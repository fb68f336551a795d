//! The routes of members.

use axum::{extract::State, http::StatusCode};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::{OrgId, UserId},
    page::{PageQuery, cut},
    principal::{OrgRole, RequestInfo, Scope},
};
use serde_json::json;
use sqlx::PgConnection;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{MemberChange, Members, Transfer},
    store,
};
use crate::{
    Auth,
    authenticate::{Revoked, tell},
    path::only_users,
};

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .routes(routes!(list_members))
        .routes(routes!(change_member, remove_member))
        .routes(routes!(transfer_org))
}

/// The members of an organisation, who came last first
#[utoipa::path(get, path = "/api/orgs/{org}/members", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), PageQuery),
    responses((status = 200, body = Members), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn list_members(
    State(auth): State<Auth>,
    principal: Principal,
    Path(org): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Members>> {
    let here = auth.acting_in(&principal, &org).await?;
    authorize(&here, Action::Use(Scope::AdminRead))?;
    let kind = format!("members:{}", here.org);
    let limit = page.limit()?;
    let members = store::members(&auth.pool, here.org, page.after_time(&kind)?, limit + 1).await?;
    let (members, next_cursor) = cut(members, limit, &kind, |m| (m.joined_at, m.user_id));
    Ok(Json(Members { members, next_cursor }))
}

/// Change the role of a member
///
/// Admins change members and admins; owners are made and unmade by owners. An organisation keeps one owner.
#[utoipa::path(patch, path = "/api/orgs/{org}/members/{user}", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), ("user" = UserId, Path)), request_body = MemberChange,
    responses((status = 204),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`last_owner`, `personal_organisation`", body = Problem, content_type = "application/problem+json")))]
async fn change_member(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path((org, user)): Path<(String, UserId)>,
    Json(change): Json<MemberChange>,
) -> Result<StatusCode> {
    let here = auth.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminWrite))?;
    only_users(&here)?;
    let mut tx = loom_db::begin(&auth.pool).await?;
    store::lock(&mut tx, here.org).await?;
    let was = store::role(&mut *tx, here.org, user).await?.ok_or_else(no_member)?;
    let here = as_of_now(&mut tx, &here).await?;
    let highest = was.max(change.role);
    authorize(&here, management_of(highest))?;
    if was == OrgRole::Owner && change.role != OrgRole::Owner {
        keep_an_owner(&mut tx, here.org, user).await?;
    }
    store::set_role(&mut *tx, here.org, user, change.role).await?;
    let changed = [Revoked::User(user)];
    tell(&mut *tx, &changed).await?;
    tx.commit().await?;
    auth.forget(&changed).await;
    let details = json!({"from": was, "to": change.role});
    auth.done(&here, None, &info, "member.change_role", user, details).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a member, or leave
///
/// Members leave by themselves; admins remove members and admins; owners are removed by owners. The keys
/// that the member made here end, and so do the weavers' tokens.
#[utoipa::path(delete, path = "/api/orgs/{org}/members/{user}", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), ("user" = UserId, Path)),
    responses((status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`last_owner`, `personal_organisation`", body = Problem, content_type = "application/problem+json")))]
async fn remove_member(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path((org, user)): Path<(String, UserId)>,
) -> Result<StatusCode> {
    let here = auth.acting_in(&principal, &org).await?;
    let leaves = only_users(&here)? == user;
    authorize(&here, management(leaves, OrgRole::Member))?;
    let mut tx = loom_db::begin(&auth.pool).await?;
    store::lock(&mut tx, here.org).await?;
    let was = store::role(&mut *tx, here.org, user).await?.ok_or_else(no_member)?;
    let here = as_of_now(&mut tx, &here).await?;
    authorize(&here, management(leaves, was))?;
    if was == OrgRole::Owner {
        keep_an_owner(&mut tx, here.org, user).await?;
    }
    let revoked = store::remove(&mut tx, here.org, user, auth.clock.now()).await?;
    tell(&mut *tx, &revoked).await?;
    tx.commit().await?;
    auth.forget(&revoked).await;
    let action = if leaves { "member.leave" } else { "member.remove" };
    auth.done(&here, None, &info, action, user, json!({"role": was})).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Hand an organisation over to another member, who becomes owner; you stay as an admin
#[utoipa::path(post, path = "/api/orgs/{org}/transfer", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug")), request_body = Transfer,
    responses((status = 204),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`personal_organisation`, `conflict`", body = Problem, content_type = "application/problem+json")))]
async fn transfer_org(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path(org): Path<String>,
    Json(transfer): Json<Transfer>,
) -> Result<StatusCode> {
    let here = auth.acting_in(&principal, &org).await?;
    authorize(&here, Action::OwnOrg(Scope::AdminWrite))?;
    let (me, heir) = (only_users(&here)?, transfer.user_id);
    if me == heir {
        return Err(Error::conflict("conflict", "it is yours already"));
    }
    let mut tx = loom_db::begin(&auth.pool).await?;
    store::lock(&mut tx, here.org).await?;
    let here = as_of_now(&mut tx, &here).await?;
    authorize(&here, Action::OwnOrg(Scope::AdminWrite))?;
    store::role(&mut *tx, here.org, heir).await?.ok_or_else(no_member)?;
    store::set_role(&mut *tx, here.org, heir, OrgRole::Owner).await?;
    // One who is disabled cannot take it over.
    keep_an_owner(&mut tx, here.org, me).await?;
    store::set_role(&mut *tx, here.org, me, OrgRole::Admin).await?;
    let changed = [Revoked::User(me), Revoked::User(heir)];
    tell(&mut *tx, &changed).await?;
    tx.commit().await?;
    auth.forget(&changed).await;
    auth.done(&here, None, &info, "organisation.transfer", heir, json!({})).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn no_member() -> Error {
    Error::not_found("member")
}

/// What it takes to change somebody of this role, or to make somebody it.
pub(crate) fn management_of(role: OrgRole) -> Action {
    match role {
        OrgRole::Owner => Action::OwnOrg(Scope::AdminWrite),
        OrgRole::Admin | OrgRole::Member => Action::ManageOrg(Scope::AdminWrite),
    }
}

fn management(leaves: bool, role: OrgRole) -> Action {
    if leaves { Action::Use(Scope::AdminWrite) } else { management_of(role) }
}

/// The principal with the role that it has under the lock.
pub(crate) async fn as_of_now(db: &mut PgConnection, here: &Principal) -> Result<Principal> {
    let user = only_users(here)?;
    let role = store::role(&mut *db, here.org, user)
        .await?
        .ok_or_else(|| Error::not_found("organisation"))?;
    Ok(Principal { role, ..here.clone() })
}

async fn keep_an_owner(db: &mut PgConnection, org: OrgId, user: UserId) -> Result<()> {
    if store::has_other_owner(&mut *db, org, user).await? {
        return Ok(());
    }
    Err(Error::conflict(
        "last_owner",
        "this is the last owner: make somebody else owner first, or hand the organisation over",
    ))
}
