//! Writing down what is to be sent, in the transaction of whoever wants it sent.

use lettre::Address;
use loom_common_secret::SecretString;
use loom_core::{
    Error, Result,
    id::{DeliveryId, OrgId, WebhookId},
    text,
};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::{
    Alert, Channel, Mail, Notify,
    store::{self, NewDelivery},
};

const SUBJECT_MAX: usize = 200;
const TEXT_MAX: usize = 256 * 1024;
const HTML_MAX: usize = 512 * 1024;
const EVENT_MAX: usize = 256 * 1024;
/// An alert is for reading; the rest is where it comes from.
const ALERT_TEXT_MAX: usize = 16 * 1024;
const KEY_MAX: usize = 200;
/// What may wait on one channel.
const WAITING_MAX: i64 = 10_000;
/// Of all organisations together: the rest is for sign-in, invitations and the installation's own alerts.
const ORGS_WAITING_MAX: i64 = 8_000;
/// Of one organisation, so that it does not keep out the others.
const ORG_WAITING_MAX: i64 = 1_000;
/// Mails of one organisation within an hour.
const ORG_MAILS_MAX: i64 = 1_000;

/// What a mail holds beside what the log keeps of it.
#[derive(Serialize, Deserialize)]
pub(crate) struct MailBody {
    pub(crate) text: String,
    pub(crate) html: Option<String>,
}

/// An e-mail address that can be sent to.
pub(crate) fn address(text: &str) -> Option<Address> {
    text.parse().ok().filter(|_| text.len() <= 254)
}

/// What the log says of a webhook: its path may be a secret.
pub(crate) fn origin(url: &str) -> String {
    url.parse::<Url>().map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

impl Notify {
    /// Queues a mail in the caller's transaction; call [`Notify::wake`] after the commit.
    ///
    /// # Errors
    /// 422 for an address, subject or text that cannot be sent, 429 when too much waits already.
    pub async fn mail(&self, db: &mut PgConnection, mail: &Mail) -> Result<()> {
        self.queue_mail(db, mail, None, None).await.map(|_| ())
    }

    pub(crate) async fn queue_mail(
        &self,
        db: &mut PgConnection,
        mail: &Mail,
        key: Option<&str>,
        org: Option<OrgId>,
    ) -> Result<DeliveryId> {
        let address = address(&mail.to)
            .ok_or_else(|| Error::invalid("to", "is an e-mail address, as ada@example.com"))?;
        if !text::is_plain_line(&mail.subject, SUBJECT_MAX) {
            return Err(Error::invalid(
                "subject",
                format!("is one line of 1 to {SUBJECT_MAX} bytes"),
            ));
        }
        let html = mail.html.as_ref().map_or(0, String::len);
        if mail.text.len() > TEXT_MAX || html > HTML_MAX {
            return Err(Error::too_large("the mail is too large to be sent"));
        }
        let body = MailBody { text: mail.text.clone(), html: mail.html.clone() };
        let new = New {
            kind: mail.kind,
            channel: Channel::Mail,
            target: address.to_string(),
            subject: &mail.subject,
            key,
            expires_at: mail.expires_at,
            org,
            webhook: None,
        };
        self.queue(db, new, serde_json::to_string(&body).map_err(Error::internal)?).await
    }

    /// Queues an alert in the caller's transaction, for every admin by mail and for the webhooks of
    /// the installation that want it. Secrets in its texts are masked.
    pub async fn alert(&self, db: &mut PgConnection, alert: &Alert) -> Result<()> {
        let title = one_line(&loom_redact::shared().redact(&alert.title));
        let body = loom_redact::shared().redact(&alert.text);
        let body = text::cut(&body, ALERT_TEXT_MAX);
        let url = format!("{}{}", self.base_url, alert.page);
        let mail_text = format!("{}\n\n{url}\n", body.trim_end());
        let key = text::cut(&alert.key, KEY_MAX);
        let addresses = if self.alert_emails.is_empty() {
            self.admins.admin_addresses().await?
        } else {
            self.alert_emails.clone()
        };
        for to in addresses {
            let mail = Mail {
                kind: alert.kind,
                to,
                subject: title.clone(),
                text: mail_text.clone(),
                html: None,
                expires_at: None,
            };
            if store::is_waiting(db, Channel::Mail, &mail.to, alert.kind, key).await? {
                continue;
            }
            if let Err(error) = self.queue_mail(db, &mail, Some(key), None).await {
                // One admin without a usable address must not keep the others in the dark, nor a full
                // queue undo what the alert is about.
                if error.status().is_server_error() {
                    return Err(error);
                }
                tracing::warn!(kind = alert.kind, %error, "an alert cannot be mailed to an admin");
            }
        }
        let data = json!({"key": key, "title": title, "text": body, "url": url});
        match self.queue_event(db, None, alert.kind, &title, Some(key), &data).await {
            Err(error) if !error.status().is_server_error() => {
                tracing::warn!(kind = alert.kind, %error, "an alert goes to no webhook");
                Ok(())
            }
            queued => queued.map(|_| ()),
        }
    }

    /// Queues an event in the caller's transaction for the webhooks that want it: of an organisation,
    /// or without one of the installation. Gives their number.
    pub async fn webhook(
        &self,
        db: &mut PgConnection,
        org: Option<OrgId>,
        kind: &'static str,
        data: &Value,
    ) -> Result<usize> {
        self.queue_event(db, org, kind, kind, None, data).await
    }

    async fn queue_event(
        &self,
        db: &mut PgConnection,
        org: Option<OrgId>,
        kind: &'static str,
        subject: &str,
        key: Option<&str>,
        data: &Value,
    ) -> Result<usize> {
        let mut queued = 0;
        for webhook in store::webhooks::wanting(db, org, kind).await? {
            let target = origin(&webhook.url);
            if let Some(key) = key
                && store::is_waiting_at(db, webhook.id, kind, key).await?
            {
                continue;
            }
            self.queue_call(db, org, (webhook.id, target), kind, subject, key, data).await?;
            queued += 1;
        }
        Ok(queued)
    }

    #[expect(clippy::too_many_arguments, reason = "one caller that loops and one that does not")]
    pub(crate) async fn queue_call(
        &self,
        db: &mut PgConnection,
        org: Option<OrgId>,
        (webhook, target): (WebhookId, String),
        kind: &'static str,
        subject: &str,
        key: Option<&str>,
        data: &Value,
    ) -> Result<DeliveryId> {
        let timestamp = self.clock.now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let body = json!({"type": kind, "timestamp": timestamp, "data": data}).to_string();
        if body.len() > EVENT_MAX {
            return Err(Error::too_large("the event is too large for a webhook"));
        }
        let new = New {
            kind,
            channel: Channel::Webhook,
            target,
            subject,
            key,
            expires_at: None,
            org,
            webhook: Some(webhook),
        };
        self.queue(db, new, body).await
    }

    /// As [`Self::queue_call`], the body as it is.
    pub(crate) async fn queue_body(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        (webhook, target): (WebhookId, String),
        (kind, subject): (&'static str, &str),
        body: &Value,
    ) -> Result<DeliveryId> {
        let new = New {
            kind,
            channel: Channel::Webhook,
            target,
            subject,
            key: None,
            expires_at: None,
            org: Some(org),
            webhook: Some(webhook),
        };
        self.queue(db, new, body.to_string()).await
    }

    async fn queue(
        &self,
        db: &mut PgConnection,
        new: New<'_>,
        payload: String,
    ) -> Result<DeliveryId> {
        let now = self.clock.now();
        let most = if new.org.is_some() { ORGS_WAITING_MAX } else { WAITING_MAX };
        if store::is_full(db, new.channel, most).await? {
            return Err(Error::overloaded(match new.channel {
                Channel::Mail => "the queue of mail",
                Channel::Webhook => "the queue of webhooks",
            }));
        }
        if let Some(org) = new.org {
            if store::is_full_of(db, org, new.channel, ORG_WAITING_MAX).await? {
                return Err(Error::overloaded(match new.channel {
                    Channel::Mail => "the organisation's queue of mail",
                    Channel::Webhook => "the organisation's queue of webhooks",
                }));
            }
            let hour_ago = now - chrono::TimeDelta::hours(1);
            if new.channel == Channel::Mail
                && store::has_mailed(db, org, hour_ago, ORG_MAILS_MAX).await?
            {
                return Err(Error::overloaded("the organisation's mail of this hour"));
            }
        }
        let id = DeliveryId::new(now);
        let sealed_payload = self.vault.seal(&context(id), &SecretString::from(payload))?;
        store::insert(
            db,
            &NewDelivery {
                id,
                org: new.org,
                kind: new.kind,
                key: new.key,
                channel: new.channel,
                webhook: new.webhook,
                target: &new.target,
                subject: new.subject,
                now,
                expires_at: new.expires_at,
                sealed_payload: &sealed_payload,
            },
        )
        .await?;
        Ok(id)
    }
}

/// A delivery before it is sealed.
struct New<'a> {
    kind: &'static str,
    channel: Channel,
    target: String,
    subject: &'a str,
    key: Option<&'a str>,
    expires_at: Option<chrono::DateTime<chrono::Utc>>,
    org: Option<OrgId>,
    webhook: Option<WebhookId>,
}

/// What a payload is sealed for.
pub(crate) fn context(id: DeliveryId) -> String {
    format!("deliveries/{id}")
}

/// An alert's title comes from anywhere, and must fit a subject.
fn one_line(title: &str) -> String {
    let line: String = title.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = text::cut(line.trim(), SUBJECT_MAX);
    if line.is_empty() { "Alert".to_owned() } else { line.to_owned() }
}
