//! Attachments and feedback of an event.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, header};
use loom_core::{
    Error, Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::EventId,
    principal::Scope,
};
use uuid::Uuid;

use super::{
    model::{Attachments, FeedbackList},
    store,
};
use crate::Crashes;

/// The files that came with an event
#[utoipa::path(get, path = "/api/crash/projects/{project}/events/{event}/attachments", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("event" = EventId, Path)),
    responses((status = 200, body = Attachments),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_crash_attachments(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((named, event)): Path<(String, EventId)>,
) -> Result<Json<Attachments>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project(&principal, &named).await?;
    let attachments =
        store::attachments(&crashes.deps.pool, principal.org, project.id, event).await?;
    Ok(Json(Attachments { attachments }))
}

/// Download a file that came with an event
#[utoipa::path(get, path = "/api/crash/projects/{project}/events/{event}/attachments/{attachment}", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("event" = EventId, Path), ("attachment" = Uuid, Path)),
    responses((status = 200, description = "The file", content_type = "application/octet-stream"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_crash_attachment(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((named, event, attachment)): Path<(String, EventId, Uuid)>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project(&principal, &named).await?;
    let found =
        store::content(&crashes.deps.pool, principal.org, project.id, event, attachment).await?;
    let found = found.ok_or_else(|| Error::not_found("attachment"))?;
    let name: String =
        found
            .name
            .chars()
            .map(|letter| {
                if letter.is_ascii_alphanumeric() || ".-_".contains(letter) { letter } else { '_' }
            })
            .collect();
    let disposition = HeaderValue::try_from(format!("attachment; filename=\"{name}\""))
        .map_err(Error::internal)?;
    // Whoever sent it has chosen what it is: no browser is to show it as a page of ours.
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_DISPOSITION, disposition),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox")),
    ];
    let body = match found.location {
        Some(location) => Body::from_stream(crashes.artifacts.stream_attachment(&location).await?),
        None => Body::from(found.content),
    };
    let mut response = (headers, body).into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(found.size));
    Ok(response)
}

/// What users say of an event
#[utoipa::path(get, path = "/api/crash/projects/{project}/events/{event}/feedback", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("event" = EventId, Path)),
    responses((status = 200, body = FeedbackList),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_crash_feedback(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((named, event)): Path<(String, EventId)>,
) -> Result<Json<FeedbackList>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project(&principal, &named).await?;
    let feedback = store::feedback(&crashes.deps.pool, principal.org, project.id, event).await?;
    Ok(Json(FeedbackList { feedback }))
}
