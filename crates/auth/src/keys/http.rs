//! The routes of API keys.

use std::time::Duration;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::ApiKeyId,
    page::{PageQuery, cut},
    port::{Act, Audit, Outcome},
    principal::{OrgRole, RequestInfo, Scope, Scopes},
    text,
};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{ApiKey, ApiKeys, CreatedApiKey, KeyKind, NewApiKey},
    store,
};
use crate::{
    Auth,
    authenticate::{Revoked, tell},
    bootstrap,
    path::only_users,
    token,
};

const MAX_KEY_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .routes(routes!(list_api_keys, create_api_key))
        .routes(routes!(revoke_api_key))
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
    let revoked: Vec<Revoked> = Revoked::digest(&digest).into_iter().collect();
    tell(&auth.pool, &revoked).await?;
    auth.forget(&revoked).await;
    let act = Act {
        action: "api_key.revoke",
        target: id.to_string(),
        outcome: Outcome::Success,
        details: json!({}),
    };
    auth.audit.record(Some(&principal), Some(org), Some(&info), act).await?;
    Ok(StatusCode::NO_CONTENT)
}
