//! Threads as files: out, and in again.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, Visibility, authorize},
    error::Problem,
    extract::Body,
    id::ThreadId,
    principal::Scope,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{document, not_found};
use crate::{
    Threads,
    model::Thread,
    redaction::Masker,
    store::{self, messages::Outputs},
    transfer::Format,
};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportQuery {
    /// `md`, `json` or `jsonl`
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// Export a thread
///
/// Markdown to read, JSON or JSON lines for programs. Each can be imported again.
#[utoipa::path(
    get,
    path = "/api/threads/{id}/export",
    operation_id = "export_thread",
    tag = "threads",
    params(("id" = ThreadId, Path), ExportQuery),
    responses(
        (status = 200, description = "A file", content_type = "application/json", body = Thread),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn export_thread(
    State(threads): State<Threads>,
    principal: Principal,
    Path(id): Path<ThreadId>,
    Query(query): Query<ExportQuery>,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::ThreadsRead))?;
    let mut tx = loom_db::begin(&threads.pool).await?;
    store::take_snapshot(&mut tx).await?;
    let head = store::find(&mut tx, principal.org, id).await?;
    let mut head =
        head.filter(|head| head.ownership().visible_to(&principal)).ok_or_else(not_found)?;
    let messages = store::messages::after(&mut tx, head.org_id, id, 0, None, Outputs::Full).await?;
    head.git.commits = Some(store::commits(&mut tx, head.org_id, id).await?);
    tx.commit().await?;
    let format = query.format;
    let thread = Thread { head, messages };
    let write = move || format.write(&thread);
    let text = tokio::task::spawn_blocking(write).await.map_err(Error::internal)??;
    let name = format!("attachment; filename=\"{id}.{}\"", format.extension());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(format.content_type())),
        (header::CONTENT_DISPOSITION, HeaderValue::try_from(name).map_err(Error::internal)?),
    ];
    Ok((headers, text).into_response())
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ImportQuery {
    /// Give the threads new ids. Else they keep theirs, and one that is taken is a 409.
    #[serde(default)]
    new_ids: bool,
}

/// What came in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Imported {
    pub threads: Vec<ImportedThread>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImportedThread {
    pub id: ThreadId,
    pub version: i64,
    pub message_count: i32,
}

/// Import threads
///
/// What an export gave, by its content type: `application/json` (one thread, or several under
/// `threads`), `application/x-ndjson`, `text/markdown`. All of it, or nothing. The threads are yours,
/// and private.
#[utoipa::path(
    post,
    path = "/api/threads/import",
    operation_id = "import_threads",
    tag = "threads",
    params(ImportQuery),
    request_body(content = Object, content_type = "application/json"),
    responses(
        (status = 201, body = Imported),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`thread_exists`", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn import_threads(
    State(threads): State<Threads>,
    principal: Principal,
    Query(query): Query<ImportQuery>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<(StatusCode, Json<Imported>)> {
    authorize(&principal, Action::Use(Scope::ThreadsWrite))?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let format = content_type.and_then(Format::of_content_type).ok_or_else(|| {
        Error::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "an import is application/json, application/x-ndjson or text/markdown",
        )
    })?;
    let text = std::str::from_utf8(&body)
        .map_err(|_| Error::malformed("invalid_request", "the body is not valid UTF-8"))?;
    let drafts = format.read(text)?;
    let redacts = threads.redacts(principal.org).await?;
    let now = threads.now();
    let mut checked = Vec::with_capacity(drafts.len());
    for (place, mut draft) in drafts.into_iter().enumerate() {
        let known = draft.id.take().filter(|_| !query.new_ids);
        let id = known.unwrap_or_else(|| ThreadId(loom_core::id::new_uuid(now)));
        // Nobody works on it here, and who saw it there is not who may see it here.
        draft.agent_state = None;
        draft.visibility = Some(Visibility::Private);
        if redacts {
            Masker::new().draft(&mut draft);
        }
        checked.push((id, place, draft.check(id)?));
    }
    // All or nothing is one transaction over several threads. It waits for its turn at each before it
    // writes the first, so that its events come behind those of whoever had the turn; and in the order of
    // the ids, so that no two imports wait for each other.
    checked.sort_unstable_by_key(|(id, place, _)| (id.0, *place));
    let mut tx = loom_db::begin(&threads.pool).await?;
    for (id, ..) in &checked {
        if store::lock(&mut tx, principal.org, *id).await?.is_some() {
            return Err(exists(*id));
        }
    }
    let mut imported = Vec::with_capacity(checked.len());
    for (id, place, draft) in checked {
        let thread = document::create(&threads, &mut tx, &principal, id, draft, now).await?;
        let head = thread.ok_or_else(|| exists(id))?.head;
        let thread =
            ImportedThread { id, version: head.version, message_count: head.message_count };
        imported.push((place, thread));
    }
    tx.commit().await?;
    threads.feed.wrote();
    imported.sort_unstable_by_key(|(place, _)| *place);
    let imported = imported.into_iter().map(|(_, thread)| thread).collect();
    Ok((StatusCode::CREATED, Json(Imported { threads: imported })))
}

fn exists(id: ThreadId) -> Error {
    let detail = format!("there is a thread {id} already; `?new_ids=true` makes another");
    Error::conflict("thread_exists", detail)
}
