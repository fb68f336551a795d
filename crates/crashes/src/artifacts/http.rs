//! The handlers of artifacts.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Multipart, State, multipart::Field},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::Stream;
use http::{HeaderValue, StatusCode, header};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::ArtifactId,
    page::{self, PageQuery},
    principal::{RequestInfo, Scope},
};
use serde_json::json;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{
    model::{About, Artifact, ArtifactDetail, ArtifactFilter, ArtifactKind, ArtifactPage},
    objects::Staged,
    store,
};
use crate::{Crashes, pipeline::http::Requeued};

/// Too little comes in for so long: whoever sends is gone, or holds a turn up.
const IDLE: Duration = Duration::from_secs(60);
/// What is enough: a kilobyte a second.
const FLOOR: usize = 60 << 10;
/// The whole form has come by then.
const WHOLE: Duration = Duration::from_secs(3600);
/// Fields of a form beside the file, and bytes of one.
const MAX_FIELDS: usize = 16;
const MAX_FIELD: usize = 4096;

/// The form of an upload.
#[derive(ToSchema)]
#[allow(dead_code, reason = "described only: the form is read as it comes")]
pub(crate) struct ArtifactForm {
    /// The content.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// What it is, where the content does not say it: `source_map` and `minified_source`.
    kind: Option<ArtifactKind>,
    /// The name of the file when absent.
    name: Option<String>,
    release: Option<String>,
    dist: Option<String>,
    /// Where a script or a map is served; `~/static/app.js` is at any origin.
    url: Option<String>,
}

/// Upload an artifact
///
/// A source map, a minified script, a debug file (ELF, Mach-O, PE, PDB, portable PDB, Breakpad, WASM, ProGuard) or a
/// bundle of sentry-cli. The same file with the same name again changes nothing.
#[utoipa::path(
    post,
    path = "/api/crash/projects/{project}/artifacts",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug")),
    request_body(content = ArtifactForm, content_type = "multipart/form-data"),
    responses((status = 201, body = Artifact, headers(("location" = String))),
        (status = 200, description = "It was there already", body = Artifact),
        (status = 400, description = "`incomplete_body` or `malformed_form`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`overloaded`: too many uploads at once", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`artifact_store_unavailable`", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn upload_artifact(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path(named): Path<String>,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    let form = form.map_err(|_| {
        Error::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send a form: `content-type: multipart/form-data`, with the file in the field `file`",
        )
    })?;
    let turn = crashes.artifacts.uploads.take(principal.org).await?;
    // Dropped, what was staged is removed by the clean-up.
    let read = tokio::time::timeout(WHOLE, read(&crashes, &project, form)).await;
    let (staged, mut about) = read.map_err(|_| late())??;
    drop(turn);
    about.uploaded_by = Some(principal.name.to_string());
    let (artifact, is_new) = crashes.artifacts.finish(&project, staged, about).await?;
    if is_new {
        let details =
            json!({"project": project.slug, "name": artifact.name, "kind": artifact.kind});
        let target = artifact.id.to_string();
        crashes
            .deps
            .audit
            .done(&principal, &info, "crash_artifact.create", target, details)
            .await?;
    }
    let location = format!("/api/crash/projects/{}/artifacts/{}", project.id, artifact.id);
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [(header::LOCATION, location)], Json(artifact)).into_response())
}

/// The file into the store as it comes, and what is said of it.
async fn read(
    crashes: &Crashes,
    project: &loom_core::port::Project,
    mut form: Multipart,
) -> Result<(Staged, About)> {
    let mut about = About::default();
    let mut staged: Option<Staged> = None;
    let mut fields = 0;
    let told: Result<()> = async {
        while let Some(field) = next(&mut form).await? {
            fields += 1;
            if fields > MAX_FIELDS {
                return Err(malformed("a form has at most 16 fields"));
            }
            let name = field.name().unwrap_or_default().to_owned();
            if name == "file" {
                if staged.is_some() {
                    return Err(malformed("one form brings one file: `file` is there twice"));
                }
                let file_name = field.file_name().map(str::to_owned);
                about.name = about.name.take().or(file_name);
                staged = Some(crashes.artifacts.stage(project, pieces(field)).await?);
                continue;
            }
            let value = tokio::time::timeout(IDLE, text(field)).await.map_err(|_| silent())??;
            match name.as_str() {
                _ if value.is_empty() => {}
                "kind" => {
                    let kind = serde_json::from_value(json!(value)).map_err(|_| {
                        Error::invalid(
                            "kind",
                            "is `source_map`, `minified_source` or a kind of debug file",
                        )
                    })?;
                    about.kind = Some(kind);
                }
                "name" => about.name = Some(value),
                "release" => about.release = Some(value),
                "dist" => about.dist = Some(value),
                "url" => about.url = Some(value),
                _ => {}
            }
        }
        Ok(())
    }
    .await;
    match (told, staged) {
        (Ok(()), Some(staged)) => Ok((staged, about)),
        (Ok(()), None) => Err(Error::invalid("file", "the form has no file")),
        (Err(error), staged) => {
            if let Some(staged) = staged {
                crashes.artifacts.discard(&staged.location).await;
            }
            Err(error)
        }
    }
}

async fn next(form: &mut Multipart) -> Result<Option<Field<'_>>> {
    let next = tokio::time::timeout(IDLE, form.next_field()).await.map_err(|_| silent())?;
    next.map_err(|error| malformed("the form did not arrive whole, or is none").because(error))
}

/// A field as it comes.
pub(crate) fn pieces(field: Field<'_>) -> impl Stream<Item = Result<Bytes>> {
    let begin = (field, Instant::now() + IDLE, FLOOR);
    futures::stream::try_unfold(begin, |(mut field, mut until, mut due)| async move {
        let piece = tokio::time::timeout_at(until, field.chunk()).await.map_err(|_| silent())?;
        let piece = piece.map_err(|error| {
            Error::malformed("incomplete_body", "the file did not arrive whole; nothing was stored")
                .because(error)
        })?;
        due = due.saturating_sub(piece.as_ref().map_or(0, Bytes::len));
        if due == 0 {
            (until, due) = (Instant::now() + IDLE, FLOOR);
        }
        Ok(piece.map(|piece| (piece, (field, until, due))))
    })
}

async fn text(mut field: Field<'_>) -> Result<String> {
    let mut text = Vec::new();
    while let Some(piece) = field
        .chunk()
        .await
        .map_err(|error| malformed("the form did not arrive whole, or is none").because(error))?
    {
        if text.len() + piece.len() > MAX_FIELD {
            return Err(malformed("a field beside the file has at most 4096 bytes"));
        }
        text.extend_from_slice(&piece);
    }
    String::from_utf8(text)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| malformed("fields beside the file are text in UTF-8"))
}

fn malformed(detail: &'static str) -> Error {
    Error::malformed("malformed_form", detail)
}

fn late() -> Error {
    Error::new(
        StatusCode::REQUEST_TIMEOUT,
        "timeout",
        "the file did not arrive within an hour; nothing was stored",
    )
}

fn silent() -> Error {
    Error::new(
        StatusCode::REQUEST_TIMEOUT,
        "timeout",
        "less than a kilobyte a second came in for a minute; nothing was stored",
    )
}

/// The artifacts of a project, newest first
#[utoipa::path(
    get,
    path = "/api/crash/projects/{project}/artifacts",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), PageQuery, ArtifactFilter),
    responses((status = 200, body = ArtifactPage),
        (status = 400, description = "`invalid_cursor`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_artifacts(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(named): Path<String>,
    Query(page): Query<PageQuery>,
    Query(mut filter): Query<ArtifactFilter>,
) -> Result<Json<ArtifactPage>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let project = crashes.project(&principal, &named).await?;
    if let Some(id) = &filter.debug_id {
        filter.debug_id = Some(
            loom_symbolication::normalize_debug_id(id)
                .ok_or_else(|| Error::invalid("debug_id", "is a UUID, with an age or none"))?,
        );
    }
    let kind = format!("artifacts {}", serde_json::to_string(&filter).map_err(Error::internal)?);
    let limit = page.limit()?;
    let after = page.after_time(&kind)?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let pool = &crashes.deps.pool;
    let found = store::list(pool, principal.org, project.id, &filter, after, one_more).await?;
    let (artifacts, next_cursor) = page::cut(found, limit, &kind, |a| (a.created_at, a.id.0));
    Ok(Json(ArtifactPage { artifacts, next_cursor }))
}

/// Read an artifact
///
/// What it is, and the debug ids and URLs that find it.
#[utoipa::path(
    get,
    path = "/api/crash/projects/{project}/artifacts/{artifact}",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("artifact" = String, Path)),
    responses((status = 200, body = ArtifactDetail),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_artifact(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((named, id)): Path<(String, ArtifactId)>,
) -> Result<Json<ArtifactDetail>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let artifact = find(&crashes, &principal, &named, id).await?;
    let (objects, object_count) =
        store::objects(&crashes.deps.pool, principal.org, artifact.id).await?;
    Ok(Json(ArtifactDetail { artifact, objects, object_count }))
}

/// Download an artifact
///
/// Only admins of the organisation: debug files and sources are the program itself.
#[utoipa::path(
    get,
    path = "/api/crash/projects/{project}/artifacts/{artifact}/download",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("artifact" = String, Path)),
    responses((status = 200, description = "The content", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:read`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn download_artifact(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path((named, id)): Path<(String, ArtifactId)>,
) -> Result<Response> {
    authorize(&principal, Action::ManageOrg(Scope::CrashesRead))?;
    let artifact = find(&crashes, &principal, &named, id).await?;
    let blob = store::blob(&crashes.deps.pool, principal.org, &artifact.sha256).await?;
    let blob = blob.ok_or_else(not_found)?;
    let content = crashes.artifacts.objects.stream(&blob.location).await?;
    let details = json!({"name": artifact.name});
    let target = artifact.id.to_string();
    crashes.deps.audit.done(&principal, &info, "crash_artifact.download", target, details).await?;
    let mut response = Body::from_stream(content).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(blob.size));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    // No browser is to run what somebody has uploaded.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let name: String =
        artifact.name.chars().filter(|c| c.is_ascii_graphic() && !"\"\\;".contains(*c)).collect();
    let disposition = format!("attachment; filename=\"{name}\"");
    if let Ok(value) = HeaderValue::try_from(disposition) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// Delete an artifact
#[utoipa::path(
    delete,
    path = "/api/crash/projects/{project}/artifacts/{artifact}",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("artifact" = String, Path)),
    responses((status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn delete_artifact(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path((named, id)): Path<(String, ArtifactId)>,
) -> Result<StatusCode> {
    authorize(&principal, Action::ManageOrg(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    if !store::delete(&crashes.deps.pool, principal.org, project.id, id).await? {
        return Err(not_found());
    }
    crashes.announcer.say(format!("artifacts {}", project.id));
    let details = json!({"project": project.slug});
    let target = id.to_string();
    crashes.deps.audit.done(&principal, &info, "crash_artifact.delete", target, details).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(
    crashes: &Crashes,
    principal: &Principal,
    named: &str,
    id: ArtifactId,
) -> Result<Artifact> {
    let project: Arc<_> = crashes.project(principal, named).await?;
    store::find(&crashes.deps.pool, principal.org, project.id, id).await?.ok_or_else(not_found)
}

fn not_found() -> Error {
    Error::not_found("artifact")
}

/// Process issues again that lacked a file which is there now
///
/// To be called when files came after the events that need them. What is grouped stays in its issue.
#[utoipa::path(
    post,
    path = "/api/crash/projects/{project}/artifacts/reprocess",
    operation_id = "reprocess_found",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug")),
    responses((status = 202, body = Requeued),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn reprocess_found(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(named): Path<String>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    let events = crashes.reprocess_found(&project).await?;
    Ok((StatusCode::ACCEPTED, Json(Requeued { events })).into_response())
}
