//! GitHub, which is no OpenID Connect: who it is, is asked of its API. A person is their numeric id;
//! logins are given to others when they fall free.

use loom_core::Result;
use reqwest::Url;
use serde::Deserialize;

use super::{
    config::GitHubConfig,
    identity::{Proven, known_email},
    oauth::{Bound, Http, bad_answer},
};

const SCOPES: &[&str] = &["read:user", "user:email"];

#[derive(Deserialize)]
struct User {
    id: u64,
    login: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Email {
    email: String,
    primary: bool,
    verified: bool,
}

/// GitHub, or a GitHub Enterprise server.
pub(crate) struct GitHub {
    pub(crate) config: GitHubConfig,
    pub(crate) http: Http,
}

impl GitHub {
    fn auth_url(&self) -> String {
        format!("{}/login/oauth/authorize", self.config.base_url)
    }

    fn token_url(&self) -> String {
        format!("{}/login/oauth/access_token", self.config.base_url)
    }

    pub(crate) fn authorise_url(&self, bound: &Bound) -> Result<Url> {
        let registration = &self.config.registration;
        registration.authorise_url(&self.auth_url(), &self.token_url(), bound, SCOPES, &[])
    }

    /// RFC 9207: GitHub need not name itself in its answer, but nobody else may.
    pub(crate) fn may_be_issuer(&self, issuer: &str) -> bool {
        let origin = |text: &str| text.parse::<Url>().map(|url| url.origin()).ok();
        origin(issuer).is_some_and(|named| Some(named) == origin(&self.config.base_url))
    }

    /// Does it answer?
    pub(crate) async fn probe(&self) -> Result<(), String> {
        self.http.probe(&self.config.base_url).await
    }

    pub(crate) async fn prove(&self, code: &str, bound: &Bound) -> Result<Proven> {
        let tokens = self
            .config
            .registration
            .trade(&self.http, &self.auth_url(), &self.token_url(), code, bound)
            .await?;
        let user: User =
            self.http.get_json(&format!("{}/user", self.config.api_url), &tokens.access).await?;
        if user.id == 0 {
            return Err(bad_answer("GitHub named no user"));
        }
        let emails: Vec<Email> = self
            .http
            .get_json(&format!("{}/user/emails?per_page=100", self.config.api_url), &tokens.access)
            .await?;
        let email = emails
            .iter()
            .find(|email| email.primary && email.verified)
            .and_then(|email| known_email(&email.email))
            // Nobody receives mail there.
            .filter(|email| !email.ends_with("@users.noreply.github.com"));
        Ok(Proven {
            provider: "github",
            issuer: self.config.base_url.clone(),
            subject: user.id.to_string(),
            email,
            login: Some(user.login),
            name: user.name,
        })
    }
}
