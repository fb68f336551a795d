//! The lists of models: the provider's own when there is one, merged when there are several.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, SecondsFormat, Utc};
use futures::future::join_all;
use loom_core::{
    Error, Path, Principal, Result,
    authorize::{Action, authorize},
    principal::Scope,
};
use reqwest::Url;
use serde_json::{Value, json};

use crate::{
    LlmProxy, demo,
    dialect::{Dialect, Operation},
    exchange::along,
    forward::{Incoming, read_to, response_headers, without_org},
    provider::Provider,
    translate::set,
    translated::said,
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
        let providers: Vec<_> = self.providers.usable(operation(dialect)).collect();
        let routes = self.org_routes.names(principal.org);
        match providers.as_slice() {
            [] => self
                .providers
                .serving(operation(dialect), "")
                .map(|_| StatusCode::NO_CONTENT.into_response()),
            [only] if !only.is_demo() && only.dialect == dialect && routes.is_empty() => {
                let mut url = only.models_url(None);
                url.set_query(uri.query().and_then(without_org).as_deref());
                Ok(passed_on(self.fetch(only, url, headers).await?))
            }
            several => {
                let lists = join_all(
                    several.iter().map(|provider| self.models_of(provider, headers, dialect)),
                )
                .await;
                let mut failed = None;
                let mut models = Vec::new();
                for list in lists {
                    match list {
                        Ok(list) => models.extend(list),
                        Err(error) => failed = failed.or(Some(error)),
                    }
                }
                // A route hides the model of its name.
                models.retain(|model| {
                    !routes.iter().any(|route| model["id"].as_str() == Some(route.as_str()))
                });
                models.extend(routes.iter().map(|route| routed(dialect, route)));
                // One that fails takes nothing from the others.
                match failed {
                    Some(failed) if models.is_empty() => failed,
                    _ => Ok(axum::Json(list(dialect, &models)).into_response()),
                }
            }
        }
    }

    /// With the client's headers, as far as they mean something to this provider.
    async fn fetch_for(
        &self,
        dialect: Dialect,
        provider: &Provider,
        url: Url,
        headers: &HeaderMap,
    ) -> Result<Incoming> {
        if provider.dialect == dialect {
            self.fetch(provider, url, headers).await
        } else {
            self.fetch(provider, url, &along(headers)).await
        }
    }

    /// One provider's models, in the client's form and under names by which they are found here; or
    /// what it answered instead.
    async fn models_of(
        &self,
        provider: &Provider,
        headers: &HeaderMap,
        dialect: Dialect,
    ) -> Result<Vec<Value>, Result<Response>> {
        if provider.is_demo() {
            return Ok(vec![demo::model(dialect)]);
        }
        let name = &*provider.name;
        if provider.is_vertex() {
            // It has no list; what it is asked for is in the configuration.
            let listed = |id: &String| translated(dialect, name, &json!({"id": id}));
            return Ok(provider.models().iter().map(listed).collect());
        }
        let mut url = provider.models_url(None);
        if provider.dialect == Dialect::Anthropic {
            url.set_query(Some("limit=1000"));
        }
        let answer = match self.fetch_for(dialect, provider, url, headers).await {
            Ok(answer) if answer.status().is_success() => answer,
            Ok(answer) => {
                tracing::warn!(provider = name, status = %answer.status(), "no list of models");
                return Err(if provider.dialect == dialect {
                    Ok(passed_on(answer))
                } else {
                    Err(refused(name, answer).await)
                });
            }
            Err(error) => {
                tracing::warn!(provider = name, ?error, "no list of models");
                return Err(Err(error));
            }
        };
        let body = read_to(answer.into_body(), MAX_LIST).await;
        let Ok(Value::Object(mut reply)) = serde_json::from_slice(&body) else {
            return Ok(Vec::new());
        };
        let Some(Value::Array(mut models)) = reply.remove("data") else { return Ok(Vec::new()) };
        for model in &mut models {
            if provider.dialect != dialect {
                *model = translated(dialect, name, model);
            }
            if let Some(Value::String(id)) = model.get_mut("id") {
                let found = self.providers.serving(operation(dialect), id);
                if !found.is_ok_and(|found| *found.provider.name == *provider.name) {
                    *id = format!("{name}/{id}");
                }
            }
        }
        Ok(models)
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
        if self.org_routes.has(principal.org, id) {
            return Ok(axum::Json(routed(dialect, id)).into_response());
        }
        let target = self.providers.serving(operation(dialect), id)?;
        let provider = &target.provider;
        if provider.is_demo() {
            return if id == demo::MODEL {
                Ok(axum::Json(demo::model(dialect)).into_response())
            } else {
                Err(Error::not_found("model"))
            };
        }
        if provider.is_vertex() {
            let there = target.rename.as_deref().unwrap_or(id);
            if !provider.models().iter().any(|known| known == there) {
                return Err(Error::not_found("model"));
            }
            let model = translated(dialect, &provider.name, &json!({"id": id}));
            return Ok(axum::Json(model).into_response());
        }
        let url = provider.models_url(Some(target.rename.as_deref().unwrap_or(id)));
        let answer = self.fetch_for(dialect, provider, url, headers).await?;
        if provider.dialect == dialect {
            return Ok(passed_on(answer));
        }
        if !answer.status().is_success() {
            return Err(refused(&provider.name, answer).await);
        }
        let body = read_to(answer.into_body(), MAX_LIST).await;
        let model = serde_json::from_slice(&body).map_err(|error| {
            let detail =
                format!("the provider `{}` sent a model that cannot be read", provider.name);
            Error::new(StatusCode::BAD_GATEWAY, "upstream_error", detail).because(error)
        })?;
        let mut model = translated(dialect, &provider.name, &model);
        set(&mut model, "id", id);
        Ok(axum::Json(model).into_response())
    }
}

/// What a provider of another wire answered instead.
async fn refused(provider: &str, answer: Incoming) -> Error {
    let status = answer.status();
    let (message, _) = said(&read_to(answer.into_body(), MAX_LIST).await);
    let detail = message
        .unwrap_or_else(|| format!("the provider `{provider}` answered with {}", status.as_u16()));
    let is_unknown = status == StatusCode::NOT_FOUND;
    Error::new(status, if is_unknown { "model_not_found" } else { "upstream_error" }, detail)
}

/// By which operation the models of a list are asked.
fn operation(dialect: Dialect) -> Operation {
    match dialect {
        Dialect::Anthropic => Operation::Messages,
        Dialect::OpenAi | Dialect::Gemini => Operation::Chat,
    }
}

/// A model of another wire's list, in the form of this one.
fn translated(to: Dialect, provider: &str, model: &Value) -> Value {
    let id = &model["id"];
    match to {
        Dialect::OpenAi | Dialect::Gemini => {
            let at = model["created_at"].as_str().and_then(|at| at.parse::<DateTime<Utc>>().ok());
            json!({"id": id, "object": "model", "owned_by": provider,
                "created": at.map_or(0, |at| at.timestamp())})
        }
        Dialect::Anthropic => {
            let at = model["created"].as_i64().and_then(|at| DateTime::from_timestamp(at, 0));
            json!({"type": "model", "id": id, "display_name": id,
                "created_at": at.unwrap_or_default().to_rfc3339_opts(SecondsFormat::Secs, true)})
        }
    }
}

/// A route of the organisation, as a model.
fn routed(dialect: Dialect, name: &str) -> Value {
    translated(dialect, "route", &json!({"id": name}))
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
        Dialect::OpenAi | Dialect::Gemini => json!({"object": "list", "data": models}),
        Dialect::Anthropic => {
            let id = |model: Option<&Value>| model.and_then(|model| model.get("id")).cloned();
            let (first, last) = (id(models.first()), id(models.last()));
            json!({"data": models, "has_more": false, "first_id": first, "last_id": last})
        }
    }
}
