//! The routes of providers and their credentials, for those who run this installation.

use axum::{
    extract::State,
    http::{HeaderName, StatusCode, header},
    middleware,
};
use loom_core::{
    Error, Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::CredentialId,
    principal::{RequestInfo, Scope, required},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoResponses, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    admin::CredentialChange,
    health::Counts,
    member::Who,
    model::{CredentialView, NewCredential},
    test::Tested,
};
use crate::{LlmProxy, dialect::Dialect};

/// The admin routes.
pub(crate) fn routes(proxy: LlmProxy) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_llm_providers))
        .routes(routes!(list_llm_credentials, add_llm_credential))
        .routes(routes!(get_llm_credential, change_llm_credential, delete_llm_credential))
        .routes(routes!(enable_llm_credential))
        .routes(routes!(disable_llm_credential))
        .routes(routes!(test_llm_credential))
        .route_layer(middleware::from_fn(required))
        .with_state(proxy)
}

/// Who may not.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes what is answered elsewhere")]
enum Refused {
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// Auditors may look, system admins also change things
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
}

#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes what is answered elsewhere")]
enum Unknown {
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
}

#[derive(Serialize, ToSchema)]
struct LlmProviders {
    providers: Vec<LlmProvider>,
}

/// Somewhere that models are served.
#[derive(Serialize, ToSchema)]
struct LlmProvider {
    name: String,
    /// `anthropic`, `openai` or `gemini`
    dialect: &'static str,
    /// Has what it needs to be asked
    configured: bool,
    /// The last request to it, from this replica, got no sound answer
    failing: bool,
    /// By their state, as this replica knows it
    credentials: Counts,
}

#[derive(Serialize, ToSchema)]
struct Credentials {
    credentials: Vec<CredentialView>,
}

/// Why.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Disabling {
    reason: Option<String>,
}

/// The providers of models, and in what state their credentials are
#[utoipa::path(get, path = "/api/admin/llm/providers", tag = "llm", security(("api_key" = [])),
    responses((status = 200, body = LlmProviders), Refused))]
async fn list_llm_providers(
    State(proxy): State<LlmProxy>,
    principal: Principal,
) -> Result<Json<LlmProviders>> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    let now = proxy.clock.now();
    let view = |provider: &std::sync::Arc<crate::provider::Provider>| LlmProvider {
        name: provider.name.to_string(),
        dialect: match provider.dialect {
            Dialect::Anthropic => "anthropic",
            Dialect::OpenAi => "openai",
            Dialect::Gemini => "gemini",
        },
        configured: provider.is_configured(),
        failing: provider.failing.load(std::sync::atomic::Ordering::Relaxed),
        credentials: Counts::of(&provider.pool, now),
    };
    Ok(Json(LlmProviders { providers: proxy.providers.iter().map(view).collect() }))
}

/// The credentials of a provider, without their secrets
#[utoipa::path(get, path = "/api/admin/llm/providers/{provider}/credentials", tag = "llm", security(("api_key" = [])),
    params(("provider" = String, Path)),
    responses((status = 200, body = Credentials), Refused, Unknown))]
async fn list_llm_credentials(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    Path(provider): Path<String>,
) -> Result<Json<Credentials>> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    let provider = proxy.provider_with_credentials(&provider)?;
    let credentials = proxy.list_credentials(Some(&provider.name)).await?;
    Ok(Json(Credentials { credentials }))
}

/// Add a credential
///
/// It is stored sealed, is never shown again, and is in use on every replica at once.
#[utoipa::path(post, path = "/api/admin/llm/providers/{provider}/credentials", tag = "llm", security(("api_key" = [])),
    params(("provider" = String, Path)), request_body = NewCredential,
    responses((status = 201, body = CredentialView), Refused, Unknown,
        (status = 409, description = "`conflict`: the name is taken; `too_many_credentials`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_request`", body = Problem, content_type = "application/problem+json")))]
async fn add_llm_credential(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path(provider): Path<String>,
    Json(new): Json<NewCredential>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<CredentialView>)> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let id = proxy.add_credential(&provider, &new).await?;
    let view = stored(&proxy, &provider, id).await?;
    let details = json!({"provider": provider, "name": view.name, "kind": view.kind});
    proxy.audit.done(&principal, &info, "llm_credential.create", id.to_string(), details).await?;
    let location = format!("/api/admin/llm/providers/{provider}/credentials/{id}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)))
}

/// A credential, without its secret
#[utoipa::path(get, path = "/api/admin/llm/providers/{provider}/credentials/{id}", tag = "llm", security(("api_key" = [])),
    params(("provider" = String, Path), ("id" = CredentialId, Path)),
    responses((status = 200, body = CredentialView), Refused, Unknown))]
async fn get_llm_credential(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    Path((provider, id)): Path<(String, CredentialId)>,
) -> Result<Json<CredentialView>> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    stored(&proxy, &provider, id).await.map(Json)
}

/// Change a credential
///
/// What is absent stays. A new secret takes the place of the old one, and ends the state that the old one
/// was in, unless an administrator disabled it.
#[utoipa::path(patch, path = "/api/admin/llm/providers/{provider}/credentials/{id}", tag = "llm", security(("api_key" = [])),
    params(("provider" = String, Path), ("id" = CredentialId, Path)), request_body = CredentialChange,
    responses((status = 200, body = CredentialView), Refused, Unknown,
        (status = 409, description = "`conflict`: the name is taken", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_request`", body = Problem, content_type = "application/problem+json")))]
async fn change_llm_credential(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path((provider, id)): Path<(String, CredentialId)>,
    Json(change): Json<CredentialChange>,
) -> Result<Json<CredentialView>> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let of = proxy.provider_with_credentials(&provider)?;
    proxy.change_credential(of, id, &change).await?;
    let view = stored(&proxy, &provider, id).await?;
    done(&proxy, &principal, &info, "llm_credential.change", &view).await?;
    Ok(Json(view))
}

/// Delete a credential
#[utoipa::path(delete, path = "/api/admin/llm/providers/{provider}/credentials/{id}", tag = "llm", security(("api_key" = [])),
    params(("provider" = String, Path), ("id" = CredentialId, Path)),
    responses((status = 204), Refused, Unknown))]
async fn delete_llm_credential(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path((provider, id)): Path<(String, CredentialId)>,
) -> Result<StatusCode> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let view = stored(&proxy, &provider, id).await?;
    proxy.delete_credential(id).await?;
    done(&proxy, &principal, &info, "llm_credential.delete", &view).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Enable a credential
///
/// Whatever disabled it; it does not cool down either.
#[utoipa::path(post, path = "/api/admin/llm/providers/{provider}/credentials/{id}/enable", tag = "llm", security(("api_key" = [])),
    params(("provider" = String, Path), ("id" = CredentialId, Path)),
    responses((status = 200, body = CredentialView), Refused, Unknown))]
async fn enable_llm_credential(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path((provider, id)): Path<(String, CredentialId)>,
) -> Result<Json<CredentialView>> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    stored(&proxy, &provider, id).await?;
    proxy.switch_credential(id, true, None).await?;
    let view = stored(&proxy, &provider, id).await?;
    done(&proxy, &principal, &info, "llm_credential.enable", &view).await?;
    Ok(Json(view))
}

/// Disable a credential
#[utoipa::path(post, path = "/api/admin/llm/providers/{provider}/credentials/{id}/disable", tag = "llm", security(("api_key" = [])),
    params(("provider" = String, Path), ("id" = CredentialId, Path)), request_body = Disabling,
    responses((status = 200, body = CredentialView), Refused, Unknown,
        (status = 422, description = "`invalid_request`", body = Problem, content_type = "application/problem+json")))]
async fn disable_llm_credential(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path((provider, id)): Path<(String, CredentialId)>,
    Json(why): Json<Disabling>,
) -> Result<Json<CredentialView>> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    stored(&proxy, &provider, id).await?;
    proxy.switch_credential(id, false, why.reason.as_deref()).await?;
    let view = stored(&proxy, &provider, id).await?;
    done(&proxy, &principal, &info, "llm_credential.disable", &view).await?;
    Ok(Json(view))
}

/// Ask the provider whether a credential is good
///
/// A real call, for the list of models. The one from the environment has the id `environment`.
#[utoipa::path(post, path = "/api/admin/llm/providers/{provider}/credentials/{id}/test", tag = "llm", security(("api_key" = [])),
    params(("provider" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = Tested), Refused, Unknown))]
async fn test_llm_credential(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path((provider, id)): Path<(String, String)>,
) -> Result<Json<Tested>> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let of = proxy.provider_with_credentials(&provider)?;
    let who = match id.as_str() {
        "environment" => Who::Environment,
        id => Who::Stored(id.parse().map_err(|_| Error::not_found("credential"))?),
    };
    let member = of.pool.members().into_iter().find(|member| member.who == who);
    let member = member.ok_or_else(|| Error::not_found("credential"))?;
    let tested = proxy.test(of, &member).await;
    let details = json!({"provider": provider, "name": tested.name, "ok": tested.ok});
    proxy.audit.done(&principal, &info, "llm_credential.test", id, details).await?;
    Ok(Json(tested))
}

async fn stored(proxy: &LlmProxy, provider: &str, id: CredentialId) -> Result<CredentialView> {
    let provider = proxy.provider_with_credentials(provider)?;
    Ok(proxy.view(proxy.row(provider, id).await?))
}

async fn done(
    proxy: &LlmProxy,
    principal: &Principal,
    info: &RequestInfo,
    action: &'static str,
    view: &CredentialView,
) -> Result<()> {
    let id = view.id.map(|id| id.to_string()).unwrap_or_default();
    let details = json!({"provider": view.provider, "name": view.name});
    proxy.audit.done(principal, info, action, id, details).await
}
