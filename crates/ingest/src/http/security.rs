//! Reports of browsers: content security policy, Expect-CT, Expect-Staple, key pinning.

use axum::{
    body::Body,
    extract::{Extension, Request, State},
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, request::Parts};

use super::{finish, only, whole};
use crate::{
    Ingest,
    admission::Said,
    answer::Outcome,
    credentials::{query, shown},
    item::MAX_EVENT,
    refusal::Refusal,
    security,
    target::Target,
};

pub(crate) async fn security(
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

async fn take(
    ingest: &Ingest,
    target: Target,
    parts: &Parts,
    body: Body,
) -> Result<Response, Refusal> {
    let said = Said { project: Some(target.0), ..Said::default() };
    let sender = ingest.admit(parts, shown(parts, None)?, said).await?;
    let (body, _share) = whole(ingest, &sender, parts, body, MAX_EVENT).await?;
    let query: Vec<_> = query(parts).collect();
    let events = security::events(&body, &sender.delivery, &query)?;
    let pieces: Result<Vec<_>, _> =
        events.into_iter().map(|payload| ingest.event(None, payload)).collect();
    let mut outcome = Outcome::default();
    ingest.take(&sender, pieces?, &mut outcome).await;
    Ok(outcome.answer(|_| StatusCode::CREATED.into_response()))
}
