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

impl SignIn {
    async fn probe(&self) -> Component {
        if let Some(component) = self.health.get() {
            return component;
        }
        let mut component = Component::new(Status::Disabled);
        let mut failed = Vec::new();
        for name in PROVIDERS {
            let Some(provider) = self.configured(name) else { continue };
            let asked = async {
                match &provider {
                    Provider::GitHub(github) => github.probe().await,
                    Provider::Oidc(oidc) => oidc.probe().await,
                }
            };
            let answer = tokio::time::timeout(LIMIT, asked).await;
            match answer.unwrap_or_else(|_| Err("it does not answer in time".to_owned())) {
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
            component = component.error(format!(
                "out of reach: {}; who is signed in is not affected",
                failed.join(", ")
            ));
        }
        self.health.put(&component);
        component
    }
}
