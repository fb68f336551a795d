//! The routes of health: for anybody, for probes, for admins.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
};
use loom_core::{
    Error, Json, Principal, Query,
    authorize::{Action, authorize},
    error::Problem,
    health::Status,
    principal::{Scope, required},
};
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{AdminReport, Health, Report, Version, version};

impl Health {
    pub fn routes(&self) -> OpenApiRouter {
        let admin = OpenApiRouter::new()
            .routes(routes!(get_admin_health))
            .route_layer(middleware::from_fn(required));
        OpenApiRouter::from(Router::new())
            .routes(routes!(get_health))
            .routes(routes!(get_live))
            .routes(routes!(get_ready))
            .merge(admin)
            .with_state(self.clone())
    }
}

/// The state of the server and its parts
#[utoipa::path(get, path = "/health", tag = "health", security(()),
    responses((status = 200, description = "`healthy` or `degraded`", body = Report),
        (status = 503, description = "`unhealthy`", body = Report)))]
async fn get_health(State(health): State<Health>) -> Response {
    let report = health.report().await;
    let status = if report.status == Status::Unhealthy {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(report)).into_response()
}

/// The process is up
#[utoipa::path(get, path = "/health/live", tag = "health", security(()), responses((status = 204)))]
async fn get_live() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Ready for requests: the schema is right, the database answers, and it is not going down
#[utoipa::path(get, path = "/health/ready", tag = "health", security(()),
    responses((status = 200, body = Version), (status = 503, body = Problem, content_type = "application/problem+json")))]
async fn get_ready(State(health): State<Health>) -> Result<Json<Version>, Response> {
    match health.ready().await {
        Ok(()) => Ok(Json(version())),
        Err(error) => {
            let mut answer = error.into_response();
            if health.is_draining() {
                // It is asked for as long as it goes down: nothing that the log has to cry about.
                answer.extensions_mut().remove::<Error>();
            }
            Err(answer)
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
struct AdminHealthQuery {
    /// `1`: look anew (five times a second at most), where an answer is otherwise kept for a second.
    force: Option<u8>,
}

/// The state of the server and its parts, in full
///
/// For each component the stable code of what is wrong, what was seen, since when, and what to do.
#[utoipa::path(get, path = "/api/admin/health", tag = "health", security(("api_key" = [])),
    params(AdminHealthQuery),
    responses((status = 200, description = "Whatever the state", body = AdminReport),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins and auditors", body = Problem, content_type = "application/problem+json")))]
async fn get_admin_health(
    State(health): State<Health>,
    principal: Principal,
    Query(query): Query<AdminHealthQuery>,
) -> Result<Response, Error> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    let report = health.admin_report(query.force.is_some_and(|force| force > 0)).await;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(report)).into_response())
}
