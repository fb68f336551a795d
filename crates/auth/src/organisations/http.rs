//! The routes of organisations.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use loom_core::{
    Error, Json, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::OrgId,
    port::{Act, Audit, Outcome},
    principal::{OrgRole, RequestInfo, Scope},
    text,
};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{NewOrganisation, Organisation, Organisations},
    store,
};
use crate::{Auth, path::only_users};

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().routes(routes!(list_orgs, create_org))
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
    if !is_slug(&new.slug) {
        return Err(Error::invalid(
            "slug",
            "is 1 to 63 of `a-z`, `0-9` and `-`, with a letter or digit at both ends, and not a UUID",
        ));
    }
    if !text::is_plain_line(&new.name, 200) {
        return Err(Error::invalid("name", "is one line of 1 to 200 bytes"));
    }
    let now = auth.clock.now();
    let org = OrgId::new(now);
    let mut tx = loom_db::begin(&auth.pool).await?;
    store::insert_organisation(&mut tx, org, &new.slug, &new.name, false, now).await?;
    store::insert_member(&mut tx, org, user, OrgRole::Owner, now).await?;
    tx.commit().await?;
    let act = Act {
        action: "organisation.create",
        target: org.to_string(),
        outcome: Outcome::Success,
        details: json!({"slug": new.slug}),
    };
    auth.audit.record(Some(&principal), Some(org), Some(&info), act).await?;
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

/// `u-` begins the slugs that we make ourselves.
fn is_slug(slug: &str) -> bool {
    (1..=63).contains(&slug.len())
        && slug.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !slug.starts_with('-')
        && !slug.ends_with('-')
        && !slug.starts_with("u-")
        && slug.parse::<uuid::Uuid>().is_err()
}
