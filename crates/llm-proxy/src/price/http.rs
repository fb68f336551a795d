//! The routes of organisations' own prices.

use axum::{
    extract::State,
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::{FieldError, Problem},
    id::new_uuid,
    page::{PageQuery, cut},
    principal::{RequestInfo, Scope, required},
    text,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Rates,
    store::{self, PriceRow},
};
use crate::LlmProxy;

/// US dollars per million tokens: more is a slip of the keyboard.
const MAX_USD: f64 = 100_000.0;

pub(crate) fn routes(proxy: LlmProxy) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_llm_prices, create_llm_price))
        .routes(routes!(change_llm_price, delete_llm_price))
        .route_layer(middleware::from_fn(required))
        .with_state(proxy)
}

/// What a model is to cost, in US dollars per million tokens.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::ToSchema)]
struct LlmRates {
    #[serde(flatten)]
    rates: Rates,
    /// Per thousand. Without it, a request with web searches has no cost.
    web_searches: Option<f64>,
}

#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
struct NewLlmPrice {
    /// As in the path of the native routes: `anthropic`, `openai`, …
    provider: String,
    /// Exactly this name; an undated one is also for dated ones that have no price of their own here.
    model: String,
    #[serde(flatten)]
    numbers: LlmRates,
}

#[derive(Serialize, utoipa::ToSchema)]
struct LlmPrices {
    prices: Vec<PriceRow>,
    next_cursor: Option<String>,
}

impl LlmRates {
    fn check(&self) -> Result<()> {
        let Rates { input, output, cache_read, cache_write_5m, cache_write_1h } = self.rates;
        let all = [
            ("input", Some(input)),
            ("output", Some(output)),
            ("cache_read", cache_read),
            ("cache_write_5m", cache_write_5m),
            ("cache_write_1h", cache_write_1h),
            ("web_searches", self.web_searches),
        ];
        let wrong = |value: Option<f64>| value.is_some_and(|usd| !(0.0..=MAX_USD).contains(&usd));
        let errors: Vec<_> = all
            .into_iter()
            .filter(|(_, value)| wrong(*value))
            .map(|(name, _)| FieldError {
                path: name.to_owned(),
                message: format!("is 0 to {MAX_USD} US dollars"),
            })
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(Error::invalid_fields(errors)) }
    }
}

/// The prices that an organisation has set, by provider and model
#[utoipa::path(get, path = "/api/orgs/{org}/llm/prices", tag = "llm", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), PageQuery),
    responses((status = 200, body = LlmPrices),
        (status = 403, description = "For admins and owners", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn list_llm_prices(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    Path(org): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<LlmPrices>> {
    let here = proxy.orgs.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminRead))?;
    let kind = format!("llm_prices:{}", here.org);
    let limit = page.limit()?;
    let after = page.after(&kind)?;
    let prices = store::page(&proxy.pool, here.org, after, limit + 1).await?;
    let (prices, next_cursor) =
        cut(prices, limit, &kind, |price| (price.provider.clone(), price.model.clone()));
    Ok(Json(LlmPrices { prices, next_cursor }))
}

/// Set a price in place of the table's
///
/// It holds for requests that end from now on, on every server, and for every tier and length of prompt;
/// what was accounted stays as it is.
#[utoipa::path(post, path = "/api/orgs/{org}/llm/prices", tag = "llm", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug")), request_body = NewLlmPrice,
    responses((status = 201, body = PriceRow),
        (status = 403, description = "For admins and owners", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The model has one", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn create_llm_price(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path(org): Path<String>,
    Json(new): Json<NewLlmPrice>,
) -> Result<Response> {
    let here = proxy.orgs.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminWrite))?;
    for (name, value) in [("provider", &new.provider), ("model", &new.model)] {
        if !text::is_plain_line(value, 200) {
            return Err(Error::invalid(name, "is one line of 1 to 200 bytes"));
        }
    }
    if proxy.providers.named(&new.provider).is_none() {
        let names: Vec<_> = proxy.providers.iter().map(|provider| &*provider.name).collect();
        return Err(Error::invalid("provider", format!("is one of {}", names.join(", "))));
    }
    new.numbers.check()?;
    let now = proxy.clock.now();
    let Rates { input, output, cache_read, cache_write_5m, cache_write_1h } = new.numbers.rates;
    let row = PriceRow {
        id: new_uuid(now),
        org_id: here.org.0,
        provider: new.provider,
        model: new.model,
        input,
        output,
        cache_read,
        cache_write_5m,
        cache_write_1h,
        web_searches: new.numbers.web_searches,
        created_at: now,
        updated_at: now,
    };
    let mut tx = loom_db::begin(&proxy.pool).await?;
    store::insert(&mut tx, &row).await?;
    store::tell(&mut tx, here.org).await?;
    tx.commit().await?;
    proxy.prices.read(&proxy.pool, Some(here.org)).await?;
    let target = format!("{}/{}", row.provider, row.model);
    proxy.audit.done(&here, &info, "llm_price.create", target, json!(row)).await?;
    let location = format!("/api/orgs/{}/llm/prices/{}", here.org, row.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(row)).into_response())
}

/// Change a price
///
/// A member that is absent has no price of its own from then on.
#[utoipa::path(put, path = "/api/orgs/{org}/llm/prices/{id}", tag = "llm", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), ("id" = Uuid, Path)),
    request_body = LlmRates,
    responses((status = 200, body = PriceRow),
        (status = 403, description = "For admins and owners", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn change_llm_price(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path((org, id)): Path<(String, Uuid)>,
    Json(numbers): Json<LlmRates>,
) -> Result<Json<PriceRow>> {
    let here = proxy.orgs.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminWrite))?;
    numbers.check()?;
    let now = proxy.clock.now();
    let mut tx = loom_db::begin(&proxy.pool).await?;
    let row = store::update(&mut tx, here.org, id, numbers.rates, numbers.web_searches, now)
        .await?
        .ok_or_else(|| Error::not_found("price"))?;
    store::tell(&mut tx, here.org).await?;
    tx.commit().await?;
    proxy.prices.read(&proxy.pool, Some(here.org)).await?;
    let target = format!("{}/{}", row.provider, row.model);
    proxy.audit.done(&here, &info, "llm_price.change", target, json!(row)).await?;
    Ok(Json(row))
}

/// Take a price away: the table's holds again
#[utoipa::path(delete, path = "/api/orgs/{org}/llm/prices/{id}", tag = "llm", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), ("id" = Uuid, Path)),
    responses((status = 204),
        (status = 403, description = "For admins and owners", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn delete_llm_price(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path((org, id)): Path<(String, Uuid)>,
) -> Result<StatusCode> {
    let here = proxy.orgs.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminWrite))?;
    let mut tx = loom_db::begin(&proxy.pool).await?;
    let (provider, model) =
        store::delete(&mut tx, here.org, id).await?.ok_or_else(|| Error::not_found("price"))?;
    store::tell(&mut tx, here.org).await?;
    tx.commit().await?;
    proxy.prices.read(&proxy.pool, Some(here.org)).await?;
    let target = format!("{provider}/{model}");
    proxy.audit.done(&here, &info, "llm_price.delete", target, json!({"id": id})).await?;
    Ok(StatusCode::NO_CONTENT)
}
