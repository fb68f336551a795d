//! The routes of authentication and organisations.

use std::time::Duration;

use axum::{
    extract::State,
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::{ApiKeyId, OrgId, UserId},
    page::{PageQuery, cut},
    port::{Act, Audit, Outcome},
    principal::{Actor, OrgRole, RequestInfo, Scope, Scopes, Via, required},
    text,
};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Auth, bootstrap,
    model::{
        ApiKey, ApiKeys, CreatedApiKey, KeyKind, Me, MeVia, NewApiKey, NewOrganisation,
        Organisation, Organisations,
    },
    store, token,
};

const MAX_KEY_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);

pub(crate) fn routes(auth: Auth) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(get_me))
        .routes(routes!(list_orgs, create_org))
        .routes(routes!(list_api_keys, create_api_key))
        .routes(routes!(revoke_api_key))
        .route_layer(middleware::from_fn(required))
        .with_state(auth)
}

/// Who this request is
#[utoipa::path(get, path = "/auth/me", tag = "auth", security(("api_key" = [])),
    responses((status = 200, body = Me), (status = 401, body = Problem, content_type = "application/problem+json")))]
async fn get_me(State(auth): State<Auth>, principal: Principal) -> Result<Json<Me>> {
    let (user, organisations) = match principal.user_id() {
        Some(user) => (
            Some(store::user(&auth.pool, user).await?),
            store::organisations(&auth.pool, user).await?,
        ),
        None => (
            None,
            store::organisation(&auth.pool, principal.org, principal.role)
                .await?
                .into_iter()
                .collect(),
        ),
    };
    let via = match principal.via {
        Via::ApiKey(id) => MeVia::ApiKey { id },
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

fn only_users(principal: &Principal) -> Result<UserId> {
    principal
        .user_id()
        .ok_or_else(|| Error::forbidden("only a user may do this, not a service key"))
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

impl Auth {
    /// The organisation in the path, in which the principal must be a member; with its role there.
    async fn org_in_path(&self, principal: &Principal, path: &str) -> Result<(OrgId, OrgRole)> {
        let names = |org: &Organisation| org.slug == path || path.parse() == Ok(org.id);
        match principal.actor {
            Actor::User(user) => store::organisations(&self.pool, user).await?,
            Actor::Service(_) | Actor::Weaver(_) => {
                store::organisation(&self.pool, principal.org, principal.role)
                    .await?
                    .into_iter()
                    .collect()
            }
        }
        .into_iter()
        .find(names)
        .map(|org| (org.id, org.role))
        .ok_or_else(|| Error::not_found("organisation"))
    }
}

/// The API keys of an organisation, newest first
///
/// Admins see all of them, other members their own.
#[utoipa::path(get, path = "/api/orgs/{org}/api-keys", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), PageQuery),
    responses((status = 200, body = ApiKeys), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn list_api_keys(
    State(auth): State<Auth>,
    principal: Principal,
    Path(org): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ApiKeys>> {
    authorize(&principal, Action::Use(Scope::AdminRead))?;
    let (org, role) = auth.org_in_path(&principal, &org).await?;
    let only = if role >= OrgRole::Admin { None } else { Some(only_users(&principal)?) };
    let kind = format!("api_keys:{org}");
    let limit = page.limit()?;
    let keys = store::keys(&auth.pool, org, only, page.after_time(&kind)?, limit + 1).await?;
    let (api_keys, next_cursor) = cut(keys, limit, &kind, |key| (key.created_at, key.id));
    Ok(Json(ApiKeys { api_keys, next_cursor }))
}

/// Create an API key; its secret is shown this once
///
/// A personal key acts as you; a service key (made by admins) acts as the organisation.
#[utoipa::path(post, path = "/api/orgs/{org}/api-keys", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug")), request_body = NewApiKey,
    responses((status = 201, body = CreatedApiKey),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn create_api_key(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path(org): Path<String>,
    Json(new): Json<NewApiKey>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::AdminWrite))?;
    let (org, role) = auth.org_in_path(&principal, &org).await?;
    let creator = only_users(&principal)?;
    if !text::is_plain_line(&new.name, 100) {
        return Err(Error::invalid("name", "is one line of 1 to 100 bytes"));
    }
    let expires_in = new.expires_in_secs.map(|secs| Duration::from_secs(secs.into()));
    if expires_in.is_some_and(|after| after.is_zero() || after > MAX_KEY_LIFE) {
        return Err(Error::invalid("expires_in_secs", "is 1 second to a year"));
    }
    let scopes: Scopes = new.scopes.iter().copied().collect();
    if scopes == Scopes::default() {
        return Err(Error::invalid("scopes", "names at least one scope"));
    }
    if !scopes.is_subset_of(principal.scopes) {
        return Err(Error::forbidden(
            "a key cannot have scopes that the credential making it lacks",
        ));
    }
    let (kind, user) = match new.kind {
        KeyKind::Personal => (token::TokenKind::Personal, Some(creator)),
        KeyKind::Service if role >= OrgRole::Admin => (token::TokenKind::Service, None),
        KeyKind::Service => {
            return Err(Error::forbidden(
                "only an admin or owner of this organisation may make service keys",
            ));
        }
    };
    let secret = token::generate(kind);
    let now = auth.clock.now();
    let id = ApiKeyId::new(now);
    let row = store::KeyRow {
        id,
        org,
        user,
        name: &new.name,
        digest: &token::digest(secret.expose()),
        last_four: bootstrap::last_four(secret.expose()),
        scopes,
        created_by: Some(creator),
        created_at: now,
        expires_at: expires_in.map(|after| now + after),
    };
    store::insert_key(&auth.pool, &row).await?;
    let act = Act {
        action: "api_key.create",
        target: id.to_string(),
        outcome: Outcome::Success,
        details: json!({"scopes": new.scopes, "kind": new.kind}),
    };
    auth.audit.record(Some(&principal), Some(org), Some(&info), act).await?;
    let key = ApiKey {
        id,
        kind: new.kind,
        hint: store::hint(new.kind, row.last_four),
        scopes: scopes.iter().collect(),
        user_id: user,
        created_at: now,
        expires_at: row.expires_at,
        last_used_at: None,
        name: new.name,
    };
    let created = CreatedApiKey { key, secret: secret.expose().to_owned() };
    let headers = [
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::LOCATION, format!("/api/orgs/{org}/api-keys/{id}")),
    ];
    Ok((StatusCode::CREATED, headers, Json(created)).into_response())
}

/// Revoke an API key at once
#[utoipa::path(delete, path = "/api/orgs/{org}/api-keys/{id}", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), ("id" = ApiKeyId, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn revoke_api_key(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path((org, id)): Path<(String, ApiKeyId)>,
) -> Result<StatusCode> {
    authorize(&principal, Action::Use(Scope::AdminWrite))?;
    let (org, role) = auth.org_in_path(&principal, &org).await?;
    let only = if role >= OrgRole::Admin { None } else { Some(only_users(&principal)?) };
    let digest = store::revoke_key(&auth.pool, org, id, only, auth.clock.now())
        .await?
        .ok_or_else(|| Error::not_found("API key"))?;
    auth.forget(&digest).await;
    let act = Act {
        action: "api_key.revoke",
        target: id.to_string(),
        outcome: Outcome::Success,
        details: json!({}),
    };
    auth.audit.record(Some(&principal), Some(org), Some(&info), act).await?;
    Ok(StatusCode::NO_CONTENT)
}
