//! The same question again gets the same answer: only for organisations that want it, and only what is
//! asked with temperature 0 or has no chance in it.

use std::time::Duration;

use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use loom_core::Result;
use metrics::counter;
use serde_json::Value;

use super::{
    call::{Call, Digest, Surface},
    kept::Kept,
    noted::Opened,
    store,
};
use crate::{
    LlmProxy,
    dialect::Operation,
    ledger::{Opening, Outcome},
    limits::Need,
    pool::CALLERS,
    trailer,
};

/// By which a client sees where its reply came from.
const HEADER: &str = "x-loom-cache";

/// A question that may have an answer, or may get one to be kept.
pub(super) struct Question {
    digest: Digest,
    operation: Operation,
    streamed: bool,
    /// `cache-control: no-cache` asks a provider whatever is kept.
    reads: bool,
    /// With `no-store` the answer is not kept, either.
    pub(super) writes: bool,
}

/// Fields by which a request depends on more than itself.
const STATEFUL: [&str; 4] = ["previous_response_id", "conversation", "background", "container"];

impl LlmProxy {
    /// None: nothing of this request is taken from the cache, nor kept there.
    pub(super) fn question(&self, call: &Call) -> Option<Question> {
        if !call.settings.cache.enabled {
            return None;
        }
        let wishes = Wishes::of(&call.headers);
        // What somebody's own token may ask, and has paid for, is nobody else's.
        if call.headers.contains_key(CALLERS) {
            return None;
        }
        let Value::Object(body) = serde_json::from_slice::<Value>(&call.body).ok()? else {
            return None;
        };
        let certain = body.get("temperature").and_then(Value::as_f64) == Some(0.0);
        let (operation, streamed) = match &call.surface {
            Surface::Wire(Operation::Embeddings) => (Operation::Embeddings, false),
            Surface::Wire(Operation::CountTokens) => return None,
            Surface::Wire(_) | Surface::Native { .. } if !certain => return None,
            Surface::Wire(operation) => {
                (*operation, body.get("stream").and_then(Value::as_bool).unwrap_or_default())
            }
            Surface::Native { provider, streamed } => {
                let model = body.get("model").and_then(Value::as_str).unwrap_or_default();
                (self.providers.named(provider)?.native_operation(model), *streamed)
            }
        };
        if STATEFUL.iter().any(|name| body.get(*name).is_some_and(|value| !value.is_null())) {
            return None;
        }
        // Without blanks, the members in one order.
        let normal = serde_json::to_vec(&body).ok()?;
        let digest = self.record.digester.of_question(call, &call.headers, &normal);
        let reads = !wishes.no_cache && !wishes.no_store;
        Some(Question { digest, operation, streamed, reads, writes: !wishes.no_store })
    }

    /// The answer that is kept, accounted as one that cost nothing.
    pub(super) async fn cached(&self, call: &Call, question: &Question) -> Option<Response> {
        let found = if question.reads { self.find(call, question).await } else { Ok(None) };
        let result = match &found {
            Ok(Some(_)) => "hit",
            Ok(None) if question.reads => "miss",
            Ok(None) => "bypass",
            Err(error) => {
                tracing::warn!(?error, "the cache of replies could not be asked; a provider is");
                "error"
            }
        };
        counter!("loom_llm_cache_requests_total", "result" => result).increment(1);
        found.ok().flatten()
    }

    async fn find(&self, call: &Call, question: &Question) -> Result<Option<Response>> {
        let now = self.clock.now();
        let org = call.principal.org;
        let ttl = Duration::from_secs(call.settings.cache.ttl_secs.into());
        let found = store::cached(&self.pool, org, &question.digest, now - ttl).await?;
        let Some(found) = found else { return Ok(None) };
        // It may be gone from the configuration meanwhile.
        let Some(provider) = self.providers.named(&found.provider) else { return Ok(None) };
        let context = context(call, &question.digest);
        let kept = Kept::from_bytes(self.vault.unseal_bytes(&context, &found.sealed_reply)?)?;
        self.limits.check_weaver(&call.principal, &call.headers).await?;
        let mut meter = self.ledger.open(&Opening {
            principal: &call.principal,
            info: &call.info,
            headers: &call.headers,
            provider,
            model: &found.model,
            streamed: question.streamed,
            request_bytes: call.body.len(),
            need: Need {
                operation: question.operation,
                surface: question.operation.dialect().into(),
                max_output: None,
                input_estimate: 0,
            },
        })?;
        meter.served_from("cache");
        let size = kept.body.len();
        let mut response = kept.response();
        meter.answered(response.status(), None);
        meter.passed(size);
        meter.tell(response.headers_mut());
        meter.end(Outcome::Succeeded, None);
        let age = (now - found.stored_at).num_seconds().max(0);
        response.headers_mut().insert(trailer::COST, HeaderValue::from_static("0"));
        response.headers_mut().insert(header::AGE, HeaderValue::from(age));
        response.headers_mut().insert(HEADER, HeaderValue::from_static("hit"));
        Ok(Some(response))
    }

    pub(super) async fn put_into_cache(
        &self,
        call: &Call,
        question: &Question,
        opened: &Opened,
        kept: &Kept,
    ) -> Result<()> {
        let context = context(call, &question.digest);
        let sealed_reply = self.vault.seal_bytes(&context, &kept.to_bytes()?)?;
        let cached = store::Cached {
            provider: opened.provider.to_string(),
            model: opened.model.clone(),
            sealed_reply,
            stored_at: self.clock.now(),
        };
        store::put_cached(&self.pool, call.principal.org, &question.digest, &cached).await
    }
}

impl Question {
    pub(super) fn mark_asked(&self, response: &mut Response) {
        let result = if self.reads { "miss" } else { "bypass" };
        response.headers_mut().insert(HEADER, HeaderValue::from_static(result));
    }
}

fn context(call: &Call, digest: &Digest) -> String {
    format!("llm_cached_replies/{}/{}", call.principal.org, super::hex(digest))
}

/// What the client says of caches (RFC 9111, section 5.2.1).
#[derive(Debug, Default, PartialEq, Eq)]
struct Wishes {
    no_cache: bool,
    no_store: bool,
}

impl Wishes {
    fn of(headers: &HeaderMap) -> Self {
        let mut wishes = Self::default();
        for value in headers.get_all(header::CACHE_CONTROL) {
            for word in value.to_str().unwrap_or_default().split(',').map(str::trim) {
                wishes.no_cache |= word.eq_ignore_ascii_case("no-cache");
                wishes.no_store |= word.eq_ignore_ascii_case("no-store");
            }
        }
        wishes
    }
}
