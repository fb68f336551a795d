//! The routes of organisations.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use loom_core::{
    Error, Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::OrgId,
    principal::{OrgRole, RequestInfo, Scope},
    text,
};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{NewOrganisation, Organisation, OrganisationChange, Organisations},
    store,
};
use crate::{
    Auth,
    authenticate::{Revoked, tell},
    members::{http::as_of_now, store as members},
    path::only_users,
};

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .routes(routes!(list_orgs, create_org))
        .routes(routes!(get_org, change_org, delete_org))
}

/// The organisations that you are a member of
#[utoipa::path(get, path = "/api/orgs", tag = "auth", security(("api_key" = [])),
    responses((status = 200, body = Organisations), (status = 401, body = Problem, content_type = "application/problem+json")))]
async fn list_orgs(State(auth): State<Auth>, principal: Principal) -> Result<Json<Organisations>> {
    let orgs = store::organisations(&auth.pool, only_users(&principal)?).await?;
    Ok(Json(Organisations { orgs }))
}

/// Create an organisation; you become its owner
#[utoipa::path(post, path = "/api/orgs", tag = "auth", security(("api_key" = [])), request_body = NewOrganisation,
    responses((status = 201, body = Organisation, headers(("location" = String))),
        (status = 409, description = "`slug_taken`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn create_org(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Json(new): Json<NewOrganisation>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::AdminWrite))?;
    let user = only_users(&principal)?;
    check_slug(&new.slug)?;
    check_name(&new.name)?;
    let now = auth.clock.now();
    let org = OrgId::new(now);
    let mut tx = loom_db::begin(&auth.pool).await?;
    store::insert_organisation(&mut tx, org, &new.slug, &new.name, false, now).await?;
    store::insert_member(&mut tx, org, user, OrgRole::Owner, now).await?;
    let changed = [Revoked::User(user)];
    tell(&mut *tx, &changed).await?;
    tx.commit().await?;
    auth.forget(&changed).await;
    let details = json!({"slug": new.slug});
    auth.done(&principal, Some(org), &info, "organisation.create", org, details).await?;
    let location = [(header::LOCATION, format!("/api/orgs/{org}"))];
    let organisation = Organisation {
        id: org,
        slug: new.slug,
        name: new.name,
        is_personal: false,
        role: OrgRole::Owner,
        created_at: now,
    };
    Ok((StatusCode::CREATED, location, Json(organisation)).into_response())
}

/// An organisation that you are a member of
#[utoipa::path(get, path = "/api/orgs/{org}", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug")),
    responses((status = 200, body = Organisation), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn get_org(
    State(auth): State<Auth>,
    principal: Principal,
    Path(org): Path<String>,
) -> Result<Json<Organisation>> {
    let here = auth.acting_in(&principal, &org).await?;
    shown(&auth, &here).await.map(Json)
}

async fn shown(auth: &Auth, here: &Principal) -> Result<Organisation> {
    store::organisation(&auth.pool, here.org, here.role)
        .await?
        .ok_or_else(|| Error::not_found("organisation"))
}

/// Rename an organisation
///
/// A personal organisation keeps its slug.
#[utoipa::path(patch, path = "/api/orgs/{org}", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug")), request_body = OrganisationChange,
    responses((status = 200, body = Organisation),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`slug_taken`, `personal_organisation`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn change_org(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path(org): Path<String>,
    Json(change): Json<OrganisationChange>,
) -> Result<Json<Organisation>> {
    let here = auth.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminWrite))?;
    if let Some(name) = &change.name {
        check_name(name)?;
    }
    if let Some(slug) = &change.slug {
        check_slug(slug)?;
    }
    let mut tx = loom_db::begin(&auth.pool).await?;
    if change.slug.is_some() {
        members::lock(&mut tx, here.org).await?;
    }
    store::rename(&mut *tx, here.org, change.name.as_deref(), change.slug.as_deref()).await?;
    let changed = store::member_ids(&mut *tx, here.org).await?;
    tell(&mut *tx, &changed).await?;
    tx.commit().await?;
    auth.forget(&changed).await;
    let details = json!({"name": change.name, "slug": change.slug});
    auth.done(&here, None, &info, "organisation.change", here.org, details).await?;
    shown(&auth, &here).await.map(Json)
}

/// Delete an organisation, with its members and keys
///
/// Only when there is nothing else in it any more.
#[utoipa::path(delete, path = "/api/orgs/{org}", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug")),
    responses((status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`organisation_not_empty`, `personal_organisation`", body = Problem, content_type = "application/problem+json")))]
async fn delete_org(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path(org): Path<String>,
) -> Result<StatusCode> {
    let here = auth.acting_in(&principal, &org).await?;
    authorize(&here, Action::OwnOrg(Scope::AdminWrite))?;
    only_users(&here)?;
    let mut tx = loom_db::begin(&auth.pool).await?;
    members::lock(&mut tx, here.org).await?;
    let here = as_of_now(&mut tx, &here).await?;
    authorize(&here, Action::OwnOrg(Scope::AdminWrite))?;
    let name = store::name(&mut *tx, here.org).await?;
    let gone = store::delete(&mut tx, here.org).await?;
    tell(&mut *tx, &gone).await?;
    tx.commit().await?;
    auth.forget(&gone).await;
    let details = json!({"name": name});
    auth.done(&here, None, &info, "organisation.delete", here.org, details).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check_slug(slug: &str) -> Result<()> {
    if is_slug(slug) {
        return Ok(());
    }
    Err(Error::invalid(
        "slug",
        "is 1 to 63 of `a-z`, `0-9` and `-`, with a letter or digit at both ends, and not a UUID",
    ))
}

fn check_name(name: &str) -> Result<()> {
    if text::is_plain_line(name, 200) {
        Ok(())
    } else {
        Err(Error::invalid("name", "is one line of 1 to 200 bytes"))
    }
}

/// `u-` begins the slugs that we make ourselves.
fn is_slug(slug: &str) -> bool {
    (1..=63).contains(&slug.len())
        && slug.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !slug.starts_with('-')
        && !slug.ends_with('-')
        && !slug.starts_with("u-")
        // It stands in paths beside the slugs.
        && slug != "invitations"
        && slug.parse::<uuid::Uuid>().is_err()
}
