//! Calling a webhook: one signed request, no redirect followed, nothing of the answer kept but its
//! beginning.

use std::time::Duration;

use chrono::{DateTime, Utc};
use loom_common_secret::SecretString;
use loom_core::{Error, Result};
use reqwest::{Method, Response, StatusCode, Url, header};

use crate::{
    mailer::chain,
    outbound::{Client, Guard, Refused},
    outcome::{Outcome, Via},
    signature::{sign, sign_body},
    store::Claimed,
};

/// The whole exchange.
const LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_MAX: usize = 1024;

/// Where a webhook is and what signs.
pub(crate) struct Receiver {
    pub(crate) url: SecretString,
    pub(crate) secret: SecretString,
}

pub(crate) fn client(guard: &Guard) -> Result<Client> {
    let configured = guard.client(|builder| {
        builder
            .connect_timeout(CONNECT_LIMIT)
            .timeout(LIMIT)
            .user_agent(concat!("Loom/", env!("CARGO_PKG_VERSION")))
    });
    configured.map_err(Error::internal)
}

pub(crate) async fn call(
    client: &Client,
    delivery: &Claimed,
    receiver: &Receiver,
    body: String,
    now: DateTime<Utc>,
) -> Result<Outcome> {
    let Ok(url) = receiver.url.expose().parse::<Url>() else {
        return Ok(Outcome::fail("the webhook's URL is none"));
    };
    // The same at each attempt, so that a duplicate can be told.
    let id = format!("msg_{}", delivery.id.0.simple());
    let timestamp = now.timestamp();
    let signature = sign(&receiver.secret, &id, timestamp, &body)?;
    let of_body = sign_body(&receiver.secret, &body)?;
    let request = match client.request(Method::POST, url) {
        Ok(request) => request,
        Err(refused) => return Ok(Outcome::fail(refused.to_string())),
    };
    let request = request
        .header(header::CONTENT_TYPE, "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature)
        .header("x-loom-signature-256", of_body)
        .body(body);
    Ok(match request.send().await {
        Ok(response) => answered(response, now).await,
        Err(error) => match Refused::of(&error) {
            Some(refused) => Outcome::fail(refused.to_string()),
            // Its path may be a secret.
            None => Outcome::retry(chain(&error.without_url())),
        },
    })
}

async fn answered(response: Response, now: DateTime<Utc>) -> Outcome {
    let status = response.status();
    if status.is_success() {
        return Outcome::delivered(Via::Http, Some(i32::from(status.as_u16())));
    }
    let asked = retry_after(&response, now);
    let begin = beginning(response).await;
    let text = format!("HTTP {status}: {begin}");
    let text = text.trim_end_matches([':', ' ']);
    let outcome = if status == StatusCode::GONE {
        Outcome::gone(text)
    } else {
        Outcome::retry(text).after(asked)
    };
    outcome.with_status(Some(status.as_u16()))
}

/// In seconds, or as a date.
fn retry_after(response: &Response, now: DateTime<Utc>) -> Duration {
    let value = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let Some(value) = value else { return Duration::ZERO };
    let by_date = || {
        let at = DateTime::parse_from_rfc2822(value).ok()?;
        (at.to_utc() - now).to_std().ok()
    };
    value.parse().map(Duration::from_secs).ok().or_else(by_date).unwrap_or_default()
}

async fn beginning(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_MAX
        && let Ok(Some(piece)) = response.chunk().await
    {
        bytes.extend(piece.iter().take(ANSWER_MAX - bytes.len()));
    }
    let text = String::from_utf8_lossy(&bytes);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
