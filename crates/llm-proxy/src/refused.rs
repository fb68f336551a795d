//! What the client is told when nobody replied: the provider's own words where they are in the client's
//! form, else the same in that form.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header, response::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use loom_core::Error;

use crate::{
    attempt::{Begun, What},
    dialect::Operation,
    exchange::upstream_id,
    forward::response_headers,
    frames::{Surface, Told},
    ledger::Outcome,
    live::Account,
    native,
    provider::Provider,
    translate::{
        reply::{Event, Failure},
        stream::Decoder,
    },
    translated::{said, with_id},
};

/// The end of a request that came to nothing.
pub(crate) struct Refused {
    pub(crate) what: What,
    pub(crate) provider: Arc<Provider>,
    /// Its words are the client's.
    pub(crate) passed: bool,
    pub(crate) surface: Surface,
    /// As the client calls it.
    pub(crate) model: String,
    pub(crate) request_id: Arc<str>,
    pub(crate) now: DateTime<Utc>,
    pub(crate) account: Account,
}

impl Refused {
    pub(crate) fn into_response(mut self) -> Response {
        match std::mem::replace(&mut self.what, What::Error(Error::unavailable(""))) {
            What::Error(error) => self.fails_with(error),
            What::Stream(begun) => {
                let failure = failure(&begun);
                let error = Error::new(failure.status(), failure.code, failure.message);
                self.fails_with(error)
            }
            What::Answer(parts, told) => match self.surface {
                Surface::Native => {
                    let error = self.natively(&parts, &told);
                    self.fails_with(error)
                }
                Surface::Wire(_) if self.passed => self.unchanged(&parts, told),
                Surface::Wire(surface) => self.in_other_words(surface, &parts, &told),
            },
        }
    }

    /// The same where the response has begun.
    pub(crate) fn into_frame(mut self) -> Bytes {
        let what = std::mem::replace(&mut self.what, What::Error(Error::unavailable("")));
        let error = match what {
            What::Error(error) => error,
            What::Stream(begun) => {
                let failure = failure(&begun);
                Error::new(failure.status(), failure.code, failure.message)
            }
            What::Answer(parts, told) if self.surface == Surface::Native => {
                self.natively(&parts, &told)
            }
            What::Answer(parts, told) => {
                let (message, code) = told_by(&self.provider, &parts, &told);
                self.account.answered(parts.status, upstream_id(&parts.headers));
                let frame = self.surface.failure(
                    &Told {
                        status: shown(parts.status),
                        code: &code,
                        message: &message,
                        retry_after_secs: None,
                    },
                    &self.request_id,
                );
                self.account.passed(frame.len());
                self.account.settle(Outcome::Failed, Some("upstream_error"));
                return frame;
            }
        };
        let frame = self.surface.failure(
            &Told {
                status: error.status(),
                code: error.code(),
                message: error.detail(),
                retry_after_secs: error.retry_after_secs(),
            },
            &self.request_id,
        );
        self.account.fail(&error);
        frame
    }

    fn fails_with(mut self, error: Error) -> Response {
        let mut told = http::HeaderMap::new();
        self.account.tell(&mut told);
        self.account.fail(&error);
        let mut response = error.into_response();
        response.headers_mut().extend(told);
        response
    }

    fn natively(&self, parts: &Parts, told: &[u8]) -> Error {
        native::problem(
            &self.provider.name,
            &self.model,
            parts.status,
            &parts.headers,
            told,
            self.now,
        )
    }

    /// The provider's status, headers and bytes.
    fn unchanged(mut self, parts: &Parts, told: Bytes) -> Response {
        self.account.answered(parts.status, upstream_id(&parts.headers));
        let mut headers = response_headers(&parts.headers);
        self.account.tell(&mut headers);
        self.account.passed(told.len());
        self.account.settle(Outcome::Failed, Some("upstream_error"));
        let mut response = Response::new(Body::from(told));
        *response.status_mut() = parts.status;
        *response.headers_mut() = headers;
        response
    }

    /// A provider's refusal in the client's form, with its status and what it says of trying again.
    fn in_other_words(mut self, surface: Operation, parts: &Parts, told: &[u8]) -> Response {
        let (message, code) = told_by(&self.provider, parts, told);
        let status = parts.status;
        let body = surface.dialect().error_body(status, &code, &message, &self.request_id);
        let body = body.to_string();
        self.account.answered(status, upstream_id(&parts.headers));
        self.account.passed(body.len());
        let mut response = Response::new(Body::from(body));
        let headers = response.headers_mut();
        self.account.tell(headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for name in ["retry-after", "retry-after-ms", "x-should-retry"] {
            if let Some(value) = parts.headers.get(name) {
                headers.insert(name, value.clone());
            }
        }
        with_id(surface, upstream_id(&parts.headers), headers);
        self.account.settle(Outcome::Failed, Some("upstream_error"));
        *response.status_mut() = shown(status);
        response
    }
}

/// Anything but an error would be taken for a reply.
fn shown(status: StatusCode) -> StatusCode {
    let is_error = status.is_client_error() || status.is_server_error();
    if is_error { status } else { StatusCode::BAD_GATEWAY }
}

/// What a provider says of its refusal, and the word for it.
fn told_by(provider: &Provider, parts: &Parts, told: &[u8]) -> (String, String) {
    let (message, code) = said(told);
    let status = parts.status;
    let message = message.filter(|message| !message.is_empty()).unwrap_or_else(|| {
        format!("the provider `{}` answered with {}", provider.name, status.as_u16())
    });
    // Each wire has words of its own.
    let code = match code.as_deref() {
        Some("rate_limit_error" | "RESOURCE_EXHAUSTED") => "rate_limit_exceeded",
        Some("not_found_error" | "NOT_FOUND") if status == StatusCode::NOT_FOUND => {
            "model_not_found"
        }
        Some("overloaded_error" | "UNAVAILABLE") => "overloaded",
        Some("INVALID_ARGUMENT" | "FAILED_PRECONDITION") => "invalid_request",
        Some(code) => code,
        None => "upstream_error",
    };
    (message, code.to_owned())
}

/// What a stream tells that has an error and nothing else.
fn failure(begun: &Begun) -> Failure {
    let mut decoder = Decoder::new(begun.operation);
    let events = begun.held.iter().flat_map(|data| decoder.feed(data)).collect::<Vec<_>>();
    let failed = events.into_iter().find_map(|event| match event {
        Event::Failed(failure) => Some(failure),
        _ => None,
    });
    failed.unwrap_or_else(Failure::incomplete)
}
