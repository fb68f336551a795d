//! OpenID Connect: Google, and any other issuer. Endpoints and keys come by discovery; keys are kept,
//! and fetched again when a token names one that is not among them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use loom_common_secret::SecretString;
use loom_core::{Clock, Error, Result};
use openidconnect::{
    AdditionalClaims, ClaimsVerificationError, ClientId, IdToken, IdTokenVerifier, IssuerUrl,
    JsonWebKeySet, Nonce, SignatureVerificationError,
    core::{
        CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm, CoreProviderMetadata,
    },
};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{
    config::OidcConfig,
    identity::{Proven, known_email},
    oauth::{Bound, Http, bad_answer, provider_error},
};

const SCOPES: &[&str] = &["openid", "email", "profile"];
/// How long what was discovered is believed.
const BELIEVED: Duration = Duration::from_secs(3600);
/// Tokens with made-up keys do not make us ask more often than this.
const REFETCH: Duration = Duration::from_secs(10);

/// Signatures by key pairs only: with a shared secret (HS256) whoever knows the public key or our
/// client secret could sign, and `none` is signed by nobody.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 8] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Google's word on which organisation a person belongs to.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Hosted {
    #[serde(default)]
    hd: Option<String>,
}

impl AdditionalClaims for Hosted {}

type Token =
    IdToken<Hosted, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;

/// One issuer.
pub(crate) struct Oidc {
    config: OidcConfig,
    http: Http,
    clock: Clock,
    discovered: Mutex<Option<Discovered>>,
}

#[derive(Clone)]
struct Discovered {
    metadata: Arc<CoreProviderMetadata>,
    keys: Arc<JsonWebKeySet<CoreJsonWebKey>>,
    at: Instant,
    keys_at: Instant,
}

/// What the userinfo endpoint says when the ID token is silent.
#[derive(Deserialize)]
struct UserInfo {
    sub: String,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    email_verified: Option<bool>,
    #[serde(default)]
    name: Option<String>,
}

impl Oidc {
    pub(crate) fn new(config: OidcConfig, http: Http, clock: Clock) -> Self {
        Self { config, http, clock, discovered: Mutex::new(None) }
    }

    pub(crate) fn config(&self) -> &OidcConfig {
        &self.config
    }

    pub(crate) async fn authorise_url(&self, bound: &Bound) -> Result<Url> {
        let found = self.discover().await?;
        let mut extra = vec![("nonce", bound.nonce.as_str())];
        if self.config.provider == "google" {
            // People with several accounts choose, instead of being sent in with the wrong one.
            extra.push(("prompt", "select_account"));
            if let [domain] = self.config.hosted_domains.as_slice() {
                extra.push(("hd", domain));
            }
        }
        self.config.registration.authorise_url(
            found.metadata.authorization_endpoint().as_str(),
            token_url(&found)?,
            bound,
            SCOPES,
            &extra,
        )
    }

    /// RFC 9207.
    pub(crate) fn may_be_issuer(&self, issuer: &str) -> bool {
        issuer == self.config.issuer
    }

    /// Who has signed in, by the ID token.
    pub(crate) async fn prove(&self, code: &str, bound: &Bound) -> Result<Proven> {
        let found = self.discover().await?;
        let auth_url = found.metadata.authorization_endpoint().as_str();
        let tokens = self
            .config
            .registration
            .trade(&self.http, auth_url, token_url(&found)?, code, bound)
            .await?;
        let id_token = tokens.id.ok_or_else(|| bad_answer("there is no ID token"))?;
        let token: Token = id_token.parse().map_err(bad_answer)?;
        let nonce = Nonce::new(bound.nonce.clone());
        let claims = match token.claims(&self.verifier(&found), &nonce) {
            Err(error) if names_unknown_key(&error) => {
                let found = self.newer_keys(&found).await?;
                token.claims(&self.verifier(&found), &nonce)
            }
            result => result,
        }
        .map_err(bad_answer)?;
        self.require_hosted_domain(claims.additional_claims().hd.as_deref())?;
        let subject = claims.subject().as_str().to_owned();
        let name =
            claims.name().and_then(|name| name.get(None)).map(|name| name.as_str().to_owned());
        let in_token = claims.email().map(|email| email.as_str().to_owned());
        let (email, verified, name) = match (in_token, claims.email_verified()) {
            (Some(email), verified) => (Some(email), verified, name),
            (None, _) => {
                let said = self.user_info(&found, &subject, &tokens.access).await?;
                said.map_or((None, None, name.clone()), |said| {
                    (said.email, said.email_verified, said.name.or(name))
                })
            }
        };
        let email = email.filter(|_| verified == Some(true)).and_then(|email| known_email(&email));
        Ok(Proven {
            provider: self.config.provider,
            issuer: self.config.issuer.clone(),
            subject,
            login: email.clone(),
            email,
            name,
        })
    }

    fn verifier(&self, found: &Discovered) -> IdTokenVerifier<'_, CoreJsonWebKey> {
        let clock = self.clock.clone();
        IdTokenVerifier::new_public_client(
            ClientId::new(self.config.registration.client_id.clone()),
            found.metadata.issuer().clone(),
            (*found.keys).clone(),
        )
        .set_allowed_algs(ALGORITHMS)
        .set_time_fn(move || clock.now())
    }

    fn require_hosted_domain(&self, hosted: Option<&str>) -> Result<()> {
        let allowed = &self.config.hosted_domains;
        let named = hosted.is_some_and(|hd| allowed.iter().any(|d| d.eq_ignore_ascii_case(hd)));
        if allowed.is_empty() || named {
            return Ok(());
        }
        Err(Error::new(
            http::StatusCode::FORBIDDEN,
            "wrong_domain",
            "this account does not belong to an organisation that may sign in here",
        ))
    }

    async fn user_info(
        &self,
        found: &Discovered,
        subject: &str,
        token: &SecretString,
    ) -> Result<Option<UserInfo>> {
        let Some(url) = found.metadata.userinfo_endpoint() else { return Ok(None) };
        let said: UserInfo = self.http.get_json(url.as_str(), token).await?;
        if said.sub != subject {
            return Err(bad_answer("userinfo speaks of somebody else"));
        }
        Ok(Some(said))
    }

    /// Metadata and keys; one caller asks and the others wait for it.
    async fn discover(&self) -> Result<Discovered> {
        let mut discovered = self.discovered.lock().await;
        if let Some(found) = discovered.as_ref().filter(|found| found.at.elapsed() < BELIEVED) {
            return Ok(found.clone());
        }
        let issuer = IssuerUrl::new(self.config.issuer.clone()).map_err(provider_error)?;
        let http = self.http.clone();
        let send = move |request| http.clone().send(request);
        let metadata =
            CoreProviderMetadata::discover_async(issuer, &send).await.map_err(provider_error)?;
        let now = Instant::now();
        let found = Discovered {
            keys: Arc::new(metadata.jwks().clone()),
            metadata: Arc::new(metadata),
            at: now,
            keys_at: now,
        };
        *discovered = Some(found.clone());
        Ok(found)
    }

    /// The keys of this moment, unless they were fetched a moment ago.
    async fn newer_keys(&self, seen: &Discovered) -> Result<Discovered> {
        let mut discovered = self.discovered.lock().await;
        let mut found = discovered.clone().unwrap_or_else(|| seen.clone());
        // Those of discovery may be old already: the first unknown key always leads to a look.
        let fresh = found.keys_at.elapsed() < REFETCH && found.keys_at != found.at;
        if !fresh {
            let http = self.http.clone();
            let send = move |request| http.clone().send(request);
            let keys = JsonWebKeySet::fetch_async(found.metadata.jwks_uri(), &send)
                .await
                .map_err(provider_error)?;
            found.keys = Arc::new(keys);
            found.keys_at = Instant::now();
            *discovered = Some(found.clone());
        }
        Ok(found)
    }

    /// Can endpoints and keys be had now? Asks the issuer anew.
    pub(crate) async fn probe(&self) -> Result<(), String> {
        let issuer =
            IssuerUrl::new(self.config.issuer.clone()).map_err(|error| error.to_string())?;
        let http = self.http.clone();
        let send = move |request| http.clone().send(request);
        CoreProviderMetadata::discover_async(issuer, &send).await.map_err(|error| {
            provider_error(error).cause().unwrap_or_else(|| "discovery failed".to_owned())
        })?;
        Ok(())
    }
}

fn token_url(found: &Discovered) -> Result<&str> {
    let url = found.metadata.token_endpoint();
    url.map(|url| url.as_str()).ok_or_else(|| provider_error("it names no token endpoint"))
}

fn names_unknown_key(error: &ClaimsVerificationError) -> bool {
    use SignatureVerificationError::{CryptoError, NoMatchingKey};
    // A provider that names no key ids changes the key under the same (absent) name.
    matches!(error, ClaimsVerificationError::SignatureVerification(NoMatchingKey | CryptoError(_)))
}
