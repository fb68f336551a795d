//! The models that are known here, with what they cost the one who asks.

use axum::{extract::State, middleware};
use loom_core::{
    Json, Principal, Result,
    authorize::{Action, authorize},
    principal::{Scope, required},
};
use serde::Serialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    LlmProxy, demo,
    price::{self, Price, Rates},
    provider::Provider,
};

pub(crate) fn routes(proxy: LlmProxy) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_llm_models))
        .route_layer(middleware::from_fn(required))
        .with_state(proxy)
}

/// What a model costs, in US dollars per million tokens.
#[derive(Serialize, utoipa::ToSchema)]
struct LlmModelPrice {
    /// `table`, or `organisation` when it has set one of its own.
    source: &'static str,
    #[serde(flatten)]
    standard: Rates,
    /// Per thousand.
    #[serde(skip_serializing_if = "Option::is_none")]
    web_searches: Option<f64>,
    /// What other tiers, and prompts above a length, cost.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other: Vec<LlmModelRates>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct LlmModelRates {
    /// `standard`, `batch`, `flex`, `priority` or `ultrafast`.
    tier: &'static str,
    /// With more input than this, of all its tokens; 0: however long.
    above_input_tokens: u64,
    #[serde(flatten)]
    rates: Rates,
}

impl LlmModelPrice {
    fn of(price: &Price, source: &'static str) -> Self {
        let other = price.classes.iter().map(|class| LlmModelRates {
            tier: class.tier.name(),
            above_input_tokens: class.above,
            rates: class.rates,
        });
        let (standard, web_searches) = (price.standard, price.web_searches);
        Self { source, standard, web_searches, other: other.collect() }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
struct LlmModel {
    /// Without its provider and its date: dated names are the same model.
    model: String,
    provider: String,
    /// Tokens that it takes, and that it answers with at most; null: unknown.
    context_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    /// Null: unknown; its requests have tokens and no cost.
    price: Option<LlmModelPrice>,
    /// Of `tools`, `images`, `documents`, `audio`, `thinking`, `json_schema`, `prompt_cache`,
    /// `web_search`, `computer_use`, as far as they are known.
    capabilities: Vec<String>,
    /// The built-in demonstration.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    demo: bool,
}

#[derive(Serialize, utoipa::ToSchema)]
struct LlmModels {
    models: Vec<LlmModel>,
}

/// The models that are known here
///
/// Of every provider that can be asked: those with a price, those it is set up with, and those that your
/// organisation has a price for. `GET /v1/models` asks the providers themselves, and names more.
#[utoipa::path(get, path = "/api/llm/models", tag = "llm", security(("api_key" = [])),
    responses((status = 200, body = LlmModels)))]
async fn list_llm_models(
    State(proxy): State<LlmProxy>,
    principal: Principal,
) -> Result<Json<LlmModels>> {
    authorize(&principal, Action::Use(Scope::LlmUse))?;
    let own = proxy.prices.of_org(principal.org);
    let mut models = Vec::new();
    for provider in proxy.providers.iter().filter(|provider| provider.is_configured()) {
        let own = own.as_ref().and_then(|own| own.get(&*provider.name));
        for name in names(provider, own.into_iter().flatten().map(|(model, _)| model.as_str())) {
            let set = own.and_then(|own| own.get(&name).or_else(|| own.get(price::undated(&name))));
            let listed = price::of(&provider.name, &name);
            let price = match (set, &listed) {
                (Some(set), _) => Some(LlmModelPrice::of(set, "organisation")),
                (None, Some(listed)) => Some(LlmModelPrice::of(listed, "table")),
                (None, None) => None,
            };
            let size = price::size(&provider.name, &name);
            models.push(LlmModel {
                context_tokens: size.map(|size| size.context),
                max_output_tokens: size.map(|size| size.max_output.min(size.context)),
                price,
                capabilities: price::capabilities(&provider.name, &name).to_vec(),
                provider: provider.name.to_string(),
                demo: provider.is_demo(),
                model: name,
            });
        }
    }
    Ok(Json(LlmModels { models }))
}

/// In their order, each once.
fn names<'a>(provider: &'a Provider, own: impl Iterator<Item = &'a str>) -> Vec<String> {
    let demo = provider.is_demo().then_some(demo::MODEL);
    let priced = price::models(&provider.name).into_iter().map(|(model, _)| model);
    let known = provider.models.iter().map(String::as_str);
    let mut names: Vec<String> =
        priced.chain(known).chain(own).chain(demo).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}
