//! The health of sending mail: does the mail server answer, and is anything left lying?

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::{
    Error,
    health::{Check, Component, Status},
    id::DeliveryId,
    telemetry::Metric,
};
use tokio::time::timeout;

use crate::{Channel, Notify, mailer::chain, outcome::Fate, queue::MailBody, store};

/// The metrics of this crate.
pub const METRICS: &[Metric] = &[
    Metric::counter(
        "loom_deliveries_total",
        "Attempts to send a mail or call a webhook, by what became of them.",
        &["channel", "outcome"],
    ),
    Metric::gauge(
        "loom_deliveries_pending",
        "Mails and calls that wait to be sent, over all servers.",
        &["channel"],
    ),
];

/// A mail server is not asked more often.
const KEPT: TimeDelta = TimeDelta::seconds(30);
/// So long a health check waits for the mail server; after it, the answer before counts.
const PATIENCE: Duration = Duration::from_millis(300);
const PROBE_LIMIT: Duration = Duration::from_secs(15);
/// For somebody who waits for the answer.
const ASKED: Duration = Duration::from_secs(10);
/// A database that hangs is told as such, below the limit of the whole check.
const DATABASE_WITHIN: Duration = Duration::from_millis(900);
/// What is due is begun at once; after this long nobody does.
const LEFT_LYING: TimeDelta = TimeDelta::minutes(5);

/// What the mail server last said.
#[derive(Default)]
pub(crate) struct Probe {
    last: Mutex<Option<(DateTime<Utc>, bool)>>,
    /// Held while it is asked.
    asking: tokio::sync::Mutex<()>,
}

impl Probe {
    fn last(&self) -> Option<(DateTime<Utc>, bool)> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at: DateTime<Utc>, answers: bool) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, answers));
    }
}

impl Notify {
    /// The check `smtp`: asks the mail server at most twice a minute, and the database once.
    pub fn health(&self) -> Check {
        let notify = self.clone();
        let probe = move || {
            let notify = notify.clone();
            async move { notify.component().await }
        };
        Check::new("smtp", probe)
    }

    async fn component(&self) -> Component {
        let component = if self.mailer.has_smtp() {
            match self.mail_server_answers().await {
                Some(true) => Component::new(Status::Healthy),
                Some(false) => Component::new(Status::Degraded)
                    .error("the mail server does not answer as it should; the log says how")
                    .code(
                        "SMTP_FAILING",
                        "Look for `mail server` in the log: it has what the server said. Check the \
                         LOOM_SERVER_SMTP_* settings; POST /api/admin/mail/test tries the whole way.",
                    ),
                None => Component::new(Status::Degraded)
                    .error("the mail server has not answered yet")
                    .code("SMTP_SILENT", "Is LOOM_SERVER_SMTP_HOST reachable from this server?"),
            }
        } else if self.production {
            Component::new(Status::Disabled)
                .error("no mail server is configured: mail goes to the outbox only")
                .code(
                    "SMTP_UNCONFIGURED",
                    "Set LOOM_SERVER_SMTP_HOST; without it nobody gets invitations, sign-in links or alerts.",
                )
        } else {
            Component::new(Status::Disabled)
        };
        self.with_queue(component).await
    }

    async fn with_queue(&self, mut component: Component) -> Component {
        let read = timeout(DATABASE_WITHIN, store::queues(&self.pool)).await;
        let queues = match read.unwrap_or_else(|_| Err(Error::unavailable("it does not answer"))) {
            Ok(queues) => queues,
            Err(error) => {
                tracing::warn!(?error, "the health of deliveries cannot be read");
                component.status = Status::Degraded;
                return component
                    .error("the database does not say what waits to be sent")
                    .code("DELIVERIES_UNKNOWN", "See `database`; the log has the error.");
            }
        };
        let now = self.clock.now();
        let oldest = queues.iter().map(|queue| queue.oldest).min();
        let overdue = queues.iter().any(|queue| queue.due_at + LEFT_LYING < now);
        for channel in Channel::ALL {
            let queue = queues.iter().find(|queue| queue.channel == channel);
            let name = match channel {
                Channel::Mail => "mails_pending",
                Channel::Webhook => "webhooks_pending",
            };
            component = component.with(name, queue.map_or(0, |queue| queue.waiting));
        }
        let age = oldest.map(|oldest| (now - oldest).num_seconds().max(0));
        component = component.with("oldest_pending_secs", age);
        if overdue && component.error.is_none() {
            component.status = Status::Degraded;
            component = component.error("what is to be sent is left lying").code(
                "DELIVERIES_LEFT_LYING",
                "Something was due over five minutes ago and no server sends it: restart one, and look \
                 for `deliveries` in the log.",
            );
        }
        component
    }

    /// Connects to the mail server and signs in, now; None where there is none. Nothing is sent.
    ///
    /// # Errors
    /// What it said, or why it cannot be reached.
    pub async fn ask_now(&self) -> Option<Result<(), String>> {
        if !self.mailer.has_smtp() {
            return None;
        }
        Some(match timeout(ASKED, self.mailer.probe()).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err("it ended the connection".to_owned()),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("no answer within {} s", ASKED.as_secs())),
        })
    }

    /// Sends a test mail at once, past the queue, so that it works without a database.
    ///
    /// # Errors
    /// What the mail server said.
    pub async fn send_test_mail(&self, to: &str) -> Result<(), String> {
        let now = self.clock.now();
        let mail = store::Claimed {
            id: DeliveryId::new(now),
            kind: "test".to_owned(),
            channel: Channel::Mail,
            webhook_id: None,
            target: to.to_owned(),
            subject: "Test mail of Loom".to_owned(),
            attempt: 1,
            expires_at: None,
            sealed_payload: None,
        };
        let text = "This mail was asked for on the command line of the server. It arrived.\n";
        let body = MailBody { text: text.to_owned(), html: None };
        let outcome = self.mailer.send(&mail, body, now).await;
        match outcome.fate {
            Fate::Delivered(_) => Ok(()),
            _ => Err(outcome.error.unwrap_or_else(|| "it was not taken".to_owned())),
        }
    }

    /// None: it has not said anything yet.
    async fn mail_server_answers(&self) -> Option<bool> {
        let young = |(at, answers)| {
            let age = self.clock.now() - at;
            (age >= TimeDelta::zero() && age < KEPT).then_some(answers)
        };
        if let Some(answers) = self.probe.last().and_then(young) {
            return Some(answers);
        }
        let notify = self.clone();
        // Of its own: the one who asks has less time than the mail server.
        let asking = tokio::spawn(async move { notify.ask_mail_server().await });
        let _ = timeout(PATIENCE, asking).await;
        self.probe.last().map(|(_, answers)| answers)
    }

    async fn ask_mail_server(&self) {
        let Ok(_asking) = self.probe.asking.try_lock() else { return };
        let answers = match timeout(PROBE_LIMIT, self.mailer.probe()).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => {
                let error = chain(&error);
                tracing::warn!(error = %loom_redact::shared().redact(&error), "the mail server cannot be used");
                false
            }
            Err(_) => {
                tracing::warn!("the mail server does not answer in time");
                false
            }
        };
        self.probe.set(self.clock.now(), answers);
    }
}
