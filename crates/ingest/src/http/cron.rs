//! Check-ins of scheduled jobs by URL alone: what curl can do at the end of a script.

use axum::{
    body::Body,
    extract::{Extension, Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{Method, StatusCode, request::Parts};
use serde_json::{Map, Value};

use super::{finish, only, whole};
use crate::{
    Ingest,
    admission::Said,
    answer::Outcome,
    credentials::{query, shown},
    item::MAX_CHECK_IN,
    refusal::Refusal,
    take::Piece,
    target::{Target, parameter},
};

pub(crate) async fn cron(
    State(ingest): State<Ingest>,
    Extension(target): Extension<Target>,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    if let Err(refusal) = only(&[Method::GET, Method::POST], &parts) {
        return finish(Err(refusal));
    }
    let slug = parameter(&mut parts, "slug").await.unwrap_or_default();
    let key = parameter(&mut parts, "key").await;
    finish(take(&ingest, target, slug, key, &parts, body).await)
}

async fn take(
    ingest: &Ingest,
    target: Target,
    slug: String,
    key: Option<String>,
    parts: &Parts,
    body: Body,
) -> Result<Response, Refusal> {
    let said = Said { project: Some(target.0), ..Said::default() };
    let sender = ingest.admit(parts, shown(parts, key)?, said).await?;
    let (body, _share) = whole(ingest, &sender, parts, body, MAX_CHECK_IN).await?;
    let check_in = check_in(slug, parts, &body)?;
    let mut outcome = Outcome::default();
    ingest.take(&sender, vec![Piece::CheckIn(check_in)], &mut outcome).await;
    Ok(outcome.answer(|_| StatusCode::ACCEPTED.into_response()))
}

/// The check-in of a body, or of the query; the monitor is the one in the path.
fn check_in(slug: String, parts: &Parts, body: &[u8]) -> Result<Bytes, Refusal> {
    let mut check_in = match body.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice::<Map<String, Value>>(body)
            .map_err(|_| Refusal::malformed("the check-in is not JSON"))?,
        // What a script sends along with a URL that says it all, is no check-in.
        _ => Map::new(),
    };
    for (name, value) in query(parts) {
        let value = match &*name {
            "status" | "check_in_id" | "environment" | "release" => Value::from(&*value),
            "duration" => match value.parse::<f64>() {
                Ok(secs) => secs.into(),
                Err(_) => return Err(Refusal::malformed("the duration is in seconds")),
            },
            _ => continue,
        };
        check_in.entry(name).or_insert(value);
    }
    if !check_in.contains_key("status") {
        return Err(Refusal::malformed("say ?status=in_progress, ok or error"));
    }
    check_in.insert("monitor_slug".to_owned(), slug.into());
    // Without an id it is the run that goes on, else a new one.
    check_in.entry("check_in_id").or_insert_with(|| uuid::Uuid::nil().simple().to_string().into());
    Ok(Bytes::from(Value::Object(check_in).to_string()))
}
