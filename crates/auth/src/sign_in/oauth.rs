//! The part of OAuth 2.0 that all providers share: where to send the browser, and trading its code
//! for tokens. Every request to a provider has a time limit, a size limit, and follows no redirect.

use std::{fmt, time::Duration};

use loom_common_secret::SecretString;
use loom_core::{Error, Result};
use oauth2::{
    AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet,
    HttpRequest, HttpResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
    StandardRevocableToken, StandardTokenResponse, TokenResponse, TokenUrl,
    basic::{
        BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse,
        BasicTokenType,
    },
};
use reqwest::{Client, Url, redirect::Policy};
use serde::{Deserialize, Serialize};

const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// No answer of a provider is near it.
const MAX_ANSWER: usize = 1 << 20;

/// Asks providers.
#[derive(Clone)]
pub(crate) struct Http(Client);

/// Why a provider gave no answer.
#[derive(Debug)]
pub(crate) enum HttpFailure {
    Request(reqwest::Error),
    TooLarge,
    Shape(http::Error),
}

impl fmt::Display for HttpFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The URL of a token request is no secret, but a query might be.
            Self::Request(_) => f.write_str("the request failed"),
            Self::TooLarge => write!(f, "the answer is larger than {MAX_ANSWER} bytes"),
            Self::Shape(_) => f.write_str("the answer cannot be read"),
        }
    }
}

impl std::error::Error for HttpFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Request(error) => Some(error),
            Self::Shape(error) => Some(error),
            Self::TooLarge => None,
        }
    }
}

impl Http {
    pub(crate) fn new() -> Result<Self> {
        Client::builder()
            .redirect(Policy::none())
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("loom-server/", env!("CARGO_PKG_VERSION")))
            .build()
            .map(Self)
            .map_err(Error::internal)
    }

    /// The form in which the OAuth libraries want a client.
    pub(crate) async fn send(self, request: HttpRequest) -> Result<HttpResponse, HttpFailure> {
        let (parts, body) = request.into_parts();
        let mut answer = self
            .0
            .request(parts.method, parts.uri.to_string())
            .headers(parts.headers)
            .body(body)
            .send()
            .await
            .map_err(|error| HttpFailure::Request(error.without_url()))?;
        let mut whole = Vec::new();
        while let Some(chunk) =
            answer.chunk().await.map_err(|error| HttpFailure::Request(error.without_url()))?
        {
            if whole.len() + chunk.len() > MAX_ANSWER {
                return Err(HttpFailure::TooLarge);
            }
            whole.extend_from_slice(&chunk);
        }
        let mut response = http::Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            *headers = std::mem::take(answer.headers_mut());
        }
        response.body(whole).map_err(HttpFailure::Shape)
    }

    /// A GET with a bearer token that answers JSON.
    pub(crate) async fn get_json<T: serde::de::DeserializeOwned>(
        &self,
        url: &str,
        token: &SecretString,
    ) -> Result<T> {
        let request = http::Request::get(url)
            .header("accept", "application/json")
            .header("authorization", format!("Bearer {}", token.expose()))
            .body(Vec::new())
            .map_err(Error::internal)?;
        let response = self.clone().send(request).await.map_err(provider_error)?;
        if !response.status().is_success() {
            return Err(provider_error(format!("{} answered by {url}", response.status())));
        }
        serde_json::from_slice(response.body()).map_err(provider_error)
    }

    /// Does anything answer there?
    pub(crate) async fn probe(&self, url: &str) -> Result<(), String> {
        let answer = self.0.get(url).send().await.map_err(|error| {
            let error = error.without_url();
            std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
        })?;
        match answer.status() {
            status if status.is_server_error() => Err(format!("it answered {status}")),
            _ => Ok(()),
        }
    }
}

/// 502: the provider did not do its part.
pub(crate) fn provider_error(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(
        http::StatusCode::BAD_GATEWAY,
        "upstream_error",
        "the sign-in provider could not be asked, or gave an answer that cannot be trusted; try again",
    )
    .because(cause)
}

/// 400: what came back from the provider is not what it says about a sign-in begun here.
pub(crate) fn bad_answer(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::malformed(
        "sign_in_failed",
        "what the sign-in provider said does not fit the sign-in that was begun here; start again",
    )
    .because(cause)
}

/// Our registration with a provider.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) client_id: String,
    pub(crate) client_secret: SecretString,
    pub(crate) redirect_uri: String,
}

/// A token answer that may hold an ID token.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct IdTokenField {
    #[serde(default)]
    id_token: Option<String>,
}

impl oauth2::ExtraTokenFields for IdTokenField {}

type OAuthClient = oauth2::Client<
    BasicErrorResponse,
    StandardTokenResponse<IdTokenField, BasicTokenType>,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// What the code was traded for.
pub(crate) struct Tokens {
    pub(crate) access: SecretString,
    pub(crate) id: Option<String>,
}

/// What binds one sign-in together; see [`super::flow`].
pub(crate) struct Bound {
    pub(crate) state: String,
    pub(crate) nonce: String,
    pub(crate) verifier: String,
}

impl Registration {
    fn client(&self, auth_url: &str, token_url: &str) -> Result<OAuthClient> {
        let unusable = |error: oauth2::url::ParseError| provider_error(error);
        Ok(oauth2::Client::new(ClientId::new(self.client_id.clone()))
            .set_client_secret(ClientSecret::new(self.client_secret.expose().to_owned()))
            .set_auth_uri(AuthUrl::new(auth_url.to_owned()).map_err(unusable)?)
            .set_token_uri(TokenUrl::new(token_url.to_owned()).map_err(unusable)?)
            .set_redirect_uri(RedirectUrl::new(self.redirect_uri.clone()).map_err(unusable)?))
    }

    /// Where the browser is sent.
    pub(crate) fn authorise_url(
        &self,
        auth_url: &str,
        token_url: &str,
        bound: &Bound,
        scopes: &[&str],
        extra: &[(&str, &str)],
    ) -> Result<Url> {
        let client = self.client(auth_url, token_url)?;
        let verifier = PkceCodeVerifier::new(bound.verifier.clone());
        let mut request = client
            .authorize_url(|| CsrfToken::new(bound.state.clone()))
            .add_scopes(scopes.iter().map(|scope| Scope::new((*scope).to_owned())))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
        for (name, value) in extra {
            request = request.add_extra_param(*name, *value);
        }
        Ok(request.url().0)
    }

    /// Trades a code, with the redirect URI and the PKCE verifier that it was asked with.
    pub(crate) async fn trade(
        &self,
        http: &Http,
        auth_url: &str,
        token_url: &str,
        code: &str,
        bound: &Bound,
    ) -> Result<Tokens> {
        let client = self.client(auth_url, token_url)?;
        let http = http.clone();
        let send = move |request| http.clone().send(request);
        let answer = client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(bound.verifier.clone()))
            .request_async(&send)
            .await
            .map_err(|error| match error {
                // What it refuses is the code or us; neither gets better by trying the same again.
                oauth2::RequestTokenError::ServerResponse(said) => {
                    bad_answer(format!("the code was refused: {}", said.error()))
                }
                oauth2::RequestTokenError::Request(failure) => provider_error(failure),
                // GitHub refuses with a 200. The body is not told: it may hold a token.
                oauth2::RequestTokenError::Parse(_, _) => {
                    bad_answer("the answer to the code is no token")
                }
                oauth2::RequestTokenError::Other(what) => provider_error(what),
            })?;
        Ok(Tokens {
            access: SecretString::from(answer.access_token().secret().as_str()),
            id: answer.extra_fields().id_token.clone(),
        })
    }
}
