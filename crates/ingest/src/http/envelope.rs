//! Envelopes: at their project's address, or through a tunnel, where the DSN is in the envelope.

use axum::{
    body::Body,
    extract::{Extension, Request, State},
    response::Response,
};
use chrono::DateTime;
use http::{Method, request::Parts};

use super::{finish, only};
use crate::{
    Ingest,
    admission::Said,
    answer::with_id,
    body::Incoming,
    credentials::{self, shown},
    envelope::Header,
    refusal::Refusal,
    target::Target,
};

pub(crate) async fn envelope(
    State(ingest): State<Ingest>,
    Extension(target): Extension<Target>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    match only(&[Method::POST], &parts) {
        Ok(()) => finish(take(&ingest, Some(target), &parts, body).await),
        Err(refusal) => finish(Err(refusal)),
    }
}

pub(crate) async fn tunnel(State(ingest): State<Ingest>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match only(&[Method::POST], &parts) {
        Ok(()) => finish(take(&ingest, None, &parts, body).await),
        Err(refusal) => finish(Err(refusal)),
    }
}

async fn take(
    ingest: &Ingest,
    target: Option<Target>,
    parts: &Parts,
    body: Body,
) -> Result<Response, Refusal> {
    let shown = shown(parts, None)?;
    // With the key beside it, whose it is is known before anything is read: strangers do not fill its room.
    let key = match &shown.key {
        Some(key) => ingest.deps.projects.by_key(&key.to_ascii_lowercase()).await?,
        None => None,
    };
    let org = key.map(|key| key.project.org);
    let mut incoming =
        Incoming::new(body, &parts.headers, ingest.config.envelope_bytes, ingest.memory(), org)?;
    // Who sends is known after the first line; the rest is not read for a stranger.
    let header = Header::parse(incoming.first_line().await?)
        .map_err(|malformed| Refusal::malformed(malformed.0))?;
    let dsn = match header.dsn().map(credentials::dsn) {
        Some(None) => return Err(Refusal::malformed("the dsn of the envelope is none")),
        dsn => dsn.flatten(),
    };
    if target.is_none() && dsn.is_none() {
        return Err(Refusal::unauthenticated(
            "through a tunnel, the first line of an envelope has the dsn",
        ));
    }
    let sent_at = header.sent_at().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    let said = Said {
        project: target.map(|target| target.0),
        dsn,
        sdk: header.sdk(),
        sent_at: sent_at.map(Into::into),
    };
    let sender = ingest.admit(parts, shown, said).await?;
    incoming.belongs_to(sender.delivery.project.org)?;
    let _share = incoming.share();
    let body = incoming.whole().await?;
    let outcome = ingest.take_envelope(&sender, header.event_id(), &body).await;
    Ok(outcome.answer(with_id))
}
