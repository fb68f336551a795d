//! What each organisation wants to be kept; in memory, so that a request asks nobody.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use loom_core::{
    Result,
    error::{Error, FieldError},
    id::OrgId,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use super::store;

/// What the channel's words about settings begin with; an organisation's id follows.
pub(super) const WORD: &str = "settings";
/// Seconds of a week.
const MOST_TTL: u32 = 7 * 24 * 3600;
const MOST_RETENTION: u32 = 365;

/// What is kept of an organisation's requests to models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = LlmSettings)]
pub(crate) struct Settings {
    pub(crate) cache: Cache,
    pub(crate) capture: Capture,
}

/// The same request again, asked with `temperature` 0, gets the same reply without asking a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = LlmCacheSettings)]
pub(crate) struct Cache {
    pub(crate) enabled: bool,
    /// How long a reply serves: 1 to 604800.
    pub(crate) ttl_secs: u32,
}

/// Requests and replies are stored, encrypted, for the admins of the organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = LlmCaptureSettings)]
pub(crate) struct Capture {
    pub(crate) enabled: bool,
    /// How long they are kept: 1 to 365.
    pub(crate) retention_days: u32,
    /// Secrets in them are masked before they are stored.
    pub(crate) redact: bool,
}

impl Default for Cache {
    fn default() -> Self {
        Self { enabled: false, ttl_secs: 3600 }
    }
}

impl Default for Capture {
    fn default() -> Self {
        Self { enabled: false, retention_days: 30, redact: true }
    }
}

/// What is to change; what is absent stays.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = LlmSettingsChange)]
pub(crate) struct Change {
    #[serde(default)]
    cache: CacheChange,
    #[serde(default)]
    capture: CaptureChange,
}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = LlmCacheChange)]
struct CacheChange {
    enabled: Option<bool>,
    ttl_secs: Option<u32>,
}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = LlmCaptureChange)]
struct CaptureChange {
    enabled: Option<bool>,
    retention_days: Option<u32>,
    redact: Option<bool>,
}

impl Settings {
    /// # Errors
    /// 422 that names the fields.
    pub(super) fn changed(self, change: &Change) -> Result<Self> {
        let (cache, capture) = (&change.cache, &change.capture);
        let new = Self {
            cache: Cache {
                enabled: cache.enabled.unwrap_or(self.cache.enabled),
                ttl_secs: cache.ttl_secs.unwrap_or(self.cache.ttl_secs),
            },
            capture: Capture {
                enabled: capture.enabled.unwrap_or(self.capture.enabled),
                retention_days: capture.retention_days.unwrap_or(self.capture.retention_days),
                redact: capture.redact.unwrap_or(self.capture.redact),
            },
        };
        let mut faults = Vec::new();
        let mut within = |path: &str, value: u32, most: u32| {
            if value == 0 || value > most {
                faults.push(FieldError {
                    path: path.to_owned(),
                    message: format!("must be from 1 to {most}"),
                });
            }
        };
        within("cache.ttl_secs", new.cache.ttl_secs, MOST_TTL);
        within("capture.retention_days", new.capture.retention_days, MOST_RETENTION);
        if faults.is_empty() { Ok(new) } else { Err(Error::invalid_fields(faults)) }
    }

    pub(super) fn keeps_nothing(&self) -> bool {
        !self.cache.enabled && !self.capture.enabled
    }
}

/// The settings of the organisations that keep something.
#[derive(Default)]
pub(super) struct Known {
    all: ArcSwap<HashMap<OrgId, Settings>>,
    /// Two who read one after the other must not store the older last.
    reading: tokio::sync::Mutex<()>,
}

impl Known {
    pub(super) fn of(&self, org: OrgId) -> Settings {
        self.all.load().get(&org).copied().unwrap_or_default()
    }

    pub(super) async fn read(&self, pool: &PgPool) -> Result<()> {
        let _turn = self.reading.lock().await;
        let all = store::all_settings(pool).await?;
        self.all.store(Arc::new(all.into_iter().collect()));
        Ok(())
    }
}
