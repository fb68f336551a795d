//! The routes of Sentry's protocol, and one of our own.

pub(crate) mod attachments;
pub(crate) mod cron;
pub(crate) mod envelope;
pub(crate) mod minidump;
pub(crate) mod native;
pub(crate) mod security;
pub(crate) mod store;

use axum::{
    body::Body,
    extract::{
        FromRequest, FromRequestParts, MatchedPath, Multipart, Request, State,
        multipart::MultipartError,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{Method, header, request::Parts};

use crate::{Ingest, admission::Sender, body::Incoming, origin, refusal::Refusal, target::Target};

/// What surrounds all of Sentry's routes: words in place of a project's number are not ours, browsers ask
/// before they send, every answer may be read by any page.
pub(crate) async fn around(State(ingest): State<Ingest>, request: Request, next: Next) -> Response {
    let _in_flight = ingest.pulse.enter();
    let (mut parts, body) = request.into_parts();
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let mut response = if route.starts_with("/api/{project}") {
        match Target::from_request_parts(&mut parts, &()).await {
            Ok(target) => {
                parts.extensions.insert(target);
                answer(parts, body, next).await
            }
            // A word: for our own API there is no such route, and this is what it says of it.
            Err(native) if native.extensions().get::<loom_core::Error>().is_some() => {
                return native;
            }
            Err(refused) => refused,
        }
    } else {
        answer(parts, body, next).await
    };
    ingest.pulse.ended(response.status(), &ingest.deps.clock);
    origin::open(response.headers_mut());
    response
}

async fn answer(parts: Parts, body: Body, next: Next) -> Response {
    match origin::preflight(&parts) {
        Some(response) => response,
        None => next.run(Request::from_parts(parts, body)).await,
    }
}

/// A work's answer, whichever way it ended.
fn finish(result: Result<Response, Refusal>) -> Response {
    result.unwrap_or_else(IntoResponse::into_response)
}

/// # Errors
/// 405 for any other than these.
fn only(methods: &[Method], parts: &Parts) -> Result<(), Refusal> {
    if methods.contains(&parts.method) { Ok(()) } else { Err(Refusal::wrong_method(methods)) }
}

/// The fields of a form, decoded and within limits while they come in.
async fn form(parts: &Parts, incoming: Incoming) -> Result<Multipart, Refusal> {
    let mut request = Request::new(Body::from_stream(incoming.stream()));
    // They say that axum's limit of bodies is not ours.
    *request.extensions_mut() = parts.extensions.clone();
    if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
        request.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    let form = Multipart::from_request(request, &()).await;
    form.map_err(|_| Refusal::malformed("send a form: multipart/form-data with a boundary"))
}

/// What ended the reading of a form: a limit of ours, or the form.
fn of_form(error: &MultipartError) -> Refusal {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return refusal.clone();
        }
        next = error.source();
    }
    Refusal::malformed("the form cannot be read to its end")
}

/// A body as it is, of an event and the like.
async fn whole(
    ingest: &Ingest,
    sender: &Sender,
    parts: &Parts,
    body: Body,
    limit: usize,
) -> Result<(Bytes, std::sync::Arc<crate::body::Share>), Refusal> {
    let incoming = Incoming::new(body, &parts.headers, limit, ingest.memory(), sender.org())?;
    let share = incoming.share();
    Ok((incoming.whole().await?, share))
}
