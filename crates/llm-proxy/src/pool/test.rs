//! Asking a provider whether a credential is good, by a real call.

use std::{sync::Arc, time::Instant};

use axum::http::{self, HeaderMap};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::Member;
use crate::{LlmProxy, forward::read_to, provider::Provider};

/// What a test call brought.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Tested {
    pub provider: String,
    pub name: String,
    pub ok: bool,
    /// What the provider said, or why it could not be asked.
    pub message: String,
    pub latency_ms: u64,
    /// The provider's clock.
    #[serde(skip)]
    pub date: Option<DateTime<Utc>>,
}

impl LlmProxy {
    /// Asks each configured provider (or one) for its models, with each of its credentials.
    pub async fn test_credentials(&self, only: Option<&str>) -> Vec<Tested> {
        let mut results = Vec::new();
        for provider in self.providers.iter().filter(|p| p.is_configured() && !p.is_demo()) {
            if only.is_none_or(|only| only == &*provider.name) {
                for member in provider.pool.members() {
                    results.push(self.test(provider, &member).await);
                }
            }
        }
        results
    }

    pub(crate) async fn test(&self, provider: &Provider, member: &Arc<Member>) -> Tested {
        let started = Instant::now();
        let lease = provider.pool.lease_of(member);
        let url = provider.models_url(None);
        let mut date = None;
        let (ok, message) = match self.fetch_with(provider, url, &HeaderMap::new(), &lease).await {
            Ok(answer) if answer.status().is_success() => {
                date = date_of(&answer);
                (true, "it answers".to_owned())
            }
            Ok(answer) => {
                date = date_of(&answer);
                let status = answer.status();
                let body = read_to(answer.into_body(), 2_000).await;
                (false, format!("{status}: {}", String::from_utf8_lossy(&body).trim()))
            }
            Err(error) => (false, error.to_string()),
        };
        Tested {
            provider: provider.name.to_string(),
            name: member.name.clone(),
            ok,
            message,
            latency_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            date,
        }
    }
}

fn date_of<T>(answer: &http::Response<T>) -> Option<DateTime<Utc>> {
    let text = answer.headers().get(http::header::DATE)?.to_str().ok()?;
    Some(DateTime::parse_from_rfc2822(text).ok()?.to_utc())
}
