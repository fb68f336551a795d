//! One event by itself, as older SDKs send it: JSON, or that compressed and in base64, or in a URL.

use std::io::Read;

use axum::{
    body::Body,
    extract::{Extension, Request, State},
    response::{IntoResponse, Response},
};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use http::{Method, header, request::Parts};

use super::{finish, only, whole};
use crate::{
    Ingest,
    admission::Said,
    answer::{Outcome, with_id},
    credentials::{query, shown},
    item::MAX_EVENT,
    refusal::Refusal,
    take::Piece,
    target::Target,
};

/// A transparent picture of one pixel: a page shows it by the URL that is the event.
const PIXEL: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";
/// In a URL there may be padding, or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(crate) async fn store(
    State(ingest): State<Ingest>,
    Extension(target): Extension<Target>,
    request: Request,
) -> Response {
    take(&ingest, Some(target), request).await
}

/// Before projects were in the path.
pub(crate) async fn store_without_project(
    State(ingest): State<Ingest>,
    request: Request,
) -> Response {
    take(&ingest, None, request).await
}

async fn take(ingest: &Ingest, target: Option<Target>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match only(&[Method::POST, Method::GET], &parts) {
        Ok(()) => finish(one_event(ingest, target, &parts, body).await),
        Err(refusal) => finish(Err(refusal)),
    }
}

async fn one_event(
    ingest: &Ingest,
    target: Option<Target>,
    parts: &Parts,
    body: Body,
) -> Result<Response, Refusal> {
    let said = Said { project: target.map(|target| target.0), ..Said::default() };
    let sender = ingest.admit(parts, shown(parts, None)?, said).await?;
    let is_picture = parts.method == Method::GET;
    let (payload, _share) = if is_picture {
        let data = query(parts).find(|(name, _)| name == "sentry_data");
        let (_, data) = data.ok_or_else(|| Refusal::malformed("there is no sentry_data"))?;
        // A plus that was not escaped.
        (Bytes::from(data.replace(' ', "+")), None)
    } else {
        // Base64 is a third longer.
        let (body, share) = whole(ingest, &sender, parts, body, MAX_EVENT * 3 / 2).await?;
        (body, Some(share))
    };
    let payload = unwrapped(payload)?;
    if payload.len() > MAX_EVENT {
        return Err(Refusal::too_large("an event has 1 MiB at most"));
    }
    let piece = ingest.event(None, payload)?;
    let mut outcome = Outcome::default();
    if let Piece::Event(id, _) = &piece {
        outcome.event = Some(id.0);
    }
    ingest.take(&sender, vec![piece], &mut outcome).await;
    Ok(outcome.answer(|event| if is_picture { pixel() } else { with_id(event) }))
}

/// JSON as it is; else what is in base64, and what is compressed in that.
fn unwrapped(payload: Bytes) -> Result<Bytes, Refusal> {
    let text = payload.trim_ascii();
    if text.first() == Some(&b'{') {
        return Ok(payload);
    }
    let malformed =
        || Refusal::malformed("an event is a JSON object, or that with zlib and in base64");
    let inside = BASE64.decode(text).map_err(|_| malformed())?;
    if inside.trim_ascii_start().first() == Some(&b'{') {
        return Ok(inside.into());
    }
    let mut event = Vec::new();
    // One byte more than may be tells that there was more.
    let most = u64::try_from(MAX_EVENT + 1).unwrap_or(u64::MAX);
    let read = flate2::read::ZlibDecoder::new(&*inside).take(most).read_to_end(&mut event);
    read.map_err(|_| malformed())?;
    Ok(event.into())
}

fn pixel() -> Response {
    ([(header::CONTENT_TYPE, "image/gif"), (header::CACHE_CONTROL, "no-store")], PIXEL)
        .into_response()
}
