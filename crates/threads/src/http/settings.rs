//! What an organisation wants done with its threads.

use axum::extract::State;
use loom_core::{
    Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    principal::{RequestInfo, Scope},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::Threads;

#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct ThreadSettings {
    /// Mask what looks like a secret before a thread is stored or can be searched. What is stored
    /// already stays as it is.
    pub redact_secrets: bool,
}

/// Read the settings of threads
#[utoipa::path(
    get,
    path = "/api/orgs/{org}/threads/settings",
    operation_id = "get_thread_settings",
    tag = "threads",
    params(("org" = String, Path, description = "The organisation's id or slug")),
    responses(
        (status = 200, body = ThreadSettings),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn get_thread_settings(
    State(threads): State<Threads>,
    principal: Principal,
    Path(org): Path<String>,
) -> Result<Json<ThreadSettings>> {
    let acting = threads.orgs.acting_in(&principal, &org).await?;
    authorize(&acting, Action::Use(Scope::ThreadsRead))?;
    let redact_secrets = threads.redacts(acting.org).await?;
    Ok(Json(ThreadSettings { redact_secrets }))
}

/// Change the settings of threads
#[utoipa::path(
    put,
    path = "/api/orgs/{org}/threads/settings",
    operation_id = "put_thread_settings",
    tag = "threads",
    params(("org" = String, Path, description = "The organisation's id or slug")),
    request_body = ThreadSettings,
    responses(
        (status = 200, body = ThreadSettings),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn put_thread_settings(
    State(threads): State<Threads>,
    principal: Principal,
    info: RequestInfo,
    Path(org): Path<String>,
    Json(settings): Json<ThreadSettings>,
) -> Result<Json<ThreadSettings>> {
    let acting = threads.orgs.acting_in(&principal, &org).await?;
    authorize(&acting, Action::ManageOrg(Scope::AdminWrite))?;
    threads.set_redacts(acting.org, settings.redact_secrets).await?;
    let details = json!({"redact_secrets": settings.redact_secrets});
    let target = acting.org.to_string();
    threads.audit.done(&acting, &info, "thread_settings.update", target, details).await?;
    Ok(Json(settings))
}
