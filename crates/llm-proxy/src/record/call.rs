//! What is known of a request before it is answered, and by which digests it is found again.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::Bytes;
use loom_core::{
    Error, Principal, Result,
    principal::{Actor, RequestInfo},
};
use ring::hmac;

use super::settings::Settings;
use crate::{dialect::Operation, forward::without_org};

/// The header by which a client marks its request as one, however often it is sent.
pub(super) const KEY: &str = "idempotency-key";
const LONGEST_KEY: usize = 255;

pub(super) type Digest = [u8; 32];

/// Where a request came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    Wire(Operation),
    Native { provider: String, streamed: bool },
}

impl Surface {
    fn name(&self) -> String {
        match self {
            Self::Wire(operation) => operation.name().to_owned(),
            Self::Native { provider, streamed: false } => format!("proxy/{provider}/complete"),
            Self::Native { provider, streamed: true } => format!("proxy/{provider}/stream"),
        }
    }
}

/// A request of which something is kept.
pub(super) struct Call {
    pub(super) surface: Surface,
    pub(super) principal: Principal,
    pub(super) info: RequestInfo,
    /// As it came, for the account.
    pub(super) headers: HeaderMap,
    pub(super) query: Option<String>,
    pub(super) body: Bytes,
    pub(super) settings: Settings,
}

/// Digests that tell nothing to who has not the master key: a short text could be guessed from a plain one.
pub(super) struct Digester(hmac::Key);

impl Digester {
    pub(super) fn new(key: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()))
    }

    /// Of these parts; the length of each goes in, so that none runs into the next.
    pub(super) fn of<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        let mut digest = hmac::Context::with_key(&self.0);
        for part in parts {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let mut out = Digest::default();
        out.copy_from_slice(digest.sign().as_ref());
        out
    }

    /// Of a key: that of another caller, or on another route, is another key.
    pub(super) fn of_key(&self, call: &Call, key: &Key) -> Digest {
        let actor = match call.principal.actor {
            Actor::User(id) => format!("user/{id}"),
            Actor::Service(id) => format!("service/{id}"),
            Actor::Weaver(id) => format!("weaver/{id}"),
        };
        let org = call.principal.org.0;
        let route = call.surface.name();
        self.of([
            b"key".as_slice(),
            org.as_bytes(),
            actor.as_bytes(),
            route.as_bytes(),
            key.0.as_bytes(),
        ])
    }

    pub(super) fn of_body(&self, call: &Call) -> Digest {
        self.of([b"body".as_slice(), call.query().as_bytes(), &call.body])
    }

    /// Of all that a provider's answer depends on; `body` in its normal form.
    pub(super) fn of_question(&self, call: &Call, headers: &HeaderMap, body: &[u8]) -> Digest {
        const HEADERS: [&str; 3] = ["anthropic-beta", "anthropic-version", "openai-beta"];
        let org = call.principal.org.0;
        let (route, query) = (call.surface.name(), call.query());
        let start = [b"question".as_slice(), org.as_bytes(), route.as_bytes(), query.as_bytes()];
        let told = HEADERS.map(|name| {
            let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
            values.collect::<Vec<_>>().join(&b',')
        });
        let told = told.iter().map(Vec::as_slice);
        self.of(start.into_iter().chain(told).chain([body]))
    }
}

impl Call {
    /// The query that goes to the provider.
    fn query(&self) -> String {
        self.query.as_deref().and_then(without_org).unwrap_or_default()
    }
}

/// An idempotency key as a client may choose it.
pub(super) struct Key(Arc<str>);

impl Key {
    /// # Errors
    /// 400.
    pub(super) fn parse(value: &HeaderValue) -> Result<Self> {
        let text = value.to_str().unwrap_or_default();
        let is_key = (1..=LONGEST_KEY).contains(&text.len())
            && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if is_key {
            return Ok(Self(text.into()));
        }
        Err(Error::malformed(
            "invalid_idempotency_key",
            format!(
                "`{KEY}` must have 1 to {LONGEST_KEY} printable ASCII characters; a random UUID is a good one"
            ),
        ))
    }
}

pub(super) fn reused() -> Error {
    Error::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        super::KEY_REUSED,
        "another request was sent with this idempotency key; a new request needs a new key",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_line_of_printable_ascii() {
        for good in ["a", "0191-uuid", "with blank", &"k".repeat(255)] {
            assert!(Key::parse(&HeaderValue::from_str(good).unwrap()).is_ok(), "{good}");
        }
        for bad in ["".to_owned(), "k".repeat(256), "a\tb".to_owned()] {
            let value = HeaderValue::from_str(&bad).unwrap();
            let error = Key::parse(&value).err().unwrap();
            assert_eq!((error.status().as_u16(), error.code()), (400, "invalid_idempotency_key"));
        }
        assert!(Key::parse(&HeaderValue::from_bytes("ключ".as_bytes()).unwrap()).is_err());
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let digester = Digester::new("k");
        let of = |parts: &[&str]| digester.of(parts.iter().map(|part| part.as_bytes()));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab"]), of(&["ab", ""]));
        assert_ne!(of(&["ab"]), Digester::new("other").of([b"ab".as_slice()]));
    }
}
