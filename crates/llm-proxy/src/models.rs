//! The lists of models: the provider's own when there is one, merged when there are several.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures::future::join_all;
use loom_core::{
    Error, Path, Principal, Result,
    authorize::{Action, authorize},
    principal::Scope,
};
use serde_json::{Value, json};

use crate::{
    LlmProxy, demo,
    dialect::Dialect,
    forward::{Incoming, read_to, response_headers, without_org},
    provider::Provider,
};

const MAX_LIST: usize = 8 << 20;

/// The models that are served here
///
/// In OpenAI's shape, or in Anthropic's when `anthropic-version` is sent.
#[utoipa::path(get, path = "/v1/models", tag = "llm", security(("api_key" = [])),
    responses((status = 200, body = Object), (status = 401, body = Object)))]
pub(crate) async fn list_models(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    proxy.models(&principal, &uri, &headers).await.into_response()
}

/// One model
#[utoipa::path(get, path = "/v1/models/{id}", tag = "llm", security(("api_key" = [])),
    params(("id" = String, Path, description = "May hold slashes")),
    responses((status = 200, body = Object), (status = 401, body = Object), (status = 404, body = Object)))]
pub(crate) async fn get_model(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    uri: Uri,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    proxy.model(&principal, &uri, &headers, &id).await.into_response()
}

/// The same for an id with slashes, whose path the documented route does not match.
pub(crate) async fn get_model_with_slashes(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    uri: Uri,
    headers: HeaderMap,
    Path((vendor, name)): Path<(String, String)>,
) -> Response {
    let id = format!("{vendor}/{name}");
    proxy.model(&principal, &uri, &headers, &id).await.into_response()
}

fn dialect(uri: &Uri, headers: &HeaderMap) -> Dialect {
    let path = uri.path();
    let anthropic = path.starts_with("/anthropic/")
        || (!path.starts_with("/openai/") && headers.contains_key("anthropic-version"));
    if anthropic { Dialect::Anthropic } else { Dialect::OpenAi }
}

impl LlmProxy {
    async fn models(
        &self,
        principal: &Principal,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Response> {
        authorize(principal, Action::Use(Scope::LlmUse))?;
        let dialect = dialect(uri, headers);
        self.refresh_credentials_if_old();
        let providers: Vec<_> = self.providers.speaking(dialect).collect();
        match providers.as_slice() {
            [] => {
                self.providers.serving(dialect, "").map(|_| StatusCode::NO_CONTENT.into_response())
            }
            [only] if !only.is_demo() => {
                let mut url = only.models_url(None);
                url.set_query(uri.query().and_then(without_org).as_deref());
                Ok(passed_on(self.fetch(only, url, headers).await?))
            }
            several => {
                let lists = join_all(
                    several.iter().map(|provider| self.models_of(provider, headers, dialect)),
                )
                .await;
                let models: Vec<Value> = lists.into_iter().flatten().collect();
                Ok(axum::Json(list(dialect, &models)).into_response())
            }
        }
    }

    /// One provider's models. A provider that does not answer has none just now.
    async fn models_of(
        &self,
        provider: &Provider,
        headers: &HeaderMap,
        dialect: Dialect,
    ) -> Vec<Value> {
        if provider.is_demo() {
            return vec![demo::model(dialect)];
        }
        let answer = match self.fetch(provider, provider.models_url(None), headers).await {
            Ok(answer) if answer.status().is_success() => answer,
            Ok(answer) => {
                tracing::warn!(provider = &*provider.name, status = %answer.status(), "no list of models");
                return Vec::new();
            }
            Err(error) => {
                tracing::warn!(provider = &*provider.name, ?error, "no list of models");
                return Vec::new();
            }
        };
        let body = read_to(answer.into_body(), MAX_LIST).await;
        let Ok(Value::Object(mut reply)) = serde_json::from_slice(&body) else { return Vec::new() };
        let Some(Value::Array(mut models)) = reply.remove("data") else { return Vec::new() };
        let prefix = !matches!(&*provider.name, "openai" | "anthropic");
        for model in &mut models {
            if prefix && let Some(Value::String(id)) = model.get_mut("id") {
                *id = format!("{}/{id}", provider.name);
            }
        }
        models
    }

    async fn model(
        &self,
        principal: &Principal,
        uri: &Uri,
        headers: &HeaderMap,
        id: &str,
    ) -> Result<Response> {
        authorize(principal, Action::Use(Scope::LlmUse))?;
        let dialect = dialect(uri, headers);
        let target = self.serving(dialect, id)?;
        if target.provider.is_demo() {
            return if id == demo::MODEL {
                Ok(axum::Json(demo::model(dialect)).into_response())
            } else {
                Err(Error::not_found("model"))
            };
        }
        let url = target.provider.models_url(Some(target.rename.as_deref().unwrap_or(id)));
        Ok(passed_on(self.fetch(&target.provider, url, headers).await?))
    }
}

fn passed_on(answer: Incoming) -> Response {
    let (parts, body) = answer.into_parts();
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = parts.status;
    *response.headers_mut() = response_headers(&parts.headers);
    response
}

fn list(dialect: Dialect, models: &[Value]) -> Value {
    match dialect {
        Dialect::OpenAi => json!({"object": "list", "data": models}),
        Dialect::Anthropic => {
            let id = |model: Option<&Value>| model.and_then(|model| model.get("id")).cloned();
            let (first, last) = (id(models.first()), id(models.last()));
            json!({"data": models, "has_more": false, "first_id": first, "last_id": last})
        }
    }
}
