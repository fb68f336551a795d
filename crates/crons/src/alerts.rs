//! Whom to tell that a monitor is not well, and that it is again: written down in the transaction that opens or
//! closes the incident.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use loom_core::{
    Error, Result,
    id::{EventId, IncidentId, WebhookId},
};
use loom_notify::{Call, Mail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use utoipa::ToSchema;

use crate::{
    engine::Engine,
    judge::Turn,
    model::{Monitor, Status},
    store::{self, incidents::Open},
    stream::Told,
    work::Change,
};

const FAILING: &str = "cron.failing";
const RECOVERED: &str = "cron.recovered";
/// A muted incident is looked at again after this.
const MUTED: TimeDelta = TimeDelta::minutes(1);
/// And one whose mail there is no room for.
const NO_ROOM: TimeDelta = TimeDelta::minutes(5);
/// What fails again so soon after it was well is told of when that time is over, if it still lasts.
const FLAPPING: TimeDelta = TimeDelta::minutes(5);
/// Incidents that opened longer ago were none of a monitor that flaps.
const FLAPPED: TimeDelta = TimeDelta::hours(1);

/// How alerts of a monitor go out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Alerts {
    /// Addresses that get a mail.
    #[serde(default)]
    pub(crate) emails: Vec<String>,
    /// Called with a signature.
    #[serde(default)]
    pub(crate) webhook: Option<Receiver>,
    /// An incident becomes an issue of the monitor's project.
    #[serde(default)]
    pub(crate) issue: bool,
    /// Told again after so long while it lasts.
    #[serde(default)]
    pub(crate) reminder_minutes: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Receiver {
    pub(crate) id: WebhookId,
    pub(crate) url: String,
}

fn shown(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn what(status: Status, reason: Option<&str>) -> &'static str {
    match (status, reason) {
        (Status::Missed, _) => "did not run",
        (Status::Timeout, _) => "ran too long",
        (_, Some("too_short")) => "ended too soon",
        _ => "failed",
    }
}

/// A line that may be a subject.
fn line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    loom_core::text::cut(text.trim(), 200).to_owned()
}

impl Engine {
    /// Records that an incident opened or closed, and tells whoever is to be told.
    pub(crate) async fn turned(
        &self,
        db: &mut PgConnection,
        change: &Change,
        now: DateTime<Utc>,
    ) -> Result<Told> {
        let monitor = &change.monitor;
        match change.turn {
            Turn::Opened(id) => {
                let wants_issue = monitor.alerts.issue && monitor.project.is_some();
                let event = wants_issue.then(|| EventId::new(now));
                store::incidents::open(db, id, change, now, event).await?;
                let open = Open {
                    id,
                    monitor: monitor.id,
                    environment: change.place.1.clone(),
                    status: change.status,
                    reason: change.reason.map(str::to_owned),
                    checkin: change.checkin,
                    began_at: change.at,
                    opened_at: now,
                    told: 0,
                };
                let org = monitor.org;
                let well_since =
                    store::incidents::recovered_at(db, org, &change.place, now - FLAPPED).await?;
                match well_since.map(|at| at + FLAPPING).filter(|until| *until > now) {
                    Some(until) => store::incidents::tell_later(db, id, Some(until)).await?,
                    None => self.tell(db, monitor, &open, now).await?,
                }
                metrics::counter!("loom_cron_incidents_total").increment(1);
                Ok(Told::turned(change, "monitor.failing", id))
            }
            Turn::Closed(id) => {
                if let Some(open) = store::incidents::close(db, id, now).await?
                    && open.told > 0
                {
                    self.tell_recovery(db, monitor, &open, now).await?;
                }
                Ok(Told::turned(change, "monitor.recovered", id))
            }
        }
    }

    /// Tells of an incident that is open, unless it is muted, and says when to look again.
    pub(crate) async fn tell(
        &self,
        db: &mut PgConnection,
        monitor: &Monitor,
        open: &Open,
        now: DateTime<Utc>,
    ) -> Result<()> {
        if monitor.paused_at.is_some() {
            return store::incidents::tell_later(db, open.id, None).await;
        }
        if monitor.is_muted(now) {
            return store::incidents::tell_later(db, open.id, Some(now + MUTED)).await;
        }
        let what = what(open.status, open.reason.as_deref());
        let place = format!("{} ({})", monitor.name, open.environment);
        let again = if open.told > 0 { "still: " } else { "" };
        let subject = format!("{again}{place} {what}");
        let text = format!(
            "The monitored job {slug} in {environment} {what}.\n\n\
             Expected or begun at {at}; noticed at {noticed}.\n\n\
             {url}\n\nYou will hear of it again when it has recovered.\n",
            slug = monitor.slug,
            environment = open.environment,
            at = shown(open.began_at),
            noticed = shown(open.opened_at),
            url = self.link(monitor),
        );
        let data = data(monitor, open, None);
        if !self.send(db, monitor, FAILING, &line(&subject), &text, &data, open.told == 0).await? {
            let later = Some(now + NO_ROOM);
            // Programs were told; the mail comes when there is room, as of what is still so.
            return match &monitor.alerts.webhook {
                Some(_) if open.told == 0 => store::incidents::told(db, open.id, now, later).await,
                _ => store::incidents::tell_later(db, open.id, later).await,
            };
        }
        let again =
            monitor.alerts.reminder_minutes.map(|minutes| TimeDelta::minutes(minutes.into()));
        store::incidents::told(db, open.id, now, again.map(|after| now + after)).await
    }

    async fn tell_recovery(
        &self,
        db: &mut PgConnection,
        monitor: &Monitor,
        open: &Open,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let subject = format!("{} ({}) is well again", monitor.name, open.environment);
        let text = format!(
            "The monitored job {} in {} runs again. It had not since {}.\n\n{}\n",
            monitor.slug,
            open.environment,
            shown(open.began_at),
            self.link(monitor),
        );
        let data = data(monitor, open, Some(now));
        self.send(db, monitor, RECOVERED, &line(&subject), &text, &data, true).await.map(|_| ())
    }

    /// The page of the dashboard.
    fn link(&self, monitor: &Monitor) -> String {
        format!("{}/crons/{}?org={}", self.base_url, monitor.slug, monitor.org)
    }

    /// By every way that is set. What one of them does not take must not undo what the alert is about. False:
    /// there is no room for its mails; its webhook is called all the same when it has not been yet (`is_first`).
    #[expect(clippy::too_many_arguments, reason = "what is told, and whether it was before")]
    async fn send(
        &self,
        db: &mut PgConnection,
        monitor: &Monitor,
        kind: &'static str,
        subject: &str,
        text: &str,
        data: &Value,
        is_first: bool,
    ) -> Result<bool> {
        let passing = |sent: Result<()>| match sent {
            Err(error) if error.status().is_server_error() => Err(error),
            Err(error) => {
                tracing::warn!(kind, monitor = %monitor.id, %error, "an alert is not sent one of its ways");
                Ok(())
            }
            Ok(()) => Ok(()),
        };
        let addresses = &monitor.alerts.emails;
        let mut has_room = true;
        let mut all = db.begin().await?;
        for to in loom_notify::recipients(self.orgs.as_ref(), monitor.org, addresses).await? {
            let mail = Mail {
                kind,
                to,
                subject: subject.to_owned(),
                text: text.to_owned(),
                html: None,
                expires_at: None,
            };
            match self.notify.mail_of(&mut all, monitor.org, &mail).await {
                // All of them, or none yet: nobody is told twice.
                Err(error)
                    if error.retry_after_secs().is_some() && !error.status().is_server_error() =>
                {
                    tracing::warn!(kind, monitor = %monitor.id, %error, "an alert is mailed later");
                    has_room = false;
                    break;
                }
                queued => passing(queued.map(|_| ()))?,
            }
        }
        if has_room {
            all.commit().await?;
        } else {
            all.rollback().await?;
            if !is_first || monitor.alerts.webhook.is_none() {
                return Ok(false);
            }
        }
        if let Some(receiver) = &monitor.alerts.webhook {
            let what = (kind, subject);
            let call = Call::Event(data);
            let called = self.notify.call_hook(db, monitor.org, receiver.id, what, call).await;
            passing(called.map(|_| ()))?;
        }
        passing(self.notify.webhook(db, Some(monitor.org), kind, data).await.map(|_| ()))?;
        Ok(has_room)
    }

    /// Hands incidents over to the projects that want them as issues. At least once, under one id: the
    /// project counts it once.
    pub(crate) async fn hand_over(&self, now: DateTime<Utc>) -> Result<u64> {
        let mut db = self.pool.acquire().await?;
        let waiting = store::incidents::without_event(&mut db, 100).await?;
        let ids: Vec<_> = waiting.iter().map(|(open, _)| open.monitor.0).collect();
        let monitors = store::monitors::by_ids(&mut db, &ids).await?;
        drop(db);
        let mut done = 0;
        for (open, event) in waiting {
            let monitor = monitors.iter().find(|monitor| monitor.id == open.monitor);
            let sent = match monitor {
                Some(monitor) => self.send_event(monitor, &open, event, now).await,
                None => Ok(()),
            };
            match sent {
                Ok(()) => {
                    let mut db = self.pool.acquire().await?;
                    store::incidents::event_sent(&mut db, open.id, now).await?;
                    done += 1;
                }
                Err(error) => {
                    tracing::warn!(incident = %open.id, ?error, "an incident is no issue yet");
                }
            }
        }
        Ok(done)
    }

    async fn send_event(
        &self,
        monitor: &Monitor,
        open: &Open,
        event: EventId,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let Some(project) = monitor.project else { return Ok(()) };
        let found = self.projects.find(monitor.org, &project.to_string()).await?;
        let Some(project) = found else { return Ok(()) };
        let delivery = loom_core::port::Delivery {
            project,
            key: None,
            received_at: now,
            sent_at: None,
            client: None,
            user_agent: None,
            sdk: Some(concat!("loom.crons/", env!("CARGO_PKG_VERSION")).to_owned()),
        };
        let payload = json!({
            "event_id": event.0.simple().to_string(),
            "timestamp": open.opened_at.timestamp_millis() as f64 / 1000.0,
            "platform": "other",
            "level": "error",
            "logger": "loom.crons",
            "environment": open.environment,
            "message": {"formatted": format!("Cron: {} {}", monitor.slug, what(open.status, open.reason.as_deref()))},
            "fingerprint": ["loom.crons", monitor.id.to_string(), open.environment, open.id.to_string()],
            "tags": {"monitor.slug": monitor.slug, "monitor.id": monitor.id.to_string(), "incident.id": open.id.to_string()},
            "contexts": {"monitor": {
                "type": "monitor", "slug": monitor.slug, "schedule": monitor.schedule, "timezone": monitor.timezone,
                "check_in_id": open.checkin.to_string(), "expected_at": shown(open.began_at),
            }},
        });
        let payload = serde_json::to_vec(&payload).map_err(Error::internal)?;
        match self.events.event(&delivery, event, payload.into()).await? {
            loom_core::port::Taken::Stored => {}
            loom_core::port::Taken::Rejected(why) => {
                tracing::warn!(incident = %open.id, why, "the project does not take an incident");
            }
        }
        Ok(())
    }
}

fn data(monitor: &Monitor, open: &Open, closed_at: Option<DateTime<Utc>>) -> Value {
    json!({
        "incident_id": open.id,
        "monitor": {"id": monitor.id, "slug": monitor.slug, "name": monitor.name},
        "environment": open.environment,
        "status": open.status,
        "reason": open.reason,
        "checkin_id": open.checkin,
        "began_at": shown(open.began_at),
        "opened_at": shown(open.opened_at),
        "closed_at": closed_at.map(shown),
        "reminder": open.told,
    })
}

impl Told {
    fn turned(change: &Change, event: &'static str, incident: IncidentId) -> Self {
        Self::about(
            change.monitor.org,
            event,
            json!({
                "monitor": change.monitor.slug, "environment": change.place.1, "status": change.status,
                "incident_id": incident, "checkin_id": change.checkin,
            }),
        )
    }
}
