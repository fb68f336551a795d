//! Files for an event that was sent before.

use axum::{
    body::Body,
    extract::{Extension, Request, State},
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, request::Parts};
use loom_core::{id::EventId, port::Attachment};

use super::{finish, form, of_form, only};
use crate::{
    Ingest,
    admission::Said,
    answer::Outcome,
    body::Incoming,
    credentials::shown,
    item::{Category, Kind},
    refusal::Refusal,
    take::Piece,
    target::{Target, parameter},
};

pub(crate) async fn attachments(
    State(ingest): State<Ingest>,
    Extension(target): Extension<Target>,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    if let Err(refusal) = only(&[Method::POST], &parts) {
        return finish(Err(refusal));
    }
    let event = parameter(&mut parts, "event").await;
    finish(take(&ingest, target, event, &parts, body).await)
}

async fn take(
    ingest: &Ingest,
    target: Target,
    event: Option<String>,
    parts: &Parts,
    body: Body,
) -> Result<Response, Refusal> {
    let event: EventId = event
        .and_then(|event| event.parse().ok())
        .ok_or_else(|| Refusal::malformed("the id of an event is a UUID"))?;
    let said = Said { project: Some(target.0), ..Said::default() };
    let sender = ingest.admit(parts, shown(parts, None)?, said).await?;
    let incoming = Incoming::new(
        body,
        &parts.headers,
        ingest.config.envelope_bytes,
        ingest.memory(),
        sender.org(),
    )?;
    let _share = incoming.share();
    let mut form = form(parts, incoming).await?;
    let mut outcome = Outcome::default();
    let mut pieces = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|error| of_form(&error))? {
        let cut = |text: &str| text.chars().take(500).collect::<String>();
        let name = field.file_name().or(field.name()).map(cut).unwrap_or_default();
        let content_type = field.content_type().map(cut);
        let content = field.bytes().await.map_err(|error| of_form(&error))?;
        if content.len() > ingest.config.attachment_bytes {
            let refusal = Refusal::too_large("a file is larger than an attachment may be");
            outcome.refuse(Category::Attachment, refusal);
        } else if pieces.len() >= Kind::Attachment.most() {
            let refusal = Refusal::too_large("a form has 100 files at most");
            outcome.refuse(Category::Attachment, refusal);
        } else {
            let kind = "event.attachment".to_owned();
            pieces.push(Piece::Attachment(Attachment { event, name, content_type, kind, content }));
        }
    }
    if pieces.is_empty() {
        outcome.refuse(Category::Attachment, Refusal::malformed("the form has no file"));
    }
    ingest.take(&sender, pieces, &mut outcome).await;
    Ok(outcome.answer(|_| StatusCode::CREATED.into_response()))
}
