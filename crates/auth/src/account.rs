//! A user's own account: the name, and the ways in, which are the identities connected to it.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use loom_core::{
    Error, Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::UserId,
    principal::{RequestInfo, Scope},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    Auth,
    path::only_users,
    sessions::is_browser,
    sign_in::store,
    users::{model::User, store as users},
};

/// The page of the dashboard that shows this.
const PROFILE: &str = "/settings/profile";
const NAME_MAX: usize = 100;

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .routes(routes!(change_account))
        .routes(routes!(list_identities))
        .routes(routes!(disconnect_identity))
        .routes(routes!(connect_identity))
}

/// An identity at a provider that opens this account.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Identity {
    pub(crate) id: Uuid,
    /// `github`, `google` or `oidc`.
    pub(crate) provider: String,
    /// What the provider calls it, as it last said.
    pub(crate) login: Option<String>,
    pub(crate) email: Option<String>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) last_used_at: DateTime<Utc>,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Identities {
    pub(crate) identities: Vec<Identity>,
    /// Whether the account's own address is proven, and mail can be sent: then it is a way in too.
    pub(crate) magic_link: bool,
}

/// Where a browser goes to connect an identity.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Connecting {
    pub(crate) location: String,
}

/// What of an account its user may change.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct AccountChange {
    /// What others see; at most 100 characters, and empty for none.
    name: String,
}

/// Change your own account
#[utoipa::path(patch, path = "/api/account", tag = "auth", security(("api_key" = []), ("session" = [])),
    request_body = AccountChange,
    responses((status = 200, body = User), (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn change_account(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Json(change): Json<AccountChange>,
) -> Result<Json<User>> {
    authorize(&principal, Action::Use(Scope::AdminWrite))?;
    let user = only_users(&principal)?;
    let name = change.name.trim();
    if name.chars().count() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(Error::invalid(
            "name",
            format!("is one line of at most {NAME_MAX} characters"),
        ));
    }
    let changed = users::rename(&auth.pool, user, name).await?;
    auth.done(&principal, None, &info, "user.rename", user, json!({"name": name})).await?;
    Ok(Json(changed))
}

/// The ways into your account
#[utoipa::path(get, path = "/api/account/identities", tag = "auth", security(("api_key" = []), ("session" = [])),
    responses((status = 200, body = Identities), (status = 401, body = Problem, content_type = "application/problem+json")))]
async fn list_identities(
    State(auth): State<Auth>,
    principal: Principal,
) -> Result<Json<Identities>> {
    authorize(&principal, Action::Use(Scope::AdminRead))?;
    Ok(Json(auth.ways_in(only_users(&principal)?).await?))
}

/// Take a way into your account away; never the last one
#[utoipa::path(delete, path = "/api/account/identities/{id}", tag = "auth", security(("api_key" = []), ("session" = [])),
    params(("id" = Uuid, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`last_way_in`", body = Problem, content_type = "application/problem+json")))]
async fn disconnect_identity(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<Uuid>,
) -> Result<StatusCode> {
    auth.disconnect(&principal, &info, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Begin to connect a further identity to your account
///
/// From a signed-in browser, which then goes to the location and comes back with the identity connected.
#[utoipa::path(post, path = "/api/account/identities/{provider}/connect", tag = "auth", security(("session" = [])),
    params(("provider" = String, Path, description = "`github`, `google` or `oidc`")),
    responses((status = 200, body = Connecting),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 501, description = "`provider_not_configured`", body = Problem, content_type = "application/problem+json")))]
async fn connect_identity(
    State(auth): State<Auth>,
    principal: Principal,
    headers: HeaderMap,
    Path(provider): Path<String>,
) -> Result<Response> {
    let (location, cookie) =
        auth.begin_to_connect(&principal, &provider, &headers, PROFILE).await?;
    let headers = [(header::SET_COOKIE, cookie)];
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((headers, no_store, Json(Connecting { location })).into_response())
}

impl Auth {
    pub(crate) async fn ways_in(&self, user: UserId) -> Result<Identities> {
        let mut tx = loom_db::begin(&self.pool).await?;
        let (_, verified) = store::lock_user(&mut tx, user).await?;
        let rows = store::identities(&mut tx, user).await?;
        let identities = rows.into_iter().map(|row| Identity {
            id: row.id,
            provider: row.provider,
            login: row.login,
            email: row.email,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
        });
        Ok(Identities {
            identities: identities.collect(),
            magic_link: verified && self.magic_links_work(),
        })
    }

    pub(crate) async fn disconnect(
        &self,
        principal: &Principal,
        info: &RequestInfo,
        id: Uuid,
    ) -> Result<()> {
        authorize(principal, Action::Use(Scope::AdminWrite))?;
        let user = only_users(principal)?;
        let mut tx = loom_db::begin(&self.pool).await?;
        let (_, verified) = store::lock_user(&mut tx, user).await?;
        let provider = store::delete_identity(&mut tx, user, id)
            .await?
            .ok_or_else(|| Error::not_found("identity"))?;
        let by_mail = verified && self.magic_links_work();
        // One of a provider that is no longer configured opens nothing.
        let by_provider = store::identities(&mut tx, user)
            .await?
            .iter()
            .any(|left| self.sign_in.provider(&left.provider).is_ok());
        if !by_mail && !by_provider {
            return Err(Error::conflict(
                "last_way_in",
                "this is the last way into your account; connect another one first",
            ));
        }
        tx.commit().await?;
        let details = json!({"provider": provider});
        self.done(principal, None, info, "identity.disconnect", id, details).await
    }

    pub(crate) async fn begin_to_connect(
        &self,
        principal: &Principal,
        provider: &str,
        headers: &HeaderMap,
        back_to: &str,
    ) -> Result<(String, HeaderValue)> {
        let user =
            principal.user_id().filter(|_| is_browser(principal, headers)).ok_or_else(|| {
                Error::forbidden(
                    "an identity is connected from a browser that is signed in; \
                 an API key or the token of a device cannot",
                )
            })?;
        let configured = self.sign_in.provider(provider)?;
        self.begin_at(&configured, provider, headers, back_to.to_owned(), Some(user)).await
    }
}
