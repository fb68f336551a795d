//! Asking another server for its log. Each request carries proof that a server of this installation
//! made it, for this one server and question, not more than half a minute ago.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, StatusCode, header};
use loom_common_secret::SecretString;
use loom_core::{Error, Result};
use reqwest::Url;
use sha2::Sha256;
use uuid::Uuid;

use crate::{Logs, model::LogQuery, replicas::store::ReplicaRow};

const PROOF: &str = "x-loom-peer";
const USER: &str = "x-loom-peer-user";
/// For both directions of the clocks' difference.
const GOOD_FOR_SECS: i64 = 30;
const HEAD_WITHIN: Duration = Duration::from_secs(10);
const LARGEST_ANSWER: usize = 64 << 20;

/// What a proof is of.
struct Claim<'a> {
    from: Uuid,
    to: Uuid,
    question: &'a str,
    user: &'a str,
    at: i64,
}

impl Claim<'_> {
    fn mac(&self, key: &SecretString) -> Result<Hmac<Sha256>> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()).map_err(Error::internal)?;
        let Claim { from, to, question, user, at } = self;
        // No part but the last can hold a line break: ids, a path, a header's value.
        mac.update(format!("{from}\n{to}\n{question}\n{at}\n{user}").as_bytes());
        Ok(mac)
    }
}

fn unreachable(status: StatusCode, detail: String) -> Error {
    Error::new(status, "replica_unreachable", detail)
}

/// The answer of another server to this query about its log.
pub(crate) async fn ask(
    logs: &Logs,
    replica: &ReplicaRow,
    path: &str,
    query: &LogQuery,
    user: &str,
) -> Result<reqwest::Response> {
    let Some(address) = &replica.address else {
        return Err(unreachable(
            StatusCode::CONFLICT,
            format!(
                "the server {} listens for its own machine only, or does not know its address: set \
                 LOOM_SERVER_PEER_URL on it to where the other servers reach it",
                replica.name
            ),
        ));
    };
    let bad = |_| unreachable(StatusCode::CONFLICT, format!("{address} is no URL"));
    let mut url = Url::parse(&format!("{address}{path}")).map_err(bad)?;
    let query = serde_json::to_value(LogQuery { replica: None, ..query.clone() });
    if let Ok(serde_json::Value::Object(members)) = query {
        let mut pairs = url.query_pairs_mut();
        for (name, value) in &members {
            pairs.append_pair(name, &value.as_str().map_or_else(|| value.to_string(), Into::into));
        }
    }
    let question = format!("{path}?{}", url.query().unwrap_or_default());
    let at = logs.clock.now().timestamp();
    let claim = Claim { from: logs.id, to: replica.id, question: &question, user, at };
    let mac = hex::encode(claim.mac(&logs.peer_key)?.finalize().into_bytes());
    let request = logs
        .client
        .get(url)
        .header(PROOF, format!("{};{at};{mac}", logs.id))
        .header(USER, user)
        .send();
    let failed = |cause: String| {
        tracing::info!(replica = replica.name, cause, "another server does not answer");
        unreachable(
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "the server {} does not answer at {address}: {cause}. LOOM_SERVER_PEER_URL on it \
                 says where the other servers reach it",
                replica.name
            ),
        )
    };
    let answer = match tokio::time::timeout(HEAD_WITHIN, request).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) if error.is_connect() => return Err(failed("no connection".to_owned())),
        Ok(Err(error)) => return Err(failed(error.without_url().to_string())),
        Err(_) => return Err(failed(format!("nothing within {} s", HEAD_WITHIN.as_secs()))),
    };
    match answer.status() {
        StatusCode::UNAUTHORIZED => Err(failed(
            "it does not take our proof. All servers need the same LOOM_SERVER_MASTER_KEY, and \
             clocks that agree to half a minute"
                .to_owned(),
        )),
        StatusCode::NOT_FOUND => Err(failed("another version, or no Loom, is there".to_owned())),
        _ => Ok(answer),
    }
}

/// Whoever asks is a server of this installation. Gives the name of the user behind it.
///
/// # Errors
/// 401.
pub(crate) fn verify(logs: &Logs, headers: &HeaderMap, question: &str) -> Result<String> {
    let refused = || Error::unauthenticated("this is for the other servers of the installation");
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let mut parts = text(PROOF).ok_or_else(refused)?.split(';');
    let mut part = || parts.next().ok_or_else(refused);
    let (from, at, mac) = (part()?, part()?, part()?);
    let from = from.parse().map_err(|_| refused())?;
    let at: i64 = at.parse().map_err(|_| refused())?;
    let mac = hex::decode(mac).map_err(|_| refused())?;
    let user = text(USER).ok_or_else(refused)?;
    let claim = Claim { from, to: logs.id, question, user, at };
    // In constant time.
    claim.mac(&logs.peer_key)?.verify_slice(&mac).map_err(|_| refused())?;
    if logs.clock.now().timestamp().abs_diff(at) > GOOD_FOR_SECS.unsigned_abs() {
        return Err(refused());
    }
    Ok(user.to_owned())
}

/// The other server's answer as ours.
pub(crate) async fn pass_on(mut answer: reqwest::Response) -> Result<Response> {
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
    let mut body = Vec::new();
    let broken = |_| {
        unreachable(StatusCode::SERVICE_UNAVAILABLE, "the server broke off its answer".to_owned())
    };
    while let Some(piece) = answer.chunk().await.map_err(broken)? {
        if body.len() + piece.len() > LARGEST_ANSWER {
            return Err(Error::internal("another server's answer is too long"));
        }
        body.extend_from_slice(&piece);
    }
    let mut response = (status, Body::from(body)).into_response();
    if let Some(kind) = kind {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    Ok(response)
}

/// The other server's stream, to its end or its breaking off.
pub(crate) fn pieces(answer: reqwest::Response) -> impl Stream<Item = Bytes> + Send + Unpin {
    answer
        .bytes_stream()
        .map(Result::ok)
        .take_while(|piece| futures::future::ready(piece.is_some()))
        .filter_map(futures::future::ready)
}
