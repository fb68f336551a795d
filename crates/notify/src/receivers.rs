//! Webhooks of an organisation that one thing calls, and that hear of nothing else: the address that an alert
//! of one monitor goes to.

use loom_common_secret::SecretString;
use loom_core::{
    Error, Result,
    id::{OrgId, WebhookId},
};
use serde_json::Value;
use sqlx::PgConnection;

use crate::{
    Notify,
    model::WebhookView,
    queue::origin,
    signature,
    store::webhooks::{self, Webhook},
    webhooks::context,
};

/// Of one organisation.
const MOST: i64 = 1000;
/// Nothing is of this kind: whoever calls a receiver names it.
const NONE: &str = "addressed";

impl Notify {
    /// Makes a receiver in the caller's transaction; gives its secret, which is shown this once.
    ///
    /// # Errors
    /// 422 for a URL that cannot be called, 409 when there are too many.
    pub async fn add_receiver(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        name: &str,
        url: String,
    ) -> Result<(WebhookId, SecretString)> {
        let now = self.clock.now();
        let id = WebhookId::new(now);
        let secret = signature::new_secret();
        let view = WebhookView {
            id,
            name: name.to_owned(),
            url,
            kinds: vec![NONE.to_owned()],
            enabled: true,
            disabled_reason: None,
            failures: 0,
            created_by: None,
            created_at: now,
            updated_at: now,
        };
        self.check(&view)?;
        let webhook = Webhook { view, sealed_secret: self.vault.seal(&context(id), &secret)? };
        if !webhooks::insert(db, Some(org), &webhook, MOST).await? {
            return Err(Error::conflict(
                "too_many_webhooks",
                format!("there are {MOST} webhooks already; take away one that is not needed"),
            ));
        }
        Ok((id, secret))
    }

    /// Queues a call in the caller's transaction; [`Notify::wake`] after the commit. One that is gone or
    /// switched off is not called.
    ///
    /// # Errors
    /// 429 when too much waits already.
    pub async fn call_receiver(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        id: WebhookId,
        kind: &'static str,
        subject: &str,
        data: &Value,
    ) -> Result<()> {
        let Some(view) = webhooks::find(db, Some(org), id).await?.filter(|view| view.enabled)
        else {
            return Ok(());
        };
        let to = (id, origin(&view.url));
        self.queue_call(db, Some(org), to, kind, subject, None, data).await?;
        Ok(())
    }

    /// Takes a receiver away, with what waits for it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_receiver(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        id: WebhookId,
    ) -> Result<()> {
        webhooks::delete(db, Some(org), id, self.clock.now()).await?;
        Ok(())
    }
}
