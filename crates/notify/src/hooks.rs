//! Webhooks that a feature holds for an organisation: called one by one, not by what they want to hear.

use loom_common_secret::SecretString;
use loom_core::{
    Error, Result,
    id::{DeliveryId, OrgId, UserId, WebhookId},
};
use reqwest::Url;
use serde_json::Value;
use sqlx::PgConnection;

use crate::{
    DeliveryView, Mail, Notify,
    model::WebhookView,
    queue::origin,
    signature,
    store::{self, webhooks, webhooks::Webhook},
    webhooks::{context, url_context},
};

/// Of one organisation.
const MOST: i64 = 1_000;
const URL_MAX: usize = 2048;
/// Nothing is ever said of this kind, so that nobody but its feature calls it.
const KIND: &str = "direct";

/// A webhook that was made.
pub struct Hook {
    pub id: WebhookId,
    /// Signs what is sent.
    pub secret: SecretString,
}

/// What a webhook is told.
pub enum Call<'a> {
    /// `{type, timestamp, data}`.
    Event(&'a Value),
    /// The body as it is.
    Plain(&'a Value),
}

impl Notify {
    /// Can requests go there?
    ///
    /// # Errors
    /// Why not, in words.
    pub fn check_hook(&self, url: &str) -> Result<(), String> {
        let parsed = url.parse::<Url>().ok().filter(|_| url.len() <= URL_MAX);
        let parsed = parsed.ok_or_else(|| {
            format!("is an http(s) URL of at most {URL_MAX} bytes, as https://example.com/hook")
        })?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err("has no user and no password: what is sent is signed instead".to_owned());
        }
        self.guard.check(&parsed).map_err(|refused| refused.to_string())
    }

    /// Makes one in the caller's transaction. Its URL was checked; it is kept sealed and not shown again, as
    /// with Slack it is all that is needed to write there.
    pub async fn add_hook(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        (name, url): (&str, &str),
        by: Option<UserId>,
    ) -> Result<Hook> {
        let now = self.clock.now();
        let id = WebhookId::new(now);
        let secret = signature::new_secret();
        let view = WebhookView {
            id,
            name: name.to_owned(),
            url: origin(url),
            kinds: vec![KIND.to_owned()],
            enabled: true,
            disabled_reason: None,
            failures: 0,
            created_by: by,
            created_at: now,
            updated_at: now,
        };
        let sealed_secret = self.vault.seal(&context(id), &secret)?;
        let sealed_url = Some(self.vault.seal(&url_context(id), &url.to_owned().into())?);
        let webhook = Webhook { view, sealed_secret, sealed_url };
        if !webhooks::insert(db, Some(org), &webhook, MOST).await? {
            return Err(Error::conflict(
                "too_many_webhooks",
                format!("the organisation has {MOST} webhooks; remove one that is not needed"),
            ));
        }
        Ok(Hook { id, secret })
    }

    /// Seals the URLs of webhooks that were made before that was done.
    pub(crate) async fn seal_hooks(&self) -> Result<()> {
        loop {
            let unsealed = webhooks::unsealed(&self.pool, MOST).await?;
            for hook in &unsealed {
                let sealed = self.vault.seal(&url_context(hook.id), &hook.url.clone().into())?;
                webhooks::seal(&self.pool, hook.id, &origin(&hook.url), &sealed).await?;
            }
            if (unsealed.len() as i64) < MOST {
                return Ok(());
            }
        }
    }

    /// Deletes one in the caller's transaction; what waits for it is given up.
    pub async fn drop_hook(&self, db: &mut PgConnection, org: OrgId, id: WebhookId) -> Result<()> {
        webhooks::delete(db, Some(org), id, self.clock.now()).await.map(|_| ())
    }

    /// Queues a call in the caller's transaction. None: there is no such webhook any more, or it is off.
    pub async fn call_hook(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        id: WebhookId,
        (kind, subject): (&'static str, &str),
        call: Call<'_>,
    ) -> Result<Option<DeliveryId>> {
        let Some(view) = webhooks::find(db, Some(org), id).await?.filter(|view| view.enabled)
        else {
            return Ok(None);
        };
        let to = (id, origin(&view.url));
        let queued = match call {
            Call::Event(data) => {
                self.queue_call(db, Some(org), to, kind, subject, None, data).await?
            }
            Call::Plain(body) => self.queue_body(db, org, to, (kind, subject), body).await?,
        };
        Ok(Some(queued))
    }

    /// Queues a mail of an organisation in the caller's transaction; call [`Notify::wake`] after the commit.
    ///
    /// # Errors
    /// 422 for an address, subject or text that cannot be sent, 429 when too much of the organisation waits or
    /// was sent within the hour: it may go later.
    pub async fn mail_of(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        mail: &Mail,
    ) -> Result<DeliveryId> {
        self.queue_mail(db, mail, None, Some(org)).await
    }

    /// What became of these; those that are forgotten by now are absent.
    pub async fn deliveries(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryView>> {
        store::by_ids(&self.pool, ids).await
    }
}
