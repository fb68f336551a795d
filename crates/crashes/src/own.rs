//! What Loom's own programs report their errors with.

use axum::extract::State;
use loom_core::{Error, Json, Result, error::Problem, id::INTERNAL_ORG};
use serde::Serialize;

use crate::Crashes;

/// Where to send errors.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct OwnConfig {
    /// For any Sentry SDK.
    dsn: String,
    /// The project's slug in Loom's own organisation.
    project: &'static str,
}

/// Where the dashboard sends its errors
#[utoipa::path(get, path = "/api/self-monitoring/web-config", tag = "crashes", security(("api_key" = [])),
    responses((status = 200, body = OwnConfig),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Its keys are switched off", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_web_config(State(crashes): State<Crashes>) -> Result<Json<OwnConfig>> {
    crashes.own_config("loom-web").await
}

/// Where the command line sends its errors
#[utoipa::path(get, path = "/api/self-monitoring/cli-config", tag = "crashes", security(("api_key" = [])),
    responses((status = 200, body = OwnConfig),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Its keys are switched off", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_cli_config(State(crashes): State<Crashes>) -> Result<Json<OwnConfig>> {
    crashes.own_config("loom-cli").await
}

impl Crashes {
    async fn own_config(&self, project: &'static str) -> Result<Json<OwnConfig>> {
        let found = sqlx::query!(
            "SELECT p.number, k.public_key
               FROM crash_projects p
               JOIN crash_project_keys k ON k.org_id = p.org_id AND k.project_id = p.id
              WHERE p.org_id = $1 AND p.slug = $2 AND p.deleted_at IS NULL AND k.enabled
              ORDER BY k.created_at LIMIT 1",
            INTERNAL_ORG.0,
            project
        )
        .fetch_optional(&self.deps.pool)
        .await?;
        let found = found.ok_or_else(|| Error::not_found("key of this project"))?;
        Ok(Json(OwnConfig { dsn: self.dsn(found.number, &found.public_key), project }))
    }
}
