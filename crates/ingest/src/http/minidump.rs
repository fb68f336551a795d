//! Crashes of programs as their crash handlers upload them: a form with a minidump, or the file alone.

use std::sync::Arc;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use axum::{
    body::Body,
    extract::{Extension, Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, Method, header, request::Parts};
use loom_core::{id::EventId, port::Attachment};
use serde_json::Map;
use tokio_util::io::ReaderStream;

use super::{finish, form, of_form, only};
use crate::{
    Ingest,
    admission::{Said, Sender},
    answer::Outcome,
    body::{Incoming, Share},
    credentials::shown,
    item::MAX_EVENT,
    minidump::{self, Fields},
    refusal::Refusal,
    take::Piece,
    target::Target,
};

/// The field with the minidump.
const DUMP: &str = "upload_file_minidump";
/// Files in one form.
const FILES: usize = 100;

pub(crate) async fn minidump(
    State(ingest): State<Ingest>,
    Extension(target): Extension<Target>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    match only(&[Method::POST], &parts) {
        Ok(()) => finish(take(&ingest, target, &parts, body).await),
        Err(refusal) => finish(Err(refusal)),
    }
}

/// A file as it came.
struct File {
    name: String,
    content_type: Option<String>,
    is_dump: bool,
    content: Bytes,
}

async fn take(
    ingest: &Ingest,
    target: Target,
    parts: &Parts,
    body: Body,
) -> Result<Response, Refusal> {
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
    let is_form = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/"));
    let (mut files, said) = if is_form {
        read_form(parts, incoming).await?
    } else {
        let content = incoming.whole().await?;
        let name = "minidump.dmp".to_owned();
        (vec![File { name, content_type: None, is_dump: true, content }], Map::new())
    };
    let dump = files.iter_mut().find(|file| file.is_dump);
    let dump =
        dump.ok_or_else(|| Refusal::malformed("the form has no file upload_file_minidump"))?;
    let (content, _unpacked) = unpacked(ingest, &sender, &dump.content).await?;
    dump.content = content;
    if !minidump::is_minidump(&dump.content) {
        return Err(Refusal::malformed("the file is no minidump"));
    }
    let payload = minidump::event(&dump.content, said);
    if payload.len() > MAX_EVENT {
        return Err(Refusal::too_large("what the form says of the crash is larger than 1 MiB"));
    }
    let event = match ingest.event(None, payload)? {
        Piece::Event(id, payload) => (id, payload),
        _ => return Err(Refusal::malformed("this is no event")),
    };
    let mut outcome = Outcome::of(event.0.0);
    let mut pieces = vec![Piece::Event(event.0, event.1)];
    for file in files {
        if file.content.len() > ingest.config.attachment_bytes {
            let refusal =
                Refusal::too_large("a file of the form is larger than an attachment may be");
            if file.is_dump {
                return Err(refusal);
            }
            outcome.refuse(crate::item::Category::Attachment, refusal);
            continue;
        }
        pieces.push(Piece::Attachment(attachment(event.0, file)));
    }
    ingest.take(&sender, pieces, &mut outcome).await;
    // What crash handlers write into their log.
    Ok(outcome.answer(|event| {
        event.map(|id| id.hyphenated().to_string()).unwrap_or_default().into_response()
    }))
}

fn attachment(event: EventId, file: File) -> Attachment {
    let kind = if file.is_dump { "event.minidump" } else { "event.attachment" };
    Attachment {
        event,
        name: file.name,
        content_type: file.content_type,
        kind: kind.to_owned(),
        content: file.content,
    }
}

async fn read_form(
    parts: &Parts,
    incoming: Incoming,
) -> Result<(Vec<File>, Map<String, serde_json::Value>), Refusal> {
    let mut form = form(parts, incoming).await?;
    let (mut files, mut fields) = (Vec::new(), Fields::default());
    while let Some(field) = form.next_field().await.map_err(|error| of_form(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        let cut = |text: &str| text.chars().take(500).collect::<String>();
        let filename = field.file_name().map(cut);
        let content_type = field.content_type().map(cut);
        let content = field.bytes().await.map_err(|error| of_form(&error))?;
        let is_dump = name == DUMP;
        if is_dump || filename.is_some() {
            if files.len() < FILES {
                let name = filename.filter(|name| !name.is_empty()).unwrap_or(name);
                files.push(File { name, content_type, is_dump, content });
            }
        } else if let (true, Ok(text)) = (content.len() <= MAX_EVENT, std::str::from_utf8(&content))
        {
            fields.add(&name, text.to_owned());
        }
    }
    Ok((files, fields.event()))
}

/// Some handlers compress the file itself.
async fn unpacked(
    ingest: &Ingest,
    sender: &Sender,
    content: &Bytes,
) -> Result<(Bytes, Option<Arc<Share>>), Refusal> {
    let raw = std::io::Cursor::new(content.clone());
    let body = if content.starts_with(&[0x1f, 0x8b]) {
        Body::from_stream(ReaderStream::new(GzipDecoder::new(raw)))
    } else if content.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Body::from_stream(ReaderStream::new(ZstdDecoder::new(raw)))
    } else {
        return Ok((content.clone(), None));
    };
    let limit = ingest.config.attachment_bytes;
    let incoming = Incoming::new(body, &HeaderMap::new(), limit, ingest.memory(), sender.org())?;
    let share = incoming.share();
    Ok((incoming.whole().await?, Some(share)))
}
