//! API keys, as they are stored and shown.

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use loom_core::{
    Error, Result,
    id::{ApiKeyId, UserId},
    principal::Scope,
};
use serde::{Deserialize, Deserializer, Serialize};

const MOST_NETWORKS: usize = 50;
const NANOS: f64 = 1e9;
/// A thousand million dollars a month.
const MOST_BUDGET: f64 = 1e9;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// Acts as the user who made it.
    Personal,
    /// Acts as the organisation.
    Service,
}

/// An API key, without its secret.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub kind: KeyKind,
    pub name: String,
    /// The first part and the last four characters: `loom_svc_…x9Qz`.
    pub hint: String,
    pub scopes: Vec<Scope>,
    /// The user of a personal key.
    pub user_id: Option<UserId>,
    /// Addresses and networks that it may be used from; empty: from everywhere.
    pub allowed_networks: Vec<String>,
    /// What it may spend on models in a calendar month, in US dollars.
    pub monthly_budget_usd: Option<f64>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub expires_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub last_used_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub struct NewApiKey {
    /// 1 to 100 characters.
    pub name: String,
    pub kind: KeyKind,
    /// What it may do; not more than the credential that makes it.
    pub scopes: Vec<Scope>,
    /// Seconds until it expires, at most a year. Absent: never.
    pub expires_in_secs: Option<u32>,
    /// Addresses and networks that it may be used from, as `203.0.113.7` or `10.0.0.0/8`; at most 50.
    /// Absent or empty: from everywhere.
    #[serde(default)]
    pub allowed_networks: Vec<String>,
    /// What it may spend on models in a calendar month, in US dollars.
    pub monthly_budget_usd: Option<f64>,
}

/// What is to change of a key: what is absent stays, null takes away.
#[derive(Clone, Debug, Default, Deserialize, utoipa::ToSchema)]
pub struct ApiKeyChange {
    pub name: Option<String>,
    /// Seconds from now until it expires, at most a year; null: never.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u32>)]
    pub expires_in_secs: Option<Option<u32>>,
    pub allowed_networks: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<f64>)]
    pub monthly_budget_usd: Option<Option<f64>>,
}

/// Tells null from absent.
fn given<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// A new key with its secret, which is shown this once.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct CreatedApiKey {
    #[serde(flatten)]
    pub key: ApiKey,
    pub secret: String,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ApiKeys {
    pub api_keys: Vec<ApiKey>,
    pub next_cursor: Option<String>,
}

#[derive(Deserialize, utoipa::ToSchema)]
pub struct LeakedToken {
    /// The whole token, as it was found.
    pub token: String,
}

/// As they are stored: in the shortest form, each once.
pub(crate) fn networks(texts: &[String]) -> Result<Vec<String>> {
    if texts.len() > MOST_NETWORKS {
        return Err(Error::invalid("allowed_networks", format!("has at most {MOST_NETWORKS}")));
    }
    let mut networks = Vec::new();
    for (n, text) in texts.iter().enumerate() {
        let network = text.parse::<IpNet>().map(|network| network.trunc());
        let address = || text.parse::<std::net::IpAddr>().map(|ip| IpNet::from(ip.to_canonical()));
        let Ok(network) = network.or_else(|_| address()) else {
            return Err(Error::invalid(
                format!("allowed_networks[{n}]"),
                "is an address or a network, as 203.0.113.7 or 10.0.0.0/8",
            ));
        };
        let network = network.to_string();
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    Ok(networks)
}

#[expect(clippy::cast_possible_truncation, reason = "it was looked at that it fits")]
pub(crate) fn nanousd(usd: f64) -> Result<i64> {
    if (0.0..=MOST_BUDGET).contains(&usd) {
        Ok((usd * NANOS).round() as i64)
    } else {
        Err(Error::invalid("monthly_budget_usd", "is 0 to 1000000000"))
    }
}

#[expect(clippy::cast_precision_loss, reason = "whole cents of all that is storable are exact")]
pub(crate) fn usd(nanousd: i64) -> f64 {
    nanousd as f64 / NANOS
}
