//! Who is asking. Authentication (the crate `auth`) puts an [`Authentication`] into each request;
//! handlers take a [`Principal`].

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use axum::{
    extract::{FromRequestParts, Request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::request::Parts;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Error,
    id::{ApiKeyId, OrgId, SessionId, UserId, WeaverId},
};

/// Somebody or something that was authenticated, acting in one organisation.
#[derive(Clone, Debug)]
pub struct Principal {
    pub actor: Actor,
    pub via: Via,
    /// The organisation that this request acts in.
    pub org: OrgId,
    pub role: OrgRole,
    pub scopes: Scopes,
    pub system_admin: bool,
    pub auditor: bool,
    /// For logs and the audit: an e-mail address or a key's name.
    pub name: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    User(UserId),
    /// A key of the organisation itself.
    Service(ApiKeyId),
    Weaver(WeaverId),
}

/// By which credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    ApiKey(ApiKeyId),
    /// Somebody who signed in: by the cookie of a browser, or the token of a command-line client.
    Session(SessionId),
    /// The token that a weaver was given.
    WeaverToken(WeaverId),
    DevMode,
}

impl Via {
    /// As the audit log writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey(_) => "api_key",
            Self::Session(_) => "session",
            Self::WeaverToken(_) => "weaver_token",
            Self::DevMode => "dev_mode",
        }
    }

    /// The id of the credential; it is no secret.
    pub fn credential_id(self) -> Option<Uuid> {
        match self {
            Self::ApiKey(id) => Some(id.0),
            Self::Session(id) => Some(id.0),
            Self::WeaverToken(id) => Some(id.0),
            Self::DevMode => None,
        }
    }
}

/// A member's role in an organisation; each includes the ones before.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    sqlx::Type,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum OrgRole {
    Member,
    Admin,
    Owner,
}

impl Principal {
    /// By whose name streams, and what else one may have only so many of, are counted together.
    pub fn holder(&self) -> String {
        match self.actor {
            Actor::User(id) => format!("user:{id}"),
            Actor::Service(id) => format!("service:{id}"),
            Actor::Weaver(id) => format!("weaver:{id}"),
        }
    }

    pub fn user_id(&self) -> Option<UserId> {
        match self.actor {
            Actor::User(id) => Some(id),
            Actor::Service(_) | Actor::Weaver(_) => None,
        }
    }

    pub fn api_key_id(&self) -> Option<ApiKeyId> {
        match self.via {
            Via::ApiKey(id) => Some(id),
            Via::Session(_) | Via::WeaverToken(_) | Via::DevMode => None,
        }
    }
}

macro_rules! scopes {
    ($($variant:ident = $text:literal),+ $(,)?) => {
        /// What a credential may be used for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Scope { $(#[serde(rename = $text)] $variant),+ }

        impl Scope {
            pub const ALL: &[Self] = &[$(Self::$variant),+];
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

scopes! {
    LlmUse = "llm:use",
    ThreadsRead = "threads:read",
    ThreadsWrite = "threads:write",
    WeaversRead = "weavers:read",
    WeaversWrite = "weavers:write",
    ReposRead = "repos:read",
    ReposWrite = "repos:write",
    CrashesRead = "crashes:read",
    CrashesWrite = "crashes:write",
    CronsRead = "crons:read",
    CronsWrite = "crons:write",
    SessionsRead = "sessions:read",
    SessionsWrite = "sessions:write",
    AdminRead = "admin:read",
    AdminWrite = "admin:write",
}

/// Written out: the derive does not see the names that the macro gives.
impl utoipa::PartialSchema for Scope {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("What a credential may be used for."))
            .enum_values(Some(Self::ALL.iter().map(|scope| scope.as_str())))
            .into()
    }
}

impl utoipa::ToSchema for Scope {}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|scope| scope.as_str() == text).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|scope| scope.as_str()).collect();
            format!("`{text}` is not a scope; there are {}", all.join(", "))
        })
    }
}

/// A set of scopes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u32);

impl Scopes {
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    pub fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u32) != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().copied().filter(move |scope| self.contains(*scope))
    }

    pub fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | 1 << scope as u32))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Scope::as_str)).finish()
    }
}

/// What became of a request's credentials. Always present behind the server's middleware.
#[derive(Clone)]
pub enum Authentication {
    Anonymous,
    Known(Principal),
    /// A credential was shown and is not good; asking for a [`Principal`] gives this error.
    Refused(Error),
}

impl Authentication {
    /// Whether what was let in may go on: `may` decides of who it is now. True also when nobody could be asked:
    /// an outage is no reason to go blind, and while it lasts nothing is revoked.
    pub fn still(self, may: impl FnOnce(Principal) -> bool) -> bool {
        match self {
            Self::Known(now) => may(now),
            Self::Refused(error) => error.status().is_server_error(),
            Self::Anonymous => false,
        }
    }

    fn principal(&self) -> Result<&Principal, Error> {
        match self {
            Self::Known(principal) => Ok(principal),
            Self::Refused(error) => Err(error.clone()),
            Self::Anonymous => Err(Error::unauthenticated(
                // No key is named as an example: it would be masked in the log, and counted.
                "send an API key as `Authorization: Bearer <key>` or `x-api-key: <key>`; \
                 `loom-server admin create <email>` makes the first one",
            )),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        parts
            .extensions
            .get::<Authentication>()
            .unwrap_or(&Authentication::Anonymous)
            .principal()
            .cloned()
    }
}

/// The principal of a request.
///
/// # Errors
/// 401.
pub fn of(request: &Request) -> Result<&Principal, Error> {
    request.extensions().get::<Authentication>().unwrap_or(&Authentication::Anonymous).principal()
}

/// A layer for a feature's routes: nobody gets in without a [`Principal`], whatever the handler asks.
pub async fn required(request: Request, next: Next) -> Response {
    match of(&request) {
        Ok(_) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Where a request comes from, as far as it can be trusted, and its id. In every request.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    pub id: Arc<str>,
    /// The client's address: the peer's, or what a trusted proxy says of where it had the request from.
    pub ip: IpAddr,
}

impl<S: Sync> FromRequestParts<S> for RequestInfo {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Error::internal("no RequestInfo layer"))
    }
}
