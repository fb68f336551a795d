//! Figures: of a monitor, of all, by the day, and as a badge.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use http::header;
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    error::Problem,
    page::{self, PageQuery},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{find, reads};
use crate::{
    Crons,
    model::Incident,
    store::{
        self,
        stats::{Day, Figures, Overview},
    },
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Period {
    Day,
    #[default]
    Week,
    Month,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatsQuery {
    #[serde(default)]
    #[param(inline)]
    period: Period,
    /// One environment; absent: each of them.
    environment: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stats {
    #[serde(serialize_with = "loom_core::clock::millis")]
    from: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    to: DateTime<Utc>,
    environments: Vec<Figures>,
    /// When this server was down: what was expected then is `unknown`.
    outages: Vec<Outage>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Outage {
    #[serde(serialize_with = "loom_core::clock::millis")]
    from: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    to: DateTime<Utc>,
}

async fn outages(db: &mut sqlx::PgConnection, since: DateTime<Utc>) -> Result<Vec<Outage>> {
    let gaps = store::sweeps::gaps(db, since).await?;
    Ok(gaps.into_iter().map(|gap| Outage { from: gap.from, to: gap.to }).collect())
}

/// Figures of a monitor
#[utoipa::path(
    get,
    path = "/api/crons/monitors/{slug}/stats",
    operation_id = "get_monitor_stats",
    tag = "crons",
    params(("slug" = String, Path), StatsQuery),
    responses(
        (status = 200, body = Stats),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn get_stats(
    State(crons): State<Crons>,
    principal: Principal,
    Path(slug): Path<String>,
    Query(query): Query<StatsQuery>,
) -> Result<Json<Stats>> {
    reads(&principal)?;
    let to = crons.deps.clock.now();
    let from = to
        - match query.period {
            Period::Day => TimeDelta::days(1),
            Period::Week => TimeDelta::days(7),
            Period::Month => TimeDelta::days(30),
        };
    let mut db = crons.deps.pool.acquire().await?;
    let monitor = find(&mut db, &principal, &slug).await?;
    let environment = query.environment.as_deref();
    let environments =
        store::stats::of_monitor(&mut db, principal.org, monitor.id, from, to, environment).await?;
    let outages = outages(&mut db, from).await?;
    Ok(Json(Stats { from, to, environments, outages }))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CalendarQuery {
    /// One environment; absent: all together.
    environment: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Calendar {
    timezone: String,
    /// Of the last 90 those that have runs, the oldest first.
    days: Vec<Day>,
    outages: Vec<Outage>,
}

/// The last 90 days of a monitor
#[utoipa::path(
    get,
    path = "/api/crons/monitors/{slug}/calendar",
    operation_id = "get_monitor_calendar",
    tag = "crons",
    params(("slug" = String, Path), CalendarQuery),
    responses(
        (status = 200, body = Calendar),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn get_calendar(
    State(crons): State<Crons>,
    principal: Principal,
    Path(slug): Path<String>,
    Query(query): Query<CalendarQuery>,
) -> Result<Json<Calendar>> {
    reads(&principal)?;
    let since = crons.deps.clock.now() - TimeDelta::days(90);
    let mut db = crons.deps.pool.acquire().await?;
    let monitor = find(&mut db, &principal, &slug).await?;
    // What PostgreSQL calls it is what we do: both have the names of the IANA.
    let (zone, environment) = (&monitor.timezone, query.environment.as_deref());
    let days =
        store::stats::days(&mut db, principal.org, monitor.id, since, zone, environment).await?;
    let outages = outages(&mut db, since).await?;
    Ok(Json(Calendar { timezone: monitor.timezone, days, outages }))
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IncidentPage {
    incidents: Vec<Incident>,
    /// Null at the end.
    next_cursor: Option<String>,
}

/// List the incidents of a monitor, the newest first
#[utoipa::path(
    get,
    path = "/api/crons/monitors/{slug}/incidents",
    operation_id = "list_monitor_incidents",
    tag = "crons",
    params(("slug" = String, Path), PageQuery),
    responses(
        (status = 200, body = IncidentPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn list_incidents(
    State(crons): State<Crons>,
    principal: Principal,
    Path(slug): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<IncidentPage>> {
    reads(&principal)?;
    let mut db = crons.deps.pool.acquire().await?;
    let monitor = find(&mut db, &principal, &slug).await?;
    let kind = format!("incidents:{}", monitor.id);
    let limit = page.limit()?;
    let after = page.after_time(&kind)?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found = store::incidents::list(&mut db, principal.org, monitor.id, after, one_more).await?;
    let (incidents, next_cursor) = page::cut(found, limit, &kind, |one| (one.opened_at, one.id.0));
    Ok(Json(IncidentPage { incidents, next_cursor }))
}

/// Totals of your organisation
#[utoipa::path(
    get,
    path = "/api/crons/overview",
    operation_id = "get_crons_overview",
    tag = "crons",
    responses(
        (status = 200, body = Overview),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn get_overview(
    State(crons): State<Crons>,
    principal: Principal,
) -> Result<Json<Overview>> {
    reads(&principal)?;
    let now = crons.deps.clock.now();
    let mut db = crons.deps.pool.acquire().await?;
    Ok(Json(store::stats::overview(&mut db, principal.org, now).await?))
}

/// A badge: how a monitor does, for pages that show it
///
/// Whoever has the key may see it; it is in `badge_url` and lets nobody ping.
#[utoipa::path(
    get,
    path = "/api/crons/badge/{file}",
    operation_id = "get_monitor_badge",
    tag = "crons",
    params(("file" = String, Path, description = "The badge key and `.svg`")),
    responses(
        (status = 200, body = String, content_type = "image/svg+xml"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(()),
)]
pub(crate) async fn get_badge(
    State(crons): State<Crons>,
    Path(file): Path<String>,
) -> Result<Response> {
    let gone = || Error::not_found("badge");
    let key = file.strip_suffix(".svg").filter(|key| key.len() <= 64).ok_or_else(gone)?;
    let svg = crons.badge(key).await?.ok_or_else(gone)?;
    let headers = [
        (header::CONTENT_TYPE, "image/svg+xml"),
        (header::CACHE_CONTROL, "public, max-age=60"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    Ok((headers, svg.to_string()).into_response())
}
