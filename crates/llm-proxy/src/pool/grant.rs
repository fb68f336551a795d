//! How a token is asked for: OAuth's refresh token (RFC 6749, section 6), a JWT of a Google service
//! account or of the workload itself (RFC 7523).

use std::time::Duration;

use chrono::{DateTime, Utc};
use loom_common_secret::SecretString;
use loom_core::{Error, Result, text};
use loom_notify::outbound::Client;
use reqwest::{Method, RequestBuilder, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::google;

/// The whole exchange with a token endpoint.
const LIMIT: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 64 << 10;
/// A token whose end is not told lasts so long.
const DEFAULT_LIFE: u64 = 3_600;
const LONGEST_LIFE: u64 = 30 * 24 * 3_600;
const MAX_ASSERTION: u64 = 64 << 10;
pub(crate) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// What is stored of a credential beside its secret. Of each kind its own members; the rest is absent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GrantConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<String>,
    /// The request is JSON and not a form.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) json: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) assertion_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) federation_rule_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) organization_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service_account_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workspace_id: Option<String>,
}

/// What is sealed of an OAuth credential. No `Debug`: it is all secret.
#[derive(Serialize, Deserialize)]
pub(crate) struct OAuthSecret {
    pub(crate) refresh_token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client_secret: Option<String>,
}

impl OAuthSecret {
    pub(crate) fn seal(&self) -> Result<SecretString> {
        serde_json::to_string(self).map(SecretString::from).map_err(Error::internal)
    }

    pub(crate) fn open(secret: &SecretString) -> Result<Self> {
        serde_json::from_str(secret.expose())
            .map_err(|_| Error::internal("a stored OAuth secret is not of its form"))
    }
}

/// Ready to be asked for.
pub(crate) enum Grant {
    OAuth { config: GrantConfig, secret: OAuthSecret },
    Google(google::ServiceAccount),
    Workload(GrantConfig),
}

/// A new token.
pub(crate) struct Granted {
    pub(crate) access_token: SecretString,
    pub(crate) expires_at: DateTime<Utc>,
    /// In place of the one that was used, when it was rotated.
    pub(crate) secret: Option<SecretString>,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It will be the same the next time: the refresh token, the assertion or the client is refused.
    Final(String),
    /// It may go well soon.
    Passing(String),
}

impl Grant {
    pub(crate) fn of(kind: &str, config: &Value, secret: &SecretString) -> Result<Self> {
        let config =
            || serde_json::from_value::<GrantConfig>(config.clone()).map_err(Error::internal);
        match kind {
            "oauth" => Ok(Self::OAuth { config: config()?, secret: OAuthSecret::open(secret)? }),
            "google_service_account" => {
                google::ServiceAccount::parse(secret).map(Self::Google).map_err(Error::internal)
            }
            "workload_identity" => Ok(Self::Workload(config()?)),
            other => Err(Error::internal(format!("a credential of the kind {other} has no token"))),
        }
    }

    /// Asks for a token.
    pub(crate) async fn ask(
        &self,
        client: &Client,
        now: DateTime<Utc>,
    ) -> Result<Granted, Refusal> {
        let (url, request) = self.request(client, now).await?;
        let answer = tokio::time::timeout(LIMIT, async {
            let answer = request.send().await?;
            let status = answer.status();
            let body =
                crate::forward::read_to(http::Response::from(answer).into_body(), MAX_ANSWER);
            Ok::<_, reqwest::Error>((status, body.await))
        });
        let host = url.host_str().unwrap_or_default();
        let (status, body) = match answer.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                if let Some(refused) = loom_notify::outbound::Refused::of(&error) {
                    return Err(Refusal::Passing(refused.to_string()));
                }
                tracing::warn!(host, error = %error.without_url(), "a token endpoint cannot be asked");
                return Err(Refusal::Passing(format!("{host} could not be asked for a token")));
            }
            Err(_) => {
                return Err(Refusal::Passing(format!("{host} did not answer within 30 s")));
            }
        };
        let told: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return self.granted(&told, now).ok_or_else(|| {
                Refusal::Passing(format!("{host} sent no token that could be read"))
            });
        }
        // It is stored, shown and mailed, and may repeat what it was asked with.
        let plain = |text: &str| plain(&loom_redact::shared().redact(text));
        let said = |name: &str| told.get(name).and_then(Value::as_str).map(plain);
        // OAuth has the code in `error`; some put an object there, as in all of their errors.
        let error = told.get("error").and_then(Value::as_object);
        let nested = |name: &str| error.and_then(|error| error.get(name)?.as_str()).map(plain);
        let code = said("error").or_else(|| nested("type")).unwrap_or_default();
        let words = said("error_description").or_else(|| nested("message")).unwrap_or_default();
        let reason = format!("{host} answered with {}: {code} {words}", status.as_u16());
        let reason = reason.trim_end_matches([' ', ':']).to_owned();
        let is_final = [
            "invalid_grant",
            "invalid_client",
            "unauthorized_client",
            "unsupported_grant_type",
            "invalid_scope",
        ];
        if status.is_client_error() && is_final.contains(&code.as_str()) {
            Err(Refusal::Final(reason))
        } else {
            Err(Refusal::Passing(reason))
        }
    }

    async fn request(
        &self,
        client: &Client,
        now: DateTime<Utc>,
    ) -> Result<(Url, RequestBuilder), Refusal> {
        let (config, mut body, beta) = match self {
            Self::OAuth { config, secret } => {
                let mut body =
                    json!({"grant_type": "refresh_token", "refresh_token": secret.refresh_token});
                put(&mut body, "client_id", config.client_id.as_deref());
                put(&mut body, "client_secret", secret.client_secret.as_deref());
                put(&mut body, "scope", config.scope.as_deref());
                (config.clone(), body, "oauth-2025-04-20")
            }
            Self::Google(account) => {
                let assertion = account.assertion(now).map_err(Refusal::Passing)?;
                let config = GrantConfig {
                    token_url: Some(account.token_uri.clone()),
                    ..Default::default()
                };
                (config, json!({"grant_type": JWT_BEARER, "assertion": assertion}), "")
            }
            Self::Workload(config) => {
                let file = config.assertion_file.as_deref().unwrap_or_default();
                let assertion = read_assertion(file).await.map_err(Refusal::Passing)?;
                let mut body = json!({"grant_type": JWT_BEARER, "assertion": assertion});
                put(&mut body, "federation_rule_id", config.federation_rule_id.as_deref());
                put(&mut body, "organization_id", config.organization_id.as_deref());
                put(&mut body, "service_account_id", config.service_account_id.as_deref());
                put(&mut body, "workspace_id", config.workspace_id.as_deref());
                (config.clone(), body, "oidc-federation-2026-04-01")
            }
        };
        let url = config.token_url.as_deref().unwrap_or_default();
        let url = token_url(url).map_err(|why| Refusal::Passing(why.to_owned()))?;
        let request = client
            .request(Method::POST, url.clone())
            .map_err(|refused| Refusal::Passing(refused.to_string()))?
            .header("accept", "application/json");
        let request = if config.json {
            request.header("anthropic-beta", beta).json(&body)
        } else {
            let pairs = std::mem::take(&mut body);
            let mut form = Url::parse("x:").map_err(|e| Refusal::Passing(e.to_string()))?;
            for (name, value) in pairs.as_object().into_iter().flatten() {
                form.query_pairs_mut().append_pair(name, value.as_str().unwrap_or_default());
            }
            request
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form.query().unwrap_or_default().to_owned())
        };
        Ok((url, request))
    }

    fn granted(&self, told: &Map<String, Value>, now: DateTime<Utc>) -> Option<Granted> {
        let text = |name: &str| told.get(name)?.as_str().filter(|text| !text.is_empty());
        let access_token =
            text("access_token").filter(|token| text::is_plain_line(token, 16_000))?;
        let life = match told.get("expires_in") {
            // Some send the number as text.
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => {
                value.as_u64().or_else(|| value.as_f64().map(|secs| secs.max(0.0) as u64))
            }
            None => None,
        };
        let life = life.unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE);
        let secret = match (self, text("refresh_token")) {
            (Self::OAuth { secret, .. }, Some(rotated)) if rotated != secret.refresh_token => {
                let rotated = OAuthSecret {
                    refresh_token: rotated.to_owned(),
                    client_secret: secret.client_secret.clone(),
                };
                rotated.seal().ok()
            }
            _ => None,
        };
        let expires_at = now + Duration::from_secs(life);
        Some(Granted { access_token: SecretString::from(access_token), expires_at, secret })
    }
}

fn put(body: &mut Value, name: &str, value: Option<&str>) {
    if let (Some(value), Some(body)) = (value, body.as_object_mut()) {
        body.insert(name.to_owned(), value.into());
    }
}

fn plain(text: &str) -> String {
    let one_line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text::cut(one_line.trim(), 200).to_owned()
}

async fn read_assertion(path: &str) -> Result<String, String> {
    use tokio::io::AsyncReadExt;
    let mut text = String::new();
    let read = async {
        tokio::fs::File::open(path).await?.take(MAX_ASSERTION).read_to_string(&mut text).await
    };
    match read.await {
        Ok(_) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Ok(_) => Err("the assertion file is empty".to_owned()),
        Err(error) => Err(format!("the assertion file cannot be read: {}", error.kind())),
    }
}

/// Where tokens come from: https, or plain http on this machine.
pub(crate) fn token_url(text: &str) -> Result<Url, &'static str> {
    let url: Url = text.parse().map_err(|_| "is no URL")?;
    let is_loopback = match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    };
    let sound = match url.scheme() {
        "https" => url.has_host(),
        "http" => is_loopback,
        _ => false,
    };
    if !sound {
        return Err("is an https URL (http only on this machine)");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds no user and no password");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_over_https_or_from_this_machine() {
        for sound in
            ["https://a.example/t", "http://127.0.0.1:1/t", "http://[::1]/t", "http://localhost/t"]
        {
            assert!(token_url(sound).is_ok(), "{sound}");
        }
        for bad in ["http://a.example/t", "ftp://a.example", "x", "", "https://u:p@a.example/"] {
            assert!(token_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rotated_refresh_token_takes_the_clients_secret_along() {
        let secret = OAuthSecret { refresh_token: "r1".into(), client_secret: Some("c".into()) };
        let grant = Grant::OAuth { config: GrantConfig::default(), secret };
        let now = DateTime::<Utc>::UNIX_EPOCH;
        let told = |value: Value| value.as_object().unwrap().clone();
        let granted = grant
            .granted(
                &told(json!({"access_token": "a", "expires_in": "60", "refresh_token": "r2"})),
                now,
            )
            .unwrap();
        assert_eq!(granted.expires_at, now + Duration::from_secs(60));
        let rotated = OAuthSecret::open(&granted.secret.unwrap()).unwrap();
        assert_eq!(
            (rotated.refresh_token.as_str(), rotated.client_secret.as_deref()),
            ("r2", Some("c"))
        );
        let kept = grant.granted(&told(json!({"access_token": "a"})), now).unwrap();
        assert!(kept.secret.is_none());
        assert_eq!(kept.expires_at, now + Duration::from_secs(DEFAULT_LIFE));
        assert!(grant.granted(&told(json!({"access_token": ""})), now).is_none());
    }
}
