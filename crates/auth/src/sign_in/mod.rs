//! The ways in: providers (OAuth 2.0 and OpenID Connect), magic links, devices, the set-up link.

pub(crate) mod body;
pub(crate) mod browser;
pub(crate) mod code;
mod config;
pub(crate) mod device;
pub(crate) mod enter;
mod flow;
mod github;
mod health;
mod http;
pub(crate) mod identity;
mod jobs;
pub(crate) mod magic_link;
mod oauth;
mod oidc;
pub(crate) mod setup;
pub(crate) mod store;

use std::sync::Arc;

use loom_core::{Clock, Error, Result};
use reqwest::Url;

pub use config::SignInConfig;
use github::GitHub;
pub use health::Reached;
pub(crate) use http::routes;
use identity::Proven;
use oauth::{Bound, Http};
use oidc::Oidc;

/// What signing in needs.
pub(crate) struct SignIn {
    pub(crate) config: SignInConfig,
    github: Option<Arc<GitHub>>,
    google: Option<Arc<Oidc>>,
    oidc: Option<Arc<Oidc>>,
    health: health::Cached,
}

/// A provider that is configured.
#[derive(Clone)]
pub(crate) enum Provider {
    GitHub(Arc<GitHub>),
    Oidc(Arc<Oidc>),
}

pub(crate) const PROVIDERS: [&str; 3] = ["github", "google", "oidc"];

impl SignIn {
    pub(crate) fn new(mut config: SignInConfig, base_url: &str, clock: &Clock) -> Result<Self> {
        let registrations = [
            ("github", config.github.as_mut().map(|github| &mut github.registration)),
            ("google", config.google.as_mut().map(|google| &mut google.registration)),
            ("oidc", config.oidc.as_mut().map(|oidc| &mut oidc.registration)),
        ];
        for (provider, registration) in registrations {
            if let Some(registration) = registration.filter(|known| known.redirect_uri.is_empty()) {
                registration.redirect_uri = format!("{base_url}/auth/{provider}/callback");
            }
        }
        let oidc = |config: &Option<config::OidcConfig>| {
            let Some(config) = config.clone() else { return Ok(None) };
            Ok::<_, Error>(Some(Arc::new(Oidc::new(config, Http::new()?, clock.clone()))))
        };
        let github = match config.github.clone() {
            Some(config) => Some(Arc::new(GitHub { config, http: Http::new()? })),
            None => None,
        };
        Ok(Self {
            github,
            google: oidc(&config.google)?,
            oidc: oidc(&config.oidc)?,
            health: health::Cached::default(),
            config,
        })
    }

    /// 404 for a provider that there is not, 501 for one that is not configured.
    pub(crate) fn provider(&self, name: &str) -> Result<Provider> {
        let known = PROVIDERS.iter().find(|known| **known == name);
        let name = known.ok_or_else(|| Error::not_found("sign-in provider"))?;
        self.configured(name).ok_or_else(|| {
            let upper = name.to_uppercase();
            let issuer = if *name == "oidc" { "LOOM_SERVER_OIDC_ISSUER_URL, " } else { "" };
            Error::new(
                ::http::StatusCode::NOT_IMPLEMENTED,
                "provider_not_configured",
                format!(
                    "signing in with {name} is not configured here; an operator sets {issuer}LOOM_SERVER_{upper}_CLIENT_ID and LOOM_SERVER_{upper}_CLIENT_SECRET"
                ),
            )
        })
    }

    fn configured(&self, name: &str) -> Option<Provider> {
        match name {
            "github" => self.github.clone().map(Provider::GitHub),
            "google" => self.google.clone().map(Provider::Oidc),
            _ => self.oidc.clone().map(Provider::Oidc),
        }
    }

    /// Those that are configured, with the names that people know them by.
    pub(crate) fn offered(&self) -> Vec<(&'static str, String)> {
        PROVIDERS
            .into_iter()
            .filter_map(|name| Some((name, self.configured(name)?.label().to_owned())))
            .collect()
    }
}

impl Provider {
    fn label(&self) -> &str {
        match self {
            Self::GitHub(_) => "GitHub",
            Self::Oidc(oidc) => &oidc.config().name,
        }
    }

    async fn authorise_url(&self, bound: &Bound) -> Result<Url> {
        match self {
            Self::GitHub(github) => github.authorise_url(bound),
            Self::Oidc(oidc) => oidc.authorise_url(bound).await,
        }
    }

    fn may_be_issuer(&self, issuer: &str) -> bool {
        match self {
            Self::GitHub(github) => github.may_be_issuer(issuer),
            Self::Oidc(oidc) => oidc.may_be_issuer(issuer),
        }
    }

    async fn prove(&self, code: &str, bound: &Bound) -> Result<Proven> {
        match self {
            Self::GitHub(github) => github.prove(code, bound).await,
            Self::Oidc(oidc) => oidc.prove(code, bound).await,
        }
    }
}
