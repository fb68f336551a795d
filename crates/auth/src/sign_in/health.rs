//! Can the providers be reached? Without them nobody new gets in, but who is in goes on working.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use loom_core::health::{Check, Component, Status};

use super::{PROVIDERS, Provider, SignIn};
use crate::Auth;

/// Others' servers are asked no more often.
const KEPT: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(4);

#[derive(Default)]
pub(crate) struct Cached(Mutex<Option<(Instant, Component)>>);

impl Cached {
    fn get(&self) -> Option<Component> {
        let kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.as_ref().filter(|(at, _)| at.elapsed() < KEPT).map(|(_, component)| component.clone())
    }

    fn put(&self, component: &Component) {
        let mut kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *kept = Some((Instant::now(), component.clone()));
    }
}

impl Auth {
    pub fn health(&self) -> Check {
        let auth = self.clone();
        Check {
            name: "auth_providers",
            critical: false,
            probe: Box::new(move || {
                let auth = auth.clone();
                Box::pin(async move { auth.sign_in.probe().await })
            }),
        }
    }
}

/// What one look at a sign-in provider brought.
#[derive(Debug)]
pub struct Reached {
    /// `github`, `google` or `oidc`.
    pub provider: &'static str,
    /// Where it is told to send people back to.
    pub redirect_uri: String,
    /// Why it cannot be used.
    pub answer: Result<(), String>,
}

impl Auth {
    /// Asks every configured provider now; what it is asked is what a sign-in begins with.
    pub async fn reach_providers(&self) -> Vec<Reached> {
        let looks = PROVIDERS.into_iter().filter_map(|provider| {
            let configured = self.sign_in.configured(provider)?;
            Some(async move {
                let redirect_uri = match &configured {
                    Provider::GitHub(github) => github.config.registration.redirect_uri.clone(),
                    Provider::Oidc(oidc) => oidc.config().registration.redirect_uri.clone(),
                };
                Reached { provider, redirect_uri, answer: ask(&configured).await }
            })
        });
        futures::future::join_all(looks).await
    }
}

async fn ask(provider: &Provider) -> Result<(), String> {
    let asked = async {
        match provider {
            Provider::GitHub(github) => github.probe().await,
            Provider::Oidc(oidc) => oidc.probe().await,
        }
    };
    let answer = tokio::time::timeout(LIMIT, asked).await;
    answer.unwrap_or_else(|_| Err("it does not answer in time".to_owned()))
}

impl SignIn {
    async fn probe(&self) -> Component {
        if let Some(component) = self.health.get() {
            return component;
        }
        let mut component = Component::new(Status::Disabled);
        let mut failed = Vec::new();
        for name in PROVIDERS {
            let Some(provider) = self.configured(name) else { continue };
            match ask(&provider).await {
                Ok(()) => component = component.with(name, "reachable"),
                Err(error) => {
                    tracing::warn!(provider = name, error, "a sign-in provider is out of reach");
                    component = component.with(name, "out of reach");
                    failed.push(name);
                }
            }
        }
        component.status = match (component.facts.is_empty(), failed.is_empty()) {
            (true, _) => Status::Disabled,
            (false, true) => Status::Healthy,
            (false, false) => Status::Degraded,
        };
        if !failed.is_empty() {
            component = component
                .error(format!(
                    "out of reach: {}; who is signed in is not affected",
                    failed.join(", ")
                ))
                .code(
                    "AUTH_PROVIDER_UNREACHABLE",
                    "Nobody new gets in this way. The log says what came of asking; `loom-server doctor` asks \
                     again. Check the provider's URL, and the way there.",
                );
        }
        self.health.put(&component);
        component
    }
}
