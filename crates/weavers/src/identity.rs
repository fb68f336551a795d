//! Who a weaver is: its token, and the environment by which what runs in it finds this server and its models.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use k8s_openapi::{
    ByteString,
    api::core::v1::{EnvVar, EnvVarSource, Secret, SecretKeySelector},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use loom_common_secret::SecretString;
use loom_core::{
    Error, Result,
    id::WeaverId,
    port::WeaverGrant,
    principal::{Scope, Scopes},
};

use crate::{Weavers, model::Row};

/// Where the token lies in the container, as a file of the secret.
pub(crate) const TOKEN_DIR: &str = "/var/run/secrets/loom";
/// The entry of the secret that is the token. No name of an environment variable holds a dash.
pub(crate) const TOKEN_KEY: &str = "loom-token";
/// The entry that a private repository is cloned with; it is in the secret alone, for the clone.
pub(crate) const REPO_TOKEN_KEY: &str = "loom-repo-token";
/// Names that only this server sets.
pub(crate) const RESERVED: &str = "LOOM_";
/// A token outlives the longest life a little, so that a weaver which is just being extended is not cut off;
/// it ends with the weaver all the same.
const GRACE: TimeDelta = TimeDelta::minutes(10);
/// What a weaver may do unless its maker says less.
pub(crate) const SCOPES: [Scope; 5] =
    [Scope::LlmUse, Scope::ThreadsRead, Scope::ThreadsWrite, Scope::WeaversRead, Scope::ReposRead];

/// What a pod is given.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Of the container; what is secret refers to `secret`.
    pub(crate) env: Vec<EnvVar>,
    /// Token and sealed env, under the name of the pod. It is to be owned by the pod once that is there.
    pub(crate) secret: Secret,
}

impl Weavers {
    /// A new token, with what goes round it. The policies of the network are there when this returns.
    ///
    /// # Errors
    /// When the sealed env does not open, the token cannot be stored, or the cluster takes no policies.
    pub(crate) async fn identity(&self, row: &Row) -> Result<Identity> {
        self.keep_policies().await?;
        let sealed = self.open_env(row)?;
        let max = TimeDelta::milliseconds(hours_to_millis(self.config.max_hours));
        let grant = WeaverGrant {
            weaver: row.id,
            org: row.org_id,
            owner: row.owner_id,
            scopes: scopes_of(row),
            expires_at: row.expires_at.max(row.created_at + max) + GRACE,
        };
        let token = self.deps.tokens.issue(grant).await?;
        loom_redact::learn(sealed.values().cloned());
        Ok(self.dress(row, &token, &sealed))
    }

    /// Ends every token of a weaver.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub(crate) async fn forget_identity(&self, row: &Row) -> Result<()> {
        self.deps.tokens.revoke(row.org_id, row.id).await
    }

    /// Env values that must not lie open, for the row.
    pub(crate) fn seal_env(
        &self,
        id: WeaverId,
        env: &BTreeMap<String, SecretString>,
    ) -> Result<Option<Vec<u8>>> {
        if env.is_empty() {
            return Ok(None);
        }
        let plain: BTreeMap<&str, &str> =
            env.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        let text = serde_json::to_string(&plain).map_err(Error::internal)?;
        Ok(Some(self.deps.vault.seal(&context(id), &SecretString::from(text))?))
    }

    /// What its log must not show, also on a server that has not made its pod.
    pub(crate) fn learn_env(&self, row: &Row) {
        match self.open_env(row) {
            Ok(sealed) => loom_redact::learn(sealed.into_values()),
            Err(error) => {
                tracing::warn!(%error, weaver = %row.id, "the sealed values of a weaver are not masked in its log");
            }
        }
    }

    fn open_env(&self, row: &Row) -> Result<BTreeMap<String, SecretString>> {
        let Some(sealed) = &row.sealed_env else { return Ok(BTreeMap::new()) };
        let text = self.deps.vault.unseal(&context(row.id), sealed)?;
        serde_json::from_str(text.expose()).map_err(Error::internal)
    }

    fn dress(
        &self,
        row: &Row,
        token: &SecretString,
        sealed: &BTreeMap<String, SecretString>,
    ) -> Identity {
        let url = &self.config.server_url;
        let mut env: BTreeMap<&str, EnvVar> = BTreeMap::new();
        for (name, value) in &row.spec.env {
            env.insert(name, plain(name, value));
        }
        for name in sealed.keys().filter(|name| *name != REPO_TOKEN_KEY) {
            env.insert(name, from_secret(name, &row.pod_name, name));
        }
        // Who brings a key or an address of their own for a vendor wants both to be their own.
        for (base, key, path) in [
            ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", ""),
            ("OPENAI_BASE_URL", "OPENAI_API_KEY", "/v1"),
        ] {
            if !env.contains_key(base) && !env.contains_key(key) {
                env.insert(base, plain(base, &format!("{url}{path}")));
                env.insert(key, from_secret(key, &row.pod_name, TOKEN_KEY));
            }
        }
        let id = row.id.to_string();
        let file = format!("{TOKEN_DIR}/token");
        let own = [
            ("LOOM_SERVER_URL", Some(url.as_str())),
            ("LOOM_WEAVER_ID", Some(id.as_str())),
            ("LOOM_TOKEN_FILE", Some(file.as_str())),
            ("LOOM_REPO", row.spec.repo.as_deref()),
            ("LOOM_BRANCH", row.spec.branch.as_deref()),
        ];
        for (name, value) in own {
            if let Some(value) = value {
                env.insert(name, plain(name, value));
            }
        }
        let mut data: BTreeMap<String, ByteString> = BTreeMap::new();
        for (name, value) in sealed {
            let value = match name.as_str() {
                // As git sends it; forges take any user with a token.
                REPO_TOKEN_KEY => {
                    let pair = format!("x-access-token:{}", value.expose());
                    format!("Basic {}", STANDARD.encode(pair)).into_bytes()
                }
                _ => value.expose().as_bytes().to_vec(),
            };
            data.insert(name.clone(), ByteString(value));
        }
        data.insert(TOKEN_KEY.to_owned(), ByteString(token.expose().as_bytes().to_vec()));
        let labels = BTreeMap::from([
            ("loom.dev/managed".to_owned(), "true".to_owned()),
            ("loom.dev/installation".to_owned(), self.installation.clone()),
            ("loom.dev/weaver-id".to_owned(), id.clone()),
        ]);
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(row.pod_name.clone()),
                namespace: Some(self.config.namespace.clone()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            immutable: Some(true),
            data: Some(data),
            ..Secret::default()
        };
        Identity { env: env.into_values().collect(), secret }
    }
}

/// What its token may be used for: as it was made.
fn scopes_of(row: &Row) -> Scopes {
    row.spec.scopes.iter().filter_map(|scope| scope.parse::<Scope>().ok()).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "at most 720 hours")]
pub(crate) fn hours_to_millis(hours: f64) -> i64 {
    (hours * 3_600_000.0).round() as i64
}

fn context(id: WeaverId) -> String {
    format!("weavers/sealed_env/{id}")
}

fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() }
}

fn from_secret(name: &str, secret: &str, key: &str) -> EnvVar {
    let selector =
        SecretKeySelector { name: secret.to_owned(), key: key.to_owned(), optional: None };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(selector),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}
