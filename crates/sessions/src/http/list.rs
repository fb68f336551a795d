//! Recent sessions, one by one.

use axum::extract::State;
use chrono::{DateTime, Utc};
use loom_core::{
    Json, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    page::{self, PageQuery},
    principal::Scope,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::OfProject;
use crate::{
    Sessions,
    session::Class,
    store::read::{self, SessionView},
};

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ByClass {
    /// `healthy`, `errored`, `unhandled`, `abnormal` or `crashed`.
    class: Option<Class>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct AppSessionPage {
    sessions: Vec<SessionView>,
    next_cursor: Option<String>,
}

/// The sessions that are kept, those that began last first.
#[utoipa::path(
    get,
    path = "/api/app-sessions",
    operation_id = "list_app_sessions",
    tag = "app-sessions",
    params(PageQuery, OfProject, ByClass),
    responses(
        (status = 200, body = AppSessionPage),
        (status = 400, description = "`invalid_cursor` or `invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`sessions:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such project", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn list_app_sessions(
    State(sessions): State<Sessions>,
    principal: Principal,
    Query(page): Query<PageQuery>,
    Query(of): Query<OfProject>,
    Query(by): Query<ByClass>,
) -> Result<Json<AppSessionPage>> {
    authorize(&principal, Action::Use(Scope::SessionsRead))?;
    let project = sessions.project(&principal, &of.project).await?;
    let limit = page.limit()?;
    let kind =
        format!("app-sessions/{}/{:?}/{:?}/{:?}", project.id, of.release, of.environment, by.class);
    let after: Option<(DateTime<Utc>, Uuid)> = page.after_time(&kind)?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let filter = of.filter(&project);
    let found = read::recent(&sessions.deps.pool, filter, by.class, after, one_more).await?;
    let (sessions, next_cursor) =
        page::cut(found, limit, &kind, |session| (session.started_at, session.session_id));
    Ok(Json(AppSessionPage { sessions, next_cursor }))
}
