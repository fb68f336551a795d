//! What those who run this installation do with credentials.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use chrono::{DateTime, Utc};
use loom_common_secret::SecretString;
use loom_core::{Error, Result, id::CredentialId, text};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    grant::{GrantConfig, OAuthSecret},
    keeper::{secret_context, token_context},
    member::{Member, Standing, Who},
    model::{CredentialView, NewCredential, SecretJson, kind_named},
    store::{self, Changed, CredentialRow, NewRow},
};
use crate::{LlmProxy, provider::Provider};

/// What is changed of a credential. Absent stays. A new secret is of the credential's own kind.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CredentialChange {
    pub name: Option<String>,
    #[schema(value_type = Option<String>)]
    pub secret: Option<SecretString>,
    #[schema(value_type = Option<String>)]
    pub client_secret: Option<SecretString>,
    #[schema(value_type = Option<String>)]
    pub refresh_token: Option<SecretString>,
    #[schema(value_type = Option<String>)]
    pub access_token: Option<SecretString>,
    pub expires_in: Option<u32>,
    #[schema(value_type = Option<Object>)]
    pub service_account: Option<SecretJson>,
}

impl CredentialChange {
    fn has_secret(&self) -> bool {
        [&self.secret, &self.client_secret, &self.refresh_token, &self.access_token]
            .iter()
            .any(|secret| secret.is_some())
            || self.expires_in.is_some()
            || self.service_account.is_some()
    }
}

impl LlmProxy {
    /// One that takes credentials.
    ///
    /// # Errors
    /// 404 that names those that do.
    pub(crate) fn provider_with_credentials(&self, name: &str) -> Result<&Arc<Provider>> {
        self.providers.named(name).filter(|p| !p.is_demo()).ok_or_else(|| {
            let names: Vec<_> =
                self.providers.iter().filter(|p| !p.is_demo()).map(|p| &*p.name).collect();
            Error::not_found(&format!("provider; there are {}", names.join(", ")))
        })
    }

    /// Stores a credential, sealed.
    ///
    /// # Errors
    /// 404 for a provider that is not configured, 409 for a name that is taken, 422.
    pub async fn add_credential(
        &self,
        provider: &str,
        new: &NewCredential,
    ) -> Result<CredentialId> {
        let provider = self.provider_with_credentials(provider)?;
        let name = new.name.as_deref().unwrap_or("default");
        check_name(name)?;
        let parts = new.parts(provider, &self.assertion_files)?;
        let now = self.clock.now();
        let id = CredentialId::new(now);
        let token = self.sealed_token(id, parts.access_token, now)?;
        let row = NewRow {
            id,
            provider: &provider.name,
            name,
            kind: new.kind.name(),
            config: &parts.config,
            sealed_secret: &self.vault.seal(&secret_context(id), &parts.secret)?,
            last_four: &parts.last_four,
            sealed_token: token.as_ref().map(|(sealed, _)| &sealed[..]),
            token_expires_at: token.as_ref().map(|(_, at)| *at),
        };
        store::insert(&self.pool, &row, now).await?;
        self.read_credential(id).await?;
        Ok(id)
    }

    fn sealed_token(
        &self,
        id: CredentialId,
        token: Option<(SecretString, Option<u32>)>,
        now: DateTime<Utc>,
    ) -> Result<Option<(Vec<u8>, DateTime<Utc>)>> {
        let Some((token, life)) = token else { return Ok(None) };
        let life = Duration::from_secs(life.unwrap_or(3_600).into());
        Ok(Some((self.vault.seal(&token_context(id), &token)?, now + life)))
    }

    pub(crate) async fn change_credential(
        &self,
        provider: &Provider,
        id: CredentialId,
        change: &CredentialChange,
    ) -> Result<()> {
        let row = self.row(provider, id).await?;
        if let Some(name) = &change.name {
            check_name(name)?;
        }
        let now = self.clock.now();
        let mut changed = Changed { name: change.name.as_deref(), ..Changed::default() };
        let (parts, sealed_secret, sealed_token);
        if change.has_secret() {
            parts = self.merged(&row, change)?.parts(provider, &self.assertion_files)?;
            sealed_secret = self.vault.seal(&secret_context(id), &parts.secret)?;
            sealed_token = self.sealed_token(id, parts.access_token, now)?;
            changed.config = Some(&parts.config);
            changed.sealed_secret = Some(&sealed_secret);
            changed.last_four = Some(&parts.last_four);
            changed.sealed_token = sealed_token.as_ref().map(|(sealed, _)| &sealed[..]);
            changed.token_expires_at = sealed_token.as_ref().map(|(_, at)| *at);
        }
        found(store::change(&self.pool, id, &changed, now).await?)?;
        self.read_credential(id).await
    }

    /// The row as a new credential would have to be said, with the change.
    fn merged(&self, row: &CredentialRow, change: &CredentialChange) -> Result<NewCredential> {
        let config: GrantConfig =
            serde_json::from_value(row.config.clone()).map_err(Error::internal)?;
        let mut new = NewCredential {
            kind: kind_named(&row.kind),
            secret: change.secret.clone(),
            client_secret: change.client_secret.clone(),
            refresh_token: change.refresh_token.clone(),
            access_token: change.access_token.clone(),
            expires_in: change.expires_in,
            service_account: change.service_account.clone(),
            ..NewCredential::default()
        };
        match row.kind.as_str() {
            "oauth" => {
                let sealed = self.vault.unseal(&secret_context(row.id), &row.sealed_secret)?;
                let known = OAuthSecret::open(&sealed)?;
                new.refresh_token = new.refresh_token.or(Some(known.refresh_token.into()));
                new.client_secret = new.client_secret.or(known.client_secret.map(Into::into));
                new.token_url = config.token_url;
                new.client_id = config.client_id;
                new.scope = config.scope;
                new.json = Some(config.json);
            }
            "workload_identity" => {
                new.token_url = config.token_url;
                new.assertion_file = config.assertion_file;
                new.federation_rule_id = config.federation_rule_id;
                new.organization_id = config.organization_id;
                new.service_account_id = config.service_account_id;
                new.workspace_id = config.workspace_id;
            }
            _ => {}
        }
        Ok(new)
    }

    /// Enabled, it is as new; disabled, the reason stays with it.
    ///
    /// # Errors
    /// 404.
    pub async fn switch_credential(
        &self,
        id: CredentialId,
        enabled: bool,
        reason: Option<&str>,
    ) -> Result<()> {
        let now = self.clock.now();
        found(if enabled {
            store::enable(&self.pool, id, now).await?
        } else {
            let reason = reason.unwrap_or("disabled by an administrator");
            if !text::is_plain_line(reason, 300) {
                return Err(Error::invalid("reason", "is one line of 1 to 300 bytes"));
            }
            store::disable(&self.pool, id, reason, now).await?
        })?;
        self.read_credential(id).await
    }

    /// # Errors
    /// 404.
    pub async fn delete_credential(&self, id: CredentialId) -> Result<()> {
        found(store::delete(&self.pool, id).await?)?;
        self.read_credential(id).await
    }

    /// The credentials of one provider or all, without their secrets.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn list_credentials(&self, only: Option<&str>) -> Result<Vec<CredentialView>> {
        let wanted = |name: &str| only.is_none_or(|only| only == name);
        let mut views = Vec::new();
        for provider in self.providers.iter().filter(|provider| wanted(&provider.name)) {
            let members = provider.pool.members();
            let own = members.iter().find(|member| member.who == Who::Environment);
            views.extend(own.map(|member| self.environment_view(provider, member)));
        }
        for row in store::read(&self.pool, None).await? {
            if wanted(&row.provider) {
                views.push(self.view(row));
            }
        }
        Ok(views)
    }

    pub(crate) async fn row(&self, provider: &Provider, id: CredentialId) -> Result<CredentialRow> {
        let row = store::read(&self.pool, Some(id)).await?.pop();
        row.filter(|row| row.provider == *provider.name)
            .ok_or_else(|| Error::not_found("credential"))
    }

    fn environment_view(&self, provider: &Provider, member: &Member) -> CredentialView {
        let now = self.clock.now();
        let state = member.state().clone();
        let standing = state.standing(now);
        let (last_error, last_error_at) = state.last_error.unzip();
        let token = member.tokens().and_then(|tokens| tokens.current.load_full());
        CredentialView {
            id: None,
            provider: provider.name.to_string(),
            name: member.name.clone(),
            kind: kind_named(if member.tokens().is_some() {
                "google_service_account"
            } else {
                "api_key"
            }),
            source: "environment",
            last_four: String::new(),
            state: standing.name(),
            cooldown_left_secs: left(standing),
            disabled_by: state.disabled.as_ref().map(|_| "provider".to_owned()),
            disabled_reason: state.disabled,
            disabled_at: None,
            last_error,
            last_error_at,
            token_expires_at: token.map(|token| token.expires_at),
            in_flight: member.in_flight.load(Ordering::Relaxed),
            config: Value::Object(serde_json::Map::new()),
            created_at: None,
            updated_at: None,
        }
    }

    /// As the row says, and where this replica knows more, as it knows.
    pub(crate) fn view(&self, row: CredentialRow) -> CredentialView {
        let now = self.clock.now();
        let member = self.stored_credential(row.id).map(|(_, member)| member);
        let state = member.as_ref().map(|member| member.state().clone());
        let standing = match &state {
            Some(state) => state.standing(now),
            None if row.disabled_at.is_some() => Standing::Disabled,
            None => Standing::Available,
        };
        let newer = state
            .and_then(|state| state.last_error)
            .filter(|(_, at)| row.last_error_at.is_none_or(|known| known < *at));
        let (last_error, last_error_at) = match newer {
            Some((error, at)) => (Some(error), Some(at)),
            None => (row.last_error, row.last_error_at),
        };
        CredentialView {
            id: Some(row.id),
            provider: row.provider,
            name: row.name,
            kind: kind_named(&row.kind),
            source: "stored",
            last_four: row.last_four,
            state: standing.name(),
            cooldown_left_secs: left(standing),
            disabled_by: row.disabled_by,
            disabled_reason: row.disabled_reason,
            disabled_at: row.disabled_at,
            last_error,
            last_error_at,
            token_expires_at: row.token_expires_at,
            in_flight: member.map_or(0, |member| member.in_flight.load(Ordering::Relaxed)),
            config: row.config,
            created_at: Some(row.created_at),
            updated_at: Some(row.updated_at),
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    if text::is_plain_line(name, 100) && name != "environment" {
        Ok(())
    } else {
        Err(Error::invalid("name", "is one line of 1 to 100 bytes, and not `environment`"))
    }
}

fn found(found: bool) -> Result<()> {
    if found { Ok(()) } else { Err(Error::not_found("credential")) }
}

fn left(standing: Standing) -> Option<u64> {
    match standing {
        Standing::Cooling(left) | Standing::Open(left) => {
            Some(left.as_millis().div_ceil(1000) as u64)
        }
        Standing::Available | Standing::Disabled => None,
    }
}
