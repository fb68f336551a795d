//! What is told of credentials, and what they are made from.

use chrono::{DateTime, Utc};
use loom_common_secret::SecretString;
use loom_core::{Error, Result, clock, error::FieldError, id::CredentialId, text};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    google::ServiceAccount,
    grant::{GrantConfig, OAuthSecret, token_url},
    member::Ready,
};
use crate::{dialect::Dialect, provider::Provider};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    #[default]
    ApiKey,
    /// A refresh token, for which access tokens are given
    Oauth,
    GoogleServiceAccount,
    /// A signed assertion of the workload that this server runs as, read from a file
    WorkloadIdentity,
}

impl CredentialKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Oauth => "oauth",
            Self::GoogleServiceAccount => "google_service_account",
            Self::WorkloadIdentity => "workload_identity",
        }
    }
}

/// A new credential. Each kind has members of its own.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCredential {
    /// Unlike the others of this provider; `default` when absent
    pub name: Option<String>,
    #[serde(default)]
    pub kind: CredentialKind,
    /// `api_key`: the key
    #[schema(value_type = Option<String>)]
    pub secret: Option<SecretString>,
    /// `oauth`, `workload_identity`: where tokens come from, https. For an Anthropic provider its own when absent
    pub token_url: Option<String>,
    /// `oauth`
    pub client_id: Option<String>,
    /// `oauth`, when the client has one
    #[schema(value_type = Option<String>)]
    pub client_secret: Option<SecretString>,
    /// `oauth`
    #[schema(value_type = Option<String>)]
    pub refresh_token: Option<SecretString>,
    /// `oauth`: one that is there already
    #[schema(value_type = Option<String>)]
    pub access_token: Option<SecretString>,
    /// `oauth`: seconds for which `access_token` lasts
    pub expires_in: Option<u32>,
    /// `oauth`
    pub scope: Option<String>,
    /// `oauth`: the token endpoint takes JSON instead of a form; so does Anthropic's
    pub json: Option<bool>,
    /// `google_service_account`: the key file, as an object or as text
    #[schema(value_type = Option<Object>)]
    pub service_account: Option<SecretJson>,
    /// `workload_identity`: one of LOOM_SERVER_LLM_ASSERTION_FILES
    pub assertion_file: Option<String>,
    /// `workload_identity`
    pub federation_rule_id: Option<String>,
    /// `workload_identity`
    pub organization_id: Option<String>,
    /// `workload_identity`
    pub service_account_id: Option<String>,
    /// `workload_identity`
    pub workspace_id: Option<String>,
}

/// A JSON object, or its text, that is a secret.
#[derive(Clone)]
pub struct SecretJson(pub SecretString);

impl<'de> Deserialize<'de> for SecretJson {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::String(text) => text.into(),
            object => object.to_string().into(),
        }))
    }
}

/// A checked new credential, in the parts that are stored.
pub(crate) struct Parts {
    pub(crate) config: Value,
    pub(crate) secret: SecretString,
    pub(crate) last_four: String,
    pub(crate) access_token: Option<(SecretString, Option<u32>)>,
}

impl NewCredential {
    /// An API key.
    pub fn key(name: &str, secret: SecretString) -> Self {
        Self { name: Some(name.to_owned()), secret: Some(secret), ..Self::default() }
    }

    /// # Errors
    /// 422 that names each wrong member.
    pub(crate) fn parts(&self, provider: &Provider, files: &[String]) -> Result<Parts> {
        let mut wrong = Wrong(Vec::new());
        self.only_its_own(&mut wrong);
        let parts = match self.kind {
            CredentialKind::ApiKey => self.api_key(provider.dialect, &mut wrong),
            CredentialKind::Oauth => self.oauth(provider, &mut wrong),
            CredentialKind::GoogleServiceAccount => self.google(&mut wrong),
            CredentialKind::WorkloadIdentity => self.workload(provider, files, &mut wrong),
        };
        match parts {
            Some(parts) if wrong.0.is_empty() => Ok(parts),
            _ => Err(Error::invalid_fields(wrong.0)),
        }
    }

    fn only_its_own(&self, wrong: &mut Wrong) {
        use CredentialKind::{ApiKey, GoogleServiceAccount, Oauth, WorkloadIdentity};
        let members: [(&str, bool, &[CredentialKind]); 14] = [
            ("secret", self.secret.is_some(), &[ApiKey]),
            ("token_url", self.token_url.is_some(), &[Oauth, WorkloadIdentity]),
            ("client_id", self.client_id.is_some(), &[Oauth]),
            ("client_secret", self.client_secret.is_some(), &[Oauth]),
            ("refresh_token", self.refresh_token.is_some(), &[Oauth]),
            ("access_token", self.access_token.is_some(), &[Oauth]),
            ("expires_in", self.expires_in.is_some(), &[Oauth]),
            ("scope", self.scope.is_some(), &[Oauth]),
            ("json", self.json.is_some(), &[Oauth]),
            ("service_account", self.service_account.is_some(), &[GoogleServiceAccount]),
            ("assertion_file", self.assertion_file.is_some(), &[WorkloadIdentity]),
            ("federation_rule_id", self.federation_rule_id.is_some(), &[WorkloadIdentity]),
            ("organization_id", self.organization_id.is_some(), &[WorkloadIdentity]),
            ("service_account_id", self.service_account_id.is_some(), &[WorkloadIdentity]),
        ];
        for (name, is_there, of) in members {
            if is_there && !of.contains(&self.kind) {
                wrong.add(name, format!("does not belong to the kind `{}`", self.kind.name()));
            }
        }
        if self.workspace_id.is_some() && self.kind != WorkloadIdentity {
            wrong
                .add("workspace_id", format!("does not belong to the kind `{}`", self.kind.name()));
        }
    }

    fn api_key(&self, dialect: Dialect, wrong: &mut Wrong) -> Option<Parts> {
        let secret = wrong.line("secret", self.secret.as_ref(), 10_000)?;
        if !secret.expose().is_ascii() || Ready::key(dialect, secret).is_none() {
            wrong.add("secret", "is one line of ASCII");
            return None;
        }
        let chars: Vec<char> = secret.expose().chars().collect();
        // Of a short secret, four characters are too many.
        let shown = if chars.len() >= 16 { 4 } else { 0 };
        let last_four = chars.iter().skip(chars.len() - shown).collect();
        let config = Value::Object(serde_json::Map::new());
        Some(Parts { config, secret: secret.clone(), last_four, access_token: None })
    }

    fn oauth(&self, provider: &Provider, wrong: &mut Wrong) -> Option<Parts> {
        let refresh_token = wrong.line("refresh_token", self.refresh_token.as_ref(), 16_000);
        let token_url = self.endpoint(provider, wrong);
        for (name, value) in [("client_id", &self.client_id), ("scope", &self.scope)] {
            wrong.short(name, value.as_deref());
        }
        if let Some(access_token) = &self.access_token {
            wrong.line("access_token", Some(access_token), 16_000);
        }
        let secret = OAuthSecret {
            refresh_token: refresh_token?.expose().to_owned(),
            client_secret: self.client_secret.as_ref().map(|secret| secret.expose().to_owned()),
        };
        let config = GrantConfig {
            token_url: Some(token_url?),
            client_id: self.client_id.clone(),
            scope: self.scope.clone(),
            json: self.json.unwrap_or(provider.dialect == Dialect::Anthropic),
            ..GrantConfig::default()
        };
        Some(Parts {
            config: serde_json::to_value(config).ok()?,
            secret: secret.seal().ok()?,
            last_four: String::new(),
            access_token: self.access_token.clone().map(|token| (token, self.expires_in)),
        })
    }

    fn google(&self, wrong: &mut Wrong) -> Option<Parts> {
        let Some(SecretJson(secret)) = &self.service_account else {
            wrong.add("service_account", "is needed");
            return None;
        };
        let account = match ServiceAccount::parse(secret) {
            Ok(account) => account,
            Err(why) => {
                wrong.add("service_account", why);
                return None;
            }
        };
        if let Err(why) = token_url(&account.token_uri) {
            wrong.add("service_account", format!("has a `token_uri` that {why}"));
            return None;
        }
        let config = GrantConfig {
            token_url: Some(account.token_uri),
            client_email: Some(account.client_email),
            ..GrantConfig::default()
        };
        Some(Parts {
            config: serde_json::to_value(config).ok()?,
            secret: secret.clone(),
            last_four: String::new(),
            access_token: None,
        })
    }

    fn workload(&self, provider: &Provider, files: &[String], wrong: &mut Wrong) -> Option<Parts> {
        let token_url = self.endpoint(provider, wrong);
        let file = self.assertion_file.clone().filter(|file| files.contains(file));
        if file.is_none() {
            let known =
                if files.is_empty() { "which is empty".to_owned() } else { files.join(", ") };
            wrong.add(
                "assertion_file",
                format!("is one of those in LOOM_SERVER_LLM_ASSERTION_FILES: {known}"),
            );
        }
        for (name, value) in [
            ("federation_rule_id", &self.federation_rule_id),
            ("organization_id", &self.organization_id),
            ("service_account_id", &self.service_account_id),
            ("workspace_id", &self.workspace_id),
        ] {
            wrong.short(name, value.as_deref());
        }
        let config = GrantConfig {
            token_url: Some(token_url?),
            json: provider.dialect == Dialect::Anthropic,
            assertion_file: Some(file?),
            federation_rule_id: self.federation_rule_id.clone(),
            organization_id: self.organization_id.clone(),
            service_account_id: self.service_account_id.clone(),
            workspace_id: self.workspace_id.clone(),
            ..GrantConfig::default()
        };
        Some(Parts {
            config: serde_json::to_value(config).ok()?,
            secret: SecretString::default(),
            last_four: String::new(),
            access_token: None,
        })
    }

    fn endpoint(&self, provider: &Provider, wrong: &mut Wrong) -> Option<String> {
        let url = match &self.token_url {
            Some(url) => url.clone(),
            None => provider.own_token_url().or_else(|| {
                wrong.add("token_url", "is needed");
                None
            })?,
        };
        match token_url(&url) {
            Ok(url) => Some(url.into()),
            Err(why) => {
                wrong.add("token_url", why);
                None
            }
        }
    }
}

struct Wrong(Vec<FieldError>);

impl Wrong {
    fn add(&mut self, path: &str, message: impl Into<String>) {
        self.0.push(FieldError { path: path.to_owned(), message: message.into() });
    }

    fn line<'a>(
        &mut self,
        path: &str,
        value: Option<&'a SecretString>,
        max: usize,
    ) -> Option<&'a SecretString> {
        let value = value.filter(|value| text::is_plain_line(value.expose(), max));
        if value.is_none() {
            self.add(path, format!("is needed, and is one line of up to {max} bytes"));
        }
        value
    }

    fn short(&mut self, path: &str, value: Option<&str>) {
        if value.is_some_and(|value| !text::is_plain_line(value, 500)) {
            self.add(path, "is one line of 1 to 500 bytes");
        }
    }
}

/// A credential as it is shown: never the secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CredentialView {
    /// Null for the one from the environment, which can only be looked at
    pub id: Option<CredentialId>,
    pub provider: String,
    pub name: String,
    pub kind: CredentialKind,
    /// `stored` or `environment`
    pub source: &'static str,
    /// Of a key, for telling several apart
    pub last_four: String,
    /// `available`, `cooling_down`, `circuit_open` (on this replica) or `disabled`
    pub state: &'static str,
    /// Until it is available by itself
    pub cooldown_left_secs: Option<u64>,
    /// `admin`, `provider` (401 or 403) or `token_endpoint`
    pub disabled_by: Option<String>,
    pub disabled_reason: Option<String>,
    #[serde(serialize_with = "clock::millis_option")]
    pub disabled_at: Option<DateTime<Utc>>,
    pub last_error: Option<String>,
    #[serde(serialize_with = "clock::millis_option")]
    pub last_error_at: Option<DateTime<Utc>>,
    /// Of the access token in force
    #[serde(serialize_with = "clock::millis_option")]
    pub token_expires_at: Option<DateTime<Utc>>,
    /// Requests that use it now, on this replica
    pub in_flight: u32,
    /// Where tokens come from, the client's id and the like: what is no secret
    #[schema(value_type = Object)]
    pub config: Value,
    #[serde(serialize_with = "clock::millis_option")]
    pub created_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "clock::millis_option")]
    pub updated_at: Option<DateTime<Utc>>,
}

pub(crate) fn kind_named(name: &str) -> CredentialKind {
    match name {
        "oauth" => CredentialKind::Oauth,
        "google_service_account" => CredentialKind::GoogleServiceAccount,
        "workload_identity" => CredentialKind::WorkloadIdentity,
        _ => CredentialKind::ApiKey,
    }
}
