//! The routes of API keys.

use std::time::Duration;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::{ApiKeyId, UserId},
    page::{PageQuery, cut},
    principal::{OrgRole, RequestInfo, Scope, Scopes},
    text,
};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{
        ApiKey, ApiKeyChange, ApiKeys, CreatedApiKey, KeyKind, NewApiKey, nanousd, networks, usd,
    },
    store,
};
use crate::{Auth, authenticate::tell, bootstrap, path::only_users, token};

const MAX_KEY_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().routes(routes!(list_api_keys, create_api_key)).routes(routes!(
        get_api_key,
        change_api_key,
        revoke_api_key
    ))
}

/// Admins see and change all keys of their organisation, other members their own.
fn whose(here: &Principal) -> Result<Option<UserId>> {
    if here.role >= OrgRole::Admin { Ok(None) } else { only_users(here).map(Some) }
}

fn check_name(name: &str) -> Result<()> {
    if text::is_plain_line(name, 100) {
        Ok(())
    } else {
        Err(Error::invalid("name", "is one line of 1 to 100 bytes"))
    }
}

fn expiry(now: DateTime<Utc>, secs: Option<u32>) -> Result<Option<DateTime<Utc>>> {
    let after = secs.map(|secs| Duration::from_secs(secs.into()));
    if after.is_some_and(|after| after.is_zero() || after > MAX_KEY_LIFE) {
        return Err(Error::invalid("expires_in_secs", "is 1 second to a year"));
    }
    Ok(after.map(|after| now + after))
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
    let here = auth.acting_in(&principal, &org).await?;
    authorize(&here, Action::Use(Scope::AdminRead))?;
    let kind = format!("api_keys:{}", here.org);
    let limit = page.limit()?;
    let after = page.after_time(&kind)?;
    let keys = store::keys(&auth.pool, here.org, whose(&here)?, after, limit + 1).await?;
    let (api_keys, next_cursor) = cut(keys, limit, &kind, |key| (key.created_at, key.id));
    Ok(Json(ApiKeys { api_keys, next_cursor }))
}

/// Create an API key; its secret is shown this once
///
/// A personal key acts as you; a service key (made by admins) acts as the organisation. A key that makes
/// one hands its own limits on: scopes, expiry, networks, budget.
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
    let here = auth.acting_in(&principal, &org).await?;
    authorize(&here, Action::Use(Scope::AdminWrite))?;
    let creator = only_users(&here)?;
    check_name(&new.name)?;
    let now = auth.clock.now();
    let expires_at = expiry(now, new.expires_in_secs)?;
    let scopes: Scopes = new.scopes.iter().copied().collect();
    if scopes == Scopes::default() {
        return Err(Error::invalid("scopes", "names at least one scope"));
    }
    if !scopes.is_subset_of(here.scopes) {
        return Err(Error::forbidden(
            "a key cannot have scopes that the credential making it lacks",
        ));
    }
    let networks = networks(&new.allowed_networks)?;
    let budget_nanousd = new.monthly_budget_usd.map(nanousd).transpose()?;
    let limits = auth.limits_of(&here).await?;
    limits.allow_expiry(expires_at)?;
    limits.allow_networks(&networks)?;
    limits.allow_budget(budget_nanousd)?;
    let (kind, user) = match new.kind {
        KeyKind::Personal => (token::TokenKind::Personal, Some(creator)),
        KeyKind::Service => {
            authorize(&here, Action::ManageOrg(Scope::AdminWrite))?;
            (token::TokenKind::Service, None)
        }
    };
    let secret = token::generate(kind);
    let id = ApiKeyId::new(now);
    let row = store::KeyRow {
        id,
        org: here.org,
        user,
        name: &new.name,
        digest: &token::digest(secret.expose()),
        last_four: bootstrap::last_four(secret.expose()),
        scopes,
        created_by: Some(creator),
        created_at: now,
        created_ip: Some(info.ip.to_string()),
        expires_at,
        networks: &networks,
        budget_nanousd,
    };
    store::insert_key(&auth.pool, &row).await?;
    let details = json!({"scopes": new.scopes, "kind": new.kind});
    auth.done(&here, None, &info, "api_key.create", id, details).await?;
    let key = ApiKey {
        id,
        kind: new.kind,
        hint: store::hint(new.kind, row.last_four),
        scopes: scopes.iter().collect(),
        user_id: user,
        monthly_budget_usd: budget_nanousd.map(usd),
        created_at: now,
        expires_at,
        last_used_at: None,
        name: new.name,
        allowed_networks: networks,
    };
    let location = format!("/api/orgs/{}/api-keys/{id}", here.org);
    let created = CreatedApiKey { key, secret: secret.expose().to_owned() };
    let headers = [(header::CACHE_CONTROL, "no-store".to_owned()), (header::LOCATION, location)];
    Ok((StatusCode::CREATED, headers, Json(created)).into_response())
}

/// An API key
#[utoipa::path(get, path = "/api/orgs/{org}/api-keys/{id}", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), ("id" = ApiKeyId, Path)),
    responses((status = 200, body = ApiKey), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn get_api_key(
    State(auth): State<Auth>,
    principal: Principal,
    Path((org, id)): Path<(String, ApiKeyId)>,
) -> Result<Json<ApiKey>> {
    let here = auth.acting_in(&principal, &org).await?;
    authorize(&here, Action::Use(Scope::AdminRead))?;
    let key = store::key(&auth.pool, here.org, id, whose(&here)?).await?;
    key.map(Json).ok_or_else(|| Error::not_found("API key"))
}

/// Change the name, expiry, networks or budget of an API key
///
/// Its scopes stay as they are, and so does its secret. The credential that changes it must have all of
/// its scopes, and a key gives no more than its own limits allow, itself included.
#[utoipa::path(patch, path = "/api/orgs/{org}/api-keys/{id}", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), ("id" = ApiKeyId, Path)), request_body = ApiKeyChange,
    responses((status = 200, body = ApiKey),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn change_api_key(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path((org, id)): Path<(String, ApiKeyId)>,
    Json(change): Json<ApiKeyChange>,
) -> Result<Json<ApiKey>> {
    let here = auth.acting_in(&principal, &org).await?;
    authorize(&here, Action::Use(Scope::AdminWrite))?;
    let limits = auth.limits_of(&here).await?;
    let mut tx = loom_db::begin(&auth.pool).await?;
    let mut key = store::key(&mut *tx, here.org, id, whose(&here)?)
        .await?
        .ok_or_else(|| Error::not_found("API key"))?;
    if !key.scopes.iter().copied().collect::<Scopes>().is_subset_of(here.scopes) {
        return Err(Error::forbidden("this credential lacks scopes that the key has"));
    }
    if let Some(name) = change.name {
        check_name(&name)?;
        key.name = name;
    }
    if let Some(secs) = change.expires_in_secs {
        key.expires_at = expiry(auth.clock.now(), secs)?;
        limits.allow_expiry(key.expires_at)?;
    }
    if let Some(allowed) = &change.allowed_networks {
        key.allowed_networks = networks(allowed)?;
        limits.allow_networks(&key.allowed_networks)?;
    }
    if let Some(budget) = change.monthly_budget_usd {
        key.monthly_budget_usd = budget;
    }
    let budget = key.monthly_budget_usd.map(nanousd).transpose()?;
    if change.monthly_budget_usd.is_some() {
        limits.allow_budget(budget)?;
    }
    let changed = store::update_key(&mut *tx, here.org, &key, budget)
        .await?
        .ok_or_else(|| Error::not_found("API key"))?;
    tell(&mut *tx, std::slice::from_ref(&changed)).await?;
    tx.commit().await?;
    auth.forget(&[changed]).await;
    let details = json!({
        "name": key.name, "expires_at": key.expires_at, "allowed_networks": key.allowed_networks,
        "monthly_budget_usd": key.monthly_budget_usd,
    });
    auth.done(&here, None, &info, "api_key.change", id, details).await?;
    Ok(Json(key))
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
    let here = auth.acting_in(&principal, &org).await?;
    authorize(&here, Action::Use(Scope::AdminWrite))?;
    let mut tx = loom_db::begin(&auth.pool).await?;
    let revoked = store::revoke_key(&mut *tx, here.org, id, whose(&here)?, auth.clock.now())
        .await?
        .ok_or_else(|| Error::not_found("API key"))?;
    tell(&mut *tx, std::slice::from_ref(&revoked)).await?;
    tx.commit().await?;
    auth.forget(&[revoked]).await;
    auth.done(&here, None, &info, "api_key.revoke", id, json!({})).await?;
    Ok(StatusCode::NO_CONTENT)
}
