//! What a webhook has to be, and how one is made and changed.

use loom_common_secret::SecretString;
use loom_core::{
    Error, Principal, Result,
    error::FieldError,
    id::{DeliveryId, WebhookId},
    text,
};
use reqwest::Url;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    Notify,
    caller::Receiver,
    model::WebhookView,
    queue::origin,
    signature,
    store::webhooks::{self, Webhook},
};

/// Of the installation, or of one organisation.
const MOST: i64 = 50;
const MOST_KINDS: usize = 50;
const NAME_MAX: usize = 100;
const URL_MAX: usize = 2048;
const KIND_MAX: usize = 100;
/// What is sent to try one out.
const TEST: &str = "webhook.test";

/// A webhook to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewWebhook {
    /// One line of 1 to 100 bytes.
    name: String,
    /// http or https, without user and password. It must lead to a public address, unless
    /// `LOOM_SERVER_OUTBOUND_ALLOW` says otherwise.
    url: String,
    /// What it is to hear of, as `job.failing`; absent or empty for everything.
    #[serde(default)]
    kinds: Vec<String>,
    #[serde(default = "yes")]
    enabled: bool,
}

fn yes() -> bool {
    true
}

/// What is to change of a webhook.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookChange {
    name: Option<String>,
    url: Option<String>,
    kinds: Option<Vec<String>>,
    /// Switching it on also forgets its failures.
    enabled: Option<bool>,
}

pub(crate) fn context(id: WebhookId) -> String {
    format!("webhooks/{id}")
}

pub(crate) fn url_context(id: WebhookId) -> String {
    format!("webhooks/{id}/url")
}

impl Notify {
    /// Makes one of the installation; gives its secret, which is shown this once.
    pub(crate) async fn add_webhook(
        &self,
        by: &Principal,
        new: NewWebhook,
    ) -> Result<(WebhookView, SecretString)> {
        let now = self.clock.now();
        let id = WebhookId::new(now);
        let secret = signature::new_secret();
        let view = WebhookView {
            id,
            name: new.name,
            url: new.url,
            kinds: new.kinds,
            enabled: new.enabled,
            disabled_reason: None,
            failures: 0,
            created_by: by.user_id(),
            created_at: now,
            updated_at: now,
        };
        self.check(&view)?;
        let sealed_secret = self.vault.seal(&context(id), &secret)?;
        let webhook = Webhook { view, sealed_secret, sealed_url: None };
        if !webhooks::insert(&self.pool, None, &webhook, MOST).await? {
            return Err(Error::conflict(
                "too_many_webhooks",
                format!("there are {MOST} webhooks already; delete one that is not needed"),
            ));
        }
        Ok((webhook.view, secret))
    }

    pub(crate) async fn change_webhook(
        &self,
        id: WebhookId,
        change: WebhookChange,
    ) -> Result<WebhookView> {
        let mut db = loom_db::begin(&self.pool).await?;
        let mut view = webhooks::find(&mut db, None, id).await?.ok_or_else(not_found)?;
        view.name = change.name.unwrap_or(view.name);
        view.url = change.url.unwrap_or(view.url);
        view.kinds = change.kinds.unwrap_or(view.kinds);
        if change.enabled == Some(true) && !view.enabled {
            view.failures = 0;
            view.disabled_reason = None;
        }
        view.enabled = change.enabled.unwrap_or(view.enabled);
        view.updated_at = self.clock.now();
        self.check(&view)?;
        webhooks::update(&mut db, &view).await?;
        db.commit().await?;
        Ok(view)
    }

    pub(crate) async fn delete_webhook(&self, id: WebhookId) -> Result<()> {
        let mut db = loom_db::begin(&self.pool).await?;
        if !webhooks::delete(&mut db, None, id, self.clock.now()).await? {
            return Err(not_found());
        }
        db.commit().await?;
        Ok(())
    }

    /// Queues a call that says nothing.
    pub(crate) async fn test_webhook(&self, id: WebhookId) -> Result<DeliveryId> {
        let mut db = loom_db::begin(&self.pool).await?;
        let view = webhooks::find(&mut db, None, id).await?.ok_or_else(not_found)?;
        if !view.enabled {
            return Err(Error::conflict(
                "webhook_disabled",
                "this webhook is switched off; switch it on first",
            ));
        }
        let data = json!({"text": "This is a test. Somebody asked for it."});
        let to = (id, origin(&view.url));
        let delivery =
            self.queue_call(&mut db, None, to, TEST, "Test of a webhook", None, &data).await?;
        db.commit().await?;
        self.wake();
        Ok(delivery)
    }

    pub(crate) fn receiver(&self, webhook: &Webhook) -> Result<Receiver> {
        let secret = self.vault.unseal(&context(webhook.view.id), &webhook.sealed_secret)?;
        let url = match &webhook.sealed_url {
            Some(sealed) => self.vault.unseal(&url_context(webhook.view.id), sealed)?,
            None => SecretString::from(webhook.view.url.clone()),
        };
        Ok(Receiver { url, secret })
    }

    fn check(&self, view: &WebhookView) -> Result<()> {
        let mut errors = Vec::new();
        let mut wrong = |path: &str, message: String| {
            errors.push(FieldError { path: path.to_owned(), message });
        };
        if !text::is_plain_line(&view.name, NAME_MAX) {
            wrong("name", format!("is one line of 1 to {NAME_MAX} bytes"));
        }
        if let Err(message) = self.check_url(&view.url) {
            wrong("url", message);
        }
        if view.kinds.len() > MOST_KINDS {
            wrong("kinds", format!("are at most {MOST_KINDS}"));
        }
        for (index, kind) in view.kinds.iter().enumerate().take(MOST_KINDS) {
            let is_word =
                |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._".contains(&c);
            if kind.is_empty() || kind.len() > KIND_MAX || !kind.bytes().all(is_word) {
                wrong(
                    &format!("kinds[{index}]"),
                    format!("is 1 to {KIND_MAX} of a-z, 0-9, . and _, as job.failing"),
                );
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::invalid_fields(errors)) }
    }

    fn check_url(&self, url: &str) -> Result<(), String> {
        let parsed = url.parse::<Url>().ok().filter(|_| url.len() <= URL_MAX);
        let parsed = parsed.ok_or_else(|| {
            format!("is an http(s) URL of at most {URL_MAX} bytes, as https://example.com/hook")
        })?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err("has no user and no password: what is sent is signed instead".to_owned());
        }
        self.guard.check(&parsed).map_err(|refused| refused.to_string())
    }
}

fn not_found() -> Error {
    Error::not_found("webhook")
}
