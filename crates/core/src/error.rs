//! The one error type. It has an outside (status, stable code, a text for the caller) and an
//! inside (the cause), which goes to the log once and never to a client. RFC 9457.

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::principal::Scope;

pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Arc<dyn StdError + Send + Sync>;

/// A failed request: what the client is told, and what the log is told.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    extra: Map<String, Value>,
    retry_after: Option<Duration>,
    lacking: Option<Lacking>,
    cause: Option<Cause>,
}

/// What a credential that was shown lacks, for `WWW-Authenticate` (RFC 6750, section 3.1).
#[derive(Clone, Copy)]
enum Lacking {
    Validity,
    Scope(Scope),
}

/// What is wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Where, as `messages[3].role`.
    pub path: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// An RFC 9457 problem document, `application/problem+json`.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// `urn:loom:problem:<code>`
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What is wrong, and what to do.
    pub detail: String,
    /// A stable word: `invalid_request`, `malformed_json`, `unauthenticated`, `forbidden`,
    /// `not_found`, `method_not_allowed`, `version_conflict`, `conflict`, `precondition_required`,
    /// `payload_too_large`, `unsupported_media_type`, `rate_limited`, `quota_exceeded`,
    /// `overloaded`, `upstream_error`, `upstream_timeout`, `feature_disabled`, `unavailable`,
    /// `timeout`, `internal`, or one that the operation names.
    pub code: String,
    pub request_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Map<String, Value>,
}

impl Error {
    /// Any status with its stable code and a text for the caller.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Inner {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            extra: Map::new(),
            retry_after: None,
            lacking: None,
            cause: None,
        }))
    }

    /// 400: not even well-formed.
    pub fn malformed(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 422: well-formed, but `path` does not hold what it should.
    pub fn invalid(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid_fields(vec![FieldError { path: path.into(), message: message.into() }])
    }

    /// 422 with every field that is wrong.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] if one.path.is_empty() => one.message.clone(),
            [one] => format!("{}: {}", one.path, one.message),
            many => format!("{} fields are not as they should be; see `errors`", many.len()),
        };
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", detail);
        error.0.errors = errors;
        error
    }

    /// 401.
    pub fn unauthenticated(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    /// 403: the credential is good, and not for this.
    pub fn insufficient_scope(scope: Scope) -> Self {
        let mut error = Self::forbidden(format!("this credential lacks the scope `{scope}`"));
        error.0.lacking = Some(Lacking::Scope(scope));
        error
    }

    /// 403.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: not there, or not visible to the caller. `what` as in "thread".
    pub fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("there is no such {what}, or you may not see it"),
        )
    }

    /// 409.
    pub fn conflict(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 413.
    pub fn too_large(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
    }

    /// 503 with `Retry-After`: a part is down or has no room just now.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            .retry_after(Duration::from_secs(1))
    }

    /// 429: a queue of ours is full; nothing was stored.
    pub fn overloaded(what: &str) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "overloaded",
            format!("{what} has no room just now; nothing was stored, try again"),
        )
        .retry_after(Duration::from_secs(1))
    }

    /// 500: a fault of ours. The client learns nothing but the request id.
    pub fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let cause: Box<dyn StdError + Send + Sync> = cause.into();
        let mut error = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong on our side; the log has it under this request id",
        );
        error.0.cause = Some(cause.into());
        error
    }

    /// Seconds in `Retry-After`, rounded up.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// The challenge says that the credential which was shown is no good; who showed none is not told so.
    #[must_use]
    pub fn invalid_token(mut self) -> Self {
        self.0.lacking = Some(Lacking::Validity);
        self
    }

    /// A further member of the problem document.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.extra.insert(name.to_owned(), value.into());
        self
    }

    /// The inside: logged, never shown.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let cause: Box<dyn StdError + Send + Sync> = cause.into();
        self.0.cause = Some(cause.into());
        self
    }

    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    pub fn code(&self) -> &'static str {
        self.0.code
    }

    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    pub fn retry_after_secs(&self) -> Option<u64> {
        self.0
            .retry_after
            .map(|after| after.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
    }

    /// The cause with all that is behind it, for the log.
    pub fn cause(&self) -> Option<String> {
        let mut next: Option<&dyn StdError> = Some(self.0.cause.as_deref()?);
        let mut text = String::new();
        while let Some(error) = next {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error.to_string());
            next = error.source();
        }
        Some(text)
    }

    /// The problem document for this request.
    pub fn problem(&self, request_id: &str) -> Problem {
        Problem {
            kind: format!("urn:loom:problem:{}", self.0.code),
            title: self.0.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.0.status.as_u16(),
            detail: self.0.detail.clone().into_owned(),
            code: self.0.code.to_owned(),
            request_id: request_id.to_owned(),
            errors: self.0.errors.clone(),
            extra: self.0.extra.clone(),
        }
    }

    /// `WWW-Authenticate`: of every 401, and of the 403 for want of a scope.
    fn challenge(&self) -> Option<HeaderValue> {
        let bearer = "Bearer realm=\"loom\"";
        match self.0.lacking {
            Some(Lacking::Validity) => {
                HeaderValue::try_from(format!("{bearer}, error=\"invalid_token\"")).ok()
            }
            Some(Lacking::Scope(scope)) => HeaderValue::try_from(format!(
                "{bearer}, error=\"insufficient_scope\", scope=\"{scope}\""
            ))
            .ok(),
            None if self.0.status == StatusCode::UNAUTHORIZED => {
                Some(HeaderValue::from_static(bearer))
            }
            None => None,
        }
    }

    /// The response, its problem document naming the request. The error itself rides along in the
    /// response's extensions, for the log and for surfaces that have an error shape of their own.
    pub fn respond(self, request_id: &str) -> Response {
        let body = serde_json::to_vec(&self.problem(request_id)).unwrap_or_default();
        let mut response = (self.0.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(secs) = self.retry_after_secs() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if let Some(challenge) = self.challenge() {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.respond("")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.status.as_u16(), self.0.code, self.0.detail)?;
        self.cause().map_or(Ok(()), |cause| write!(f, " ({cause})"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl StdError for Error {}

impl From<sqlx::Error> for Error {
    /// A database that cannot be reached or has no room is 503; everything else is our fault.
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => {
                Self::unavailable("the database is out of reach just now; try again").because(error)
            }
            // 53: out of resources; 57: shutting down, starting, statement timeout; 40: deadlock or
            // serialisation failure; 55P03: a lock was not to be had in time.
            sqlx::Error::Database(db)
                if db.code().is_some_and(|code| {
                    code == "55P03"
                        || ["40", "53", "57"].iter().any(|class| code.starts_with(class))
                }) =>
            {
                Self::unavailable("the database has no room just now; try again").because(error)
            }
            _ => Self::internal(error),
        }
    }
}

/// Turns a named database constraint into an error for the client, at the statement.
pub trait OnConstraint<T> {
    fn on_constraint(self, name: &str, error: impl FnOnce() -> Error) -> Result<T>;
}

impl<T> OnConstraint<T> for std::result::Result<T, sqlx::Error> {
    fn on_constraint(self, name: &str, error: impl FnOnce() -> Error) -> Result<T> {
        self.map_err(|e| match &e {
            sqlx::Error::Database(db) if db.constraint() == Some(name) => error(),
            _ => e.into(),
        })
    }
}
