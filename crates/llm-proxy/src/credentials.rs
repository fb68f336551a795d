//! Provider credentials in the database: sealed, read again every few seconds, so that what one
//! replica or the command line adds is soon used by all.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use axum::http::HeaderMap;
use loom_common_secret::SecretString;
use loom_core::{Error, Result, id::CredentialId, text};

use crate::{
    LlmProxy,
    dialect::Operation,
    forward::read_to,
    pool::{Member, Ready, Who},
    provider::Target,
    store,
};

const MAX_AGE_MS: i64 = 5_000;

/// What a test call brought.
#[derive(Clone, Debug)]
pub struct Tested {
    pub provider: String,
    pub name: String,
    pub ok: bool,
    /// What the provider said, or why it could not be asked.
    pub message: String,
    pub latency_ms: u128,
}

/// A reading from the future is old: the clock went back.
fn is_young(age_ms: i64) -> bool {
    (0..MAX_AGE_MS).contains(&age_ms)
}

fn context(id: CredentialId) -> String {
    format!("llm_credentials/{id}")
}

impl LlmProxy {
    /// Reads the stored credentials. One that cannot be opened is left out, and the log says so.
    pub(crate) async fn read_credentials(&self) -> Result<()> {
        self.credentials_read.store(self.clock.now().timestamp_millis(), Ordering::Relaxed);
        let mut by_provider: HashMap<String, Vec<Arc<Member>>> = HashMap::new();
        let mut secrets = Vec::new();
        for row in store::credentials(&self.pool).await? {
            let Some(provider) = self.providers.named(&row.provider) else { continue };
            match self.vault.unseal(&context(row.id), &row.sealed_secret) {
                Ok(secret) => {
                    let ready = Ready::key(provider.dialect, &secret);
                    secrets.push(secret);
                    let member = ready.map(|ready| {
                        Arc::new(Member::new(
                            Who::Stored(row.id),
                            row.name,
                            ready,
                            self.pool_config,
                        ))
                    });
                    by_provider.entry(row.provider).or_default().extend(member);
                }
                Err(error) => tracing::error!(
                    provider = row.provider,
                    credential = row.name,
                    ?error,
                    "a stored credential cannot be opened"
                ),
            }
        }
        // Before any of them is used: no log and no error is to tell one.
        loom_redact::learn(secrets);
        for provider in self.providers.iter() {
            provider.pool.set_stored(by_provider.remove(&*provider.name).unwrap_or_default());
        }
        Ok(())
    }

    /// Reads them again in the background when the last reading is a few seconds old.
    pub(crate) fn refresh_credentials_if_old(&self) {
        let age =
            self.clock.now().timestamp_millis() - self.credentials_read.load(Ordering::Relaxed);
        if is_young(age) || self.credentials_reading.swap(true, Ordering::AcqRel) {
            return;
        }
        let proxy = self.clone();
        tokio::spawn(async move {
            if let Err(error) = proxy.read_credentials().await {
                tracing::warn!(
                    ?error,
                    "the stored credentials could not be read; the ones read before stay in use"
                );
            }
            proxy.credentials_reading.store(false, Ordering::Release);
        });
    }

    /// [`Providers::serving`] with credentials that are soon up to date, also when until now there was
    /// none, so that nothing is ever sent.
    ///
    /// [`Providers::serving`]: crate::provider::Providers::serving
    pub(crate) fn serving(&self, surface: Operation, model: &str) -> Result<Target> {
        self.refresh_credentials_if_old();
        self.providers.serving(surface, model)
    }

    /// Stores a credential, sealed.
    ///
    /// # Errors
    /// 404 for a provider that is not configured, 409 for a name that is taken, 422.
    pub async fn add_credential(
        &self,
        provider: &str,
        name: &str,
        secret: &SecretString,
    ) -> Result<CredentialId> {
        let known = self.providers.named(provider).filter(|p| !p.is_demo()).ok_or_else(|| {
            let names: Vec<_> =
                self.providers.iter().filter(|p| !p.is_demo()).map(|p| &*p.name).collect();
            Error::not_found(&format!("provider; there are {}", names.join(", ")))
        })?;
        if !text::is_plain_line(name, 100) {
            return Err(Error::invalid("name", "is one line of 1 to 100 bytes"));
        }
        if !text::is_plain_line(secret.expose(), 10_000)
            || Ready::key(known.dialect, secret).is_none()
        {
            return Err(Error::invalid("secret", "is one line of ASCII"));
        }
        let now = self.clock.now();
        let id = CredentialId::new(now);
        let row = store::CredentialRow {
            id,
            provider: provider.to_owned(),
            name: name.to_owned(),
            sealed_secret: self.vault.seal(&context(id), secret)?,
        };
        let last_four: String = {
            let chars: Vec<char> = secret.expose().chars().collect();
            // Of a short secret, four characters are too many.
            let shown = if chars.len() >= 16 { 4 } else { 0 };
            chars.iter().skip(chars.len() - shown).collect()
        };
        store::insert_credential(&self.pool, &row, &last_four, now).await?;
        self.read_credentials().await?;
        Ok(id)
    }

    /// The stored credentials, without their secrets.
    pub async fn list_credentials(&self) -> Result<Vec<store::CredentialSummary>> {
        store::credential_summaries(&self.pool).await
    }

    /// Asks each configured provider (or one) for its models, with each turn's credential.
    pub async fn test_credentials(&self, only: Option<&str>) -> Vec<Tested> {
        let mut results = Vec::new();
        for provider in self.providers.iter().filter(|p| p.is_configured() && !p.is_demo()) {
            if only.is_some_and(|only| only != &*provider.name) {
                continue;
            }
            for member in provider.pool.members() {
                let started = Instant::now();
                let answer = self
                    .fetch_with(
                        provider,
                        provider.models_url(None),
                        &HeaderMap::new(),
                        &provider.pool.lease_of(&member),
                    )
                    .await;
                let (ok, message) = match answer {
                    Ok(answer) if answer.status().is_success() => (true, "it answers".to_owned()),
                    Ok(answer) => {
                        let status = answer.status();
                        let body = read_to(answer.into_body(), 2_000).await;
                        (false, format!("{status}: {}", String::from_utf8_lossy(&body).trim()))
                    }
                    Err(error) => (false, error.to_string()),
                };
                results.push(Tested {
                    provider: provider.name.to_string(),
                    name: member.name.clone(),
                    ok,
                    message,
                    latency_ms: started.elapsed().as_millis(),
                });
            }
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_young_for_a_few_seconds_and_never_in_the_future() {
        assert!(is_young(0) && is_young(MAX_AGE_MS - 1));
        assert!(!is_young(MAX_AGE_MS) && !is_young(-3_600_000));
    }
}
