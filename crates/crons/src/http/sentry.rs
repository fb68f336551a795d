//! Monitors as sentry-cli lists them.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;
use loom_core::{
    Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    page::{self, PageQuery},
    principal::Scope,
};
use serde_json::{Value, json};

use crate::{
    Crons,
    model::Monitor,
    schedule::Schedule,
    store::{self, monitors::Filter},
};

const KIND: &str = "sentry-monitors";

/// List monitors as Sentry does
#[utoipa::path(
    get,
    path = "/api/0/organizations/{org}/monitors/",
    operation_id = "list_sentry_monitors",
    tag = "crons",
    params(("org" = String, Path, description = "The organisation's id or slug"), PageQuery),
    responses(
        (status = 200, body = Vec<Object>, description = "The next page is in `Link`"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn list_sentry_monitors(
    State(crons): State<Crons>,
    principal: Principal,
    Path(org): Path<String>,
    Query(mut page): Query<PageQuery>,
) -> Result<Response> {
    let acting = crons.deps.orgs.acting_in(&principal, &org).await?;
    authorize(&acting, Action::Use(Scope::CronsRead))?;
    // It asks with an empty cursor for the first page.
    page.cursor = page.cursor.filter(|cursor| !cursor.is_empty());
    let limit = page.limit()?;
    let after = page.after_time(KIND)?;
    let mut db = crons.deps.pool.acquire().await?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found =
        store::monitors::list(&mut db, acting.org, &Filter::default(), after, one_more).await?;
    let (found, next) = page::cut(found, limit, KIND, |m| (m.created_at, m.id.0));
    let path = format!("{}/api/0/organizations/{org}/monitors/", crons.config.base_url);
    let link = |rel: &str, cursor: &str, results: bool| {
        format!(
            "<{path}?cursor={cursor}>; rel=\"{rel}\"; results=\"{results}\"; cursor=\"{cursor}\""
        )
    };
    let next_link = link("next", next.as_deref().unwrap_or_default(), next.is_some());
    let links = format!("{}, {next_link}", link("previous", "", false));
    let body: Vec<Value> = found.iter().map(shown).collect();
    Ok(([(header::LINK, links)], Json(body)).into_response())
}

fn shown(monitor: &Monitor) -> Value {
    let schedule = match &monitor.schedule {
        Schedule::Crontab { expression } => json!(expression),
        Schedule::Interval { value, unit } => json!([value, unit]),
    };
    let kind = match monitor.schedule {
        Schedule::Crontab { .. } => "crontab",
        Schedule::Interval { .. } => "interval",
    };
    json!({
        "id": monitor.id,
        "slug": monitor.slug,
        "name": monitor.name,
        "status": if monitor.paused_at.is_some() { "disabled" } else { "active" },
        "isMuted": monitor.muted_until.is_some(),
        "config": {
            "schedule_type": kind,
            "schedule": schedule,
            "checkin_margin": monitor.margin_secs / 60,
            "max_runtime": monitor.max_runtime_secs.map(|secs| secs / 60),
            "timezone": monitor.timezone,
            "failure_issue_threshold": monitor.failure_threshold,
            "recovery_threshold": monitor.recovery_threshold,
        },
        "dateCreated": monitor.created_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
    })
}
