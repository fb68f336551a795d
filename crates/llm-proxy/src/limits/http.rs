//! `/api/orgs/{org}/llm/limits`: an organisation's limits and what is used of them.

use std::collections::HashMap;

use axum::{
    extract::State,
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    page::{PageQuery, cut},
    principal::{Actor, OrgRole, RequestInfo, Scope, Via, required},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    gauge::{Kind, Measure, share_of},
    model::{Caps, Current, LimitList, LimitView, subject, usd},
    store::{self, LimitRow},
};
use crate::LlmProxy;

/// Limits of one organisation.
pub(super) const MAX_LIMITS: i64 = 1000;
const LIST: &str = "llm_limits";

pub(crate) fn routes(proxy: LlmProxy) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_limits))
        .routes(routes!(put_limit, delete_limit))
        .route_layer(middleware::from_fn(required))
        .with_state(proxy)
}

pub(super) fn too_many() -> Error {
    Error::conflict("limit_reached", format!("an organisation has up to {MAX_LIMITS} limits"))
}

/// The limits of an organisation
///
/// With what is used of them now. Admins see all; members see those of the organisation and of models, and
/// their own: of their user, and of the API key or weaver that they come by.
#[utoipa::path(get, path = "/api/orgs/{org}/llm/limits", operation_id = "list_llm_limits", tag = "llm",
    security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), PageQuery),
    responses((status = 200, body = LimitList),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn list_limits(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    Path(org): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<LimitList>> {
    let here = proxy.orgs.acting_in(&principal, &org).await?;
    let is_admin = here.role >= OrgRole::Admin && here.scopes.contains(Scope::AdminRead);
    if !is_admin {
        authorize(&here, Action::Use(Scope::LlmUse))?;
    }
    let own = (!is_admin).then(|| own_subjects(&here));
    let limit = page.limit()?;
    let after = page.after::<(String, String)>(LIST)?;
    let rows = store::page(&proxy.pool, here.org, own.as_deref(), after, limit + 1).await?;
    let (rows, next_cursor) = cut(rows, limit, LIST, |row| (row.kind.clone(), row.subject.clone()));
    let limits = proxy.with_use(here.org, rows).await?;
    Ok(Json(LimitList { limits, next_cursor }))
}

fn own_subjects(here: &Principal) -> Vec<String> {
    let actor = match here.actor {
        Actor::User(id) => id.0,
        Actor::Service(id) => id.0,
        Actor::Weaver(id) => id.0,
    };
    let via = match here.via {
        Via::ApiKey(id) => Some(id.0),
        Via::WeaverToken(id) => Some(id.0),
        Via::Session(_) | Via::DevMode => None,
    };
    [Some(actor), via].into_iter().flatten().map(|id| id.to_string()).collect()
}

/// Set a limit
///
/// Replaces the whole limit of this subject, for all servers at once. What was used in the day or month
/// until now counts. `kind` is `organisation` (its subject is `all`), `user`, `api_key`, `weaver` (their
/// subject is an id), or `model` (a name, or a pattern as `claude-opus-*` or `openai/*`, with `/` written
/// `%2F`). Every limit that a request comes under must have room for it.
#[utoipa::path(put, path = "/api/orgs/{org}/llm/limits/{kind}/{subject}", operation_id = "put_llm_limit",
    tag = "llm", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"),
        ("kind" = String, Path, description = "`organisation`, `user`, `api_key`, `weaver` or `model`"),
        ("subject" = String, Path, description = "`all`, an id, or a pattern of model names")),
    request_body = Caps,
    responses((status = 200, body = LimitView), (status = 201, body = LimitView),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn put_limit(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path((org, kind, name)): Path<(String, String, String)>,
    Json(caps): Json<Caps>,
) -> Result<Response> {
    let here = proxy.orgs.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminWrite))?;
    let kind = known(&kind)?;
    let name = subject(kind, &name)?;
    caps.check()?;
    let new = proxy.limits.put(here.org, kind, &name, &caps).await?;
    let target = format!("{}/{name}", kind.name());
    let details = serde_json::to_value(&caps).unwrap_or_default();
    proxy.audit.done(&here, &info, "llm_limit.set", target, details).await?;
    let row = store::one(&proxy.pool, here.org, kind, &name).await?;
    let view = proxy.with_use(here.org, row.into_iter().collect()).await?.pop();
    let view = view.ok_or_else(|| Error::not_found("limit"))?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view)).into_response())
}

/// Take a limit away
#[utoipa::path(delete, path = "/api/orgs/{org}/llm/limits/{kind}/{subject}", operation_id = "delete_llm_limit",
    tag = "llm", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), ("kind" = String, Path), ("subject" = String, Path)),
    responses((status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn delete_limit(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path((org, kind, name)): Path<(String, String, String)>,
) -> Result<StatusCode> {
    let here = proxy.orgs.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminWrite))?;
    let kind = known(&kind)?;
    let name = subject(kind, &name).map_err(|_| Error::not_found("limit"))?;
    if !proxy.limits.delete(here.org, kind, &name).await? {
        return Err(Error::not_found("limit"));
    }
    let target = format!("{}/{name}", kind.name());
    proxy.audit.done(&here, &info, "llm_limit.delete", target, serde_json::Value::Null).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn known(kind: &str) -> Result<Kind> {
    Kind::parse(kind).ok_or_else(|| {
        Error::not_found("kind of limit; there are organisation, user, api_key, weaver and model")
    })
}

impl LlmProxy {
    async fn with_use(
        &self,
        org: loom_core::id::OrgId,
        rows: Vec<LimitRow>,
    ) -> Result<Vec<LimitView>> {
        let now = self.clock.now();
        let subjects: Vec<String> = rows.iter().map(|row| row.subject.clone()).collect();
        let windows: Vec<DateTime<Utc>> =
            [Measure::Requests, Measure::Day, Measure::Month].map(|m| m.window(now)).to_vec();
        let uses = store::uses(&self.pool, org, &subjects, &windows).await?;
        let mut by_limit: HashMap<(&str, &str, &str), &store::UseRow> = HashMap::new();
        for used in &uses {
            by_limit.insert((&used.kind, &used.subject, &used.measure), used);
        }
        let view = |row: &LimitRow| {
            let caps = row.caps();
            let of = |measure: Measure| {
                let used = by_limit.get(&(row.kind.as_str(), row.subject.as_str(), measure.name()));
                caps.cap(measure).map(|cap| (cap, used.copied()))
            };
            // A rate's use is the part of a minute until the whole of it is there again.
            let rate = |measure| {
                let (cap, used) = of(measure)?;
                let millis = used.map_or(0, |used| (used.full_at - now).num_milliseconds());
                Some(share_of(cap, millis.clamp(0, 60_000), 60_000))
            };
            let spent = |measure| Some(usd(of(measure)?.1.map_or(0, |used| used.used)));
            let held = |measure| Some(usd(of(measure)?.1.map_or(0, |used| used.held)));
            let current = Current {
                requests: rate(Measure::Requests),
                tokens: rate(Measure::Tokens),
                concurrent_held: of(Measure::Concurrent)
                    .map(|(_, used)| used.map_or(0, |used| used.held)),
                usd_today: spent(Measure::Day),
                usd_held_today: held(Measure::Day),
                day_ends_at: of(Measure::Day).map(|_| Measure::Day.window_end(now)),
                usd_this_month: spent(Measure::Month),
                usd_held_this_month: held(Measure::Month),
                month_ends_at: of(Measure::Month).map(|_| Measure::Month.window_end(now)),
            };
            let (subject, updated_at) = (row.subject.clone(), row.updated_at);
            Some(LimitView { kind: Kind::parse(&row.kind)?, subject, caps, current, updated_at })
        };
        Ok(rows.iter().filter_map(view).collect())
    }
}
