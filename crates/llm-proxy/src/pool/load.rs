//! The stored credentials, read into the pools: at start, at once when one changes anywhere, and now
//! and then all of them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use loom_core::{Result, id::CredentialId};
use loom_db::{Signal, Subscription};

use super::{
    keeper::secret_context,
    member::{Auth, Member, Ready, Tokens, Who},
    store::{self, CredentialRow},
};
use crate::{CHANNEL, LlmProxy, provider::Provider};

/// In case a word was lost.
const READ_ALL_EVERY: Duration = Duration::from_secs(60);

impl LlmProxy {
    /// Reads the stored credentials, and keeps them as they are in the database from then on.
    pub(crate) async fn start_credentials(&self) -> Result<()> {
        let heard = self.hub.subscribe(CHANNEL);
        self.read_credentials().await?;
        let proxy = self.clone();
        tokio::spawn(async move {
            let stop = proxy.stop.clone();
            stop.run_until_cancelled(proxy.follow_credentials(heard)).await;
        });
        self.keeper.start_writing();
        Ok(())
    }

    async fn follow_credentials(&self, mut heard: Subscription) {
        let mut slow = tokio::time::interval(READ_ALL_EVERY);
        slow.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        slow.reset();
        loop {
            let only = tokio::select! {
                signal = heard.next() => match signal {
                    Some(Signal::Said(payload)) => match payload.strip_prefix("credentials ") {
                        Some(id) => id.parse().ok(),
                        None => continue,
                    },
                    Some(Signal::ReadAgain) => None,
                    None => return,
                },
                _ = slow.tick() => None,
            };
            let read = match only {
                Some(id) => self.read_credential(id).await,
                None => self.read_credentials().await.map(drop),
            };
            if let Err(error) = read {
                tracing::warn!(
                    ?error,
                    "the stored credentials could not be read; the ones read before stay in use"
                );
            }
        }
    }

    /// Reads all. Those that cannot be opened are left out, and the log says why: their providers and names.
    pub async fn read_credentials(&self) -> Result<Vec<(String, String)>> {
        let _reading = self.reading_credentials.lock().await;
        let mut by_provider: HashMap<String, Vec<Arc<Member>>> = HashMap::new();
        let mut closed = Vec::new();
        for row in store::read(&self.pool, None).await? {
            let row = self.rewrapped(row).await;
            let Some(provider) = self.providers.named(&row.provider) else { continue };
            let member = self.member(provider, &row);
            if member.is_none() {
                closed.push((row.provider.clone(), row.name));
            }
            by_provider.entry(row.provider).or_default().extend(member);
        }
        for provider in self.providers.iter() {
            provider.pool.set_stored(by_provider.remove(&*provider.name).unwrap_or_default());
        }
        Ok(closed)
    }

    /// Reads one again; one that is gone goes.
    pub(crate) async fn read_credential(&self, id: CredentialId) -> Result<()> {
        let _reading = self.reading_credentials.lock().await;
        let row = store::read(&self.pool, Some(id)).await?.pop();
        for provider in self.providers.iter() {
            let stored = provider.pool.stored();
            let of_this = row.as_ref().filter(|row| row.provider == *provider.name);
            if of_this.is_none() && !stored.iter().any(|member| member.who == Who::Stored(id)) {
                continue;
            }
            let member = of_this.and_then(|row| self.member(provider, row));
            let others = stored.iter().filter(|member| member.who != Who::Stored(id)).cloned();
            provider.pool.set_stored(others.chain(member).collect());
        }
        Ok(())
    }

    /// The one that is in the pool already, when it still has the same secret.
    fn member(&self, provider: &Provider, row: &CredentialRow) -> Option<Arc<Member>> {
        let known = provider.pool.stored_one(row.id).filter(|known| known.version == row.version);
        let member = match known {
            Some(known) => known,
            None => match self.opened(provider, row) {
                Ok(member) => Arc::new(member?),
                Err(error) => {
                    tracing::error!(
                        provider = row.provider,
                        credential = row.name,
                        ?error,
                        "a stored credential cannot be opened"
                    );
                    return None;
                }
            },
        };
        if let Some(tokens) = member.tokens()
            && (tokens.current.load().is_none() || row.generation > tokens.generation())
            && let Err(error) = self.keeper.install_stored(tokens, row)
        {
            tracing::error!(credential = row.name, ?error, "a stored token cannot be opened");
        }
        let reason = || row.disabled_reason.clone().unwrap_or_else(|| "disabled".to_owned());
        let last_error = row.last_error.clone().zip(row.last_error_at);
        let by_admin = row.disabled_by.as_deref() == Some("admin");
        let disabled = row.disabled_at.map(|_| reason());
        member.take_over(disabled, by_admin, row.cooling_until, last_error);
        Some(member)
    }

    fn opened(&self, provider: &Provider, row: &CredentialRow) -> Result<Option<Member>> {
        let auth = if row.kind == "api_key" {
            let secret = self.vault.unseal(&secret_context(row.id), &row.sealed_secret)?;
            // Before it is used: no log and no error is to tell it.
            loom_redact::learn([secret.clone()]);
            let Some(ready) = Ready::key(provider.dialect, &secret) else { return Ok(None) };
            Auth::Fixed(ready)
        } else {
            Auth::Token(Box::new(Tokens::new(&row.kind, provider.dialect, None)))
        };
        let keeper = Some(Arc::clone(&self.keeper));
        let who = Who::Stored(row.id);
        let config = provider.pool.config();
        Ok(Some(Member::new(who, row.name.clone(), row.version, auth, config, keeper)))
    }

    /// After a change of the master key, what the old one sealed is put under the new one.
    async fn rewrapped(&self, row: CredentialRow) -> CredentialRow {
        let token = row.sealed_token.as_deref();
        let needs = |sealed: &[u8]| self.vault.needs_rewrap(sealed);
        if !needs(&row.sealed_secret) && !token.is_some_and(needs) {
            return row;
        }
        let rewrap = |sealed: &[u8]| {
            if needs(sealed) { self.vault.rewrap(sealed) } else { Ok(sealed.to_vec()) }
        };
        let rewrapped = async {
            let secret = rewrap(&row.sealed_secret)?;
            let new_token = token.map(rewrap).transpose()?;
            let from = (&row.sealed_secret[..], token);
            store::rewrap(&self.pool, row.id, from, (&secret, new_token.as_deref())).await
        };
        if let Err(error) = rewrapped.await {
            tracing::warn!(
                credential = row.name,
                ?error,
                "a secret stays under the old master key"
            );
        }
        row
    }
}
