//! What is said, and how: by mail, to a webhook, to Slack.

use loom_core::{
    Result,
    id::{DeliveryId, IssueId, OrgId},
    text,
};
use loom_notify::{Call, Mail};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{
    model::{CrashAlertAction, CrashAlertCondition, CrashAlertRule},
    store::Issue,
};
use crate::Crashes;

const SUBJECT: usize = 180;

/// What a rule has to say.
pub(super) struct Said {
    kind: &'static str,
    headline: String,
    facts: Value,
}

impl Said {
    pub(super) fn of_condition(rule: &CrashAlertRule) -> Self {
        let (kind, headline) = match rule.condition {
            CrashAlertCondition::Regression => ("crash.issue.regressed", "Issue is back"),
            _ => ("crash.issue.new", "New issue"),
        };
        Self { kind, headline: headline.to_owned(), facts: json!({}) }
    }

    pub(super) fn frequency(events: i64, minutes: i32) -> Self {
        Self {
            kind: "crash.frequency",
            headline: format!("{events} events in {minutes} min"),
            facts: json!({ "events_in_window": events, "window_minutes": minutes }),
        }
    }

    pub(super) fn share(percent: f64, events: i64, sessions: i64, minutes: i32) -> Self {
        Self {
            kind: "crash.session_share",
            headline: format!("Events are {percent:.1} % of sessions in {minutes} min"),
            facts: json!({
                "percent": percent, "events_in_window": events, "sessions_in_window": sessions,
                "window_minutes": minutes,
            }),
        }
    }

    pub(super) fn surplus(budget: i32) -> Self {
        Self {
            kind: "crash.alerts.held_back",
            headline: format!(
                "More than {budget} alerts in this hour: what follows is only in the log of alerts"
            ),
            facts: json!({ "alerts_per_hour": budget }),
        }
    }

    pub(super) fn test() -> Self {
        Self {
            kind: "crash.test",
            headline: "This is a test of an alert. Somebody asked for it".to_owned(),
            facts: json!({}),
        }
    }

    /// In one line.
    pub(super) fn subject(&self, issue: Option<&Issue>) -> String {
        let line = match issue {
            Some(issue) => format!("[{}] {}: {}", issue.short_id, self.headline, issue.title),
            None => self.headline.clone(),
        };
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        text::cut(line.trim(), SUBJECT).to_owned()
    }
}

impl Crashes {
    /// Queues what is said, in the transaction of whoever says it.
    pub(super) async fn deliver(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        rule: &CrashAlertRule,
        about: Option<&(IssueId, Issue)>,
        said: &Said,
    ) -> Result<Vec<DeliveryId>> {
        let subject = said.subject(about.map(|(_, issue)| issue));
        let notify = &self.deps.notify;
        let mut deliveries = Vec::new();
        for action in &rule.actions {
            let queued = match action {
                CrashAlertAction::Email { users } => {
                    let body = self.mail_text(org, rule, about, said);
                    self.mail(db, org, users, (&subject, &body), &mut deliveries).await
                }
                CrashAlertAction::Webhook { webhook_id, .. } => {
                    let data = self.data(org, rule, about, said);
                    let what = (said.kind, subject.as_str());
                    notify
                        .call_hook(db, org, *webhook_id, what, Call::Event(&data))
                        .await
                        .map(|queued| deliveries.extend(queued))
                }
                CrashAlertAction::Slack { webhook_id, .. } => {
                    let body = self.slack(org, rule, about, said);
                    let what = (said.kind, subject.as_str());
                    notify
                        .call_hook(db, org, *webhook_id, what, Call::Plain(&body))
                        .await
                        .map(|queued| deliveries.extend(queued))
                }
            };
            // A full queue, or an address that cannot be sent to, must not undo the others.
            match queued {
                Err(error) if error.status().is_server_error() => return Err(error),
                Err(error) => {
                    tracing::warn!(rule = %rule.id, %error, "an alert cannot be sent to one of its places");
                }
                Ok(()) => {}
            }
        }
        Ok(deliveries)
    }

    async fn mail(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        users: &[loom_core::id::UserId],
        (subject, body): (&str, &str),
        deliveries: &mut Vec<DeliveryId>,
    ) -> Result<()> {
        for to in self.deps.orgs.member_addresses(org, users).await? {
            let mail = Mail {
                kind: "crash_alert",
                to,
                subject: subject.to_owned(),
                text: body.to_owned(),
                html: None,
                expires_at: None,
            };
            deliveries.push(self.deps.notify.mail_of(db, org, &mail).await?);
        }
        Ok(())
    }

    /// A page of the dashboard.
    fn link(&self, org: OrgId, rule: &CrashAlertRule, about: Option<&(IssueId, Issue)>) -> String {
        let (base, project) = (&self.config.base_url, rule.project_id);
        match about {
            Some((_, issue)) => format!("{base}/crashes/{project}/{}?org={org}", issue.short_id),
            None => format!("{base}/crashes?project={project}&org={org}"),
        }
    }

    fn mail_text(
        &self,
        org: OrgId,
        rule: &CrashAlertRule,
        about: Option<&(IssueId, Issue)>,
        said: &Said,
    ) -> String {
        let mut text = format!("{}.\n\n", said.headline);
        if let Some((_, issue)) = about {
            text.push_str(&format!("{}  {}\n", issue.short_id, issue.title));
            if let Some(culprit) = &issue.culprit {
                text.push_str(&format!("in {culprit}\n"));
            }
            text.push_str(&format!(
                "\nProject: {}\nLevel: {}\nEvents: {}, users: {}\n",
                issue.project, issue.level, issue.events, issue.users
            ));
            if let Some(release) = &issue.release {
                text.push_str(&format!("Release: {release}\n"));
            }
        }
        text.push_str(&format!(
            "\n{}\n\nYou get this by the alert “{}” of the project.\n",
            self.link(org, rule, about),
            rule.name
        ));
        text
    }

    fn data(
        &self,
        org: OrgId,
        rule: &CrashAlertRule,
        about: Option<&(IssueId, Issue)>,
        said: &Said,
    ) -> Value {
        let issue = about.map(|(id, issue)| {
            json!({
                "id": id, "short_id": issue.short_id, "title": issue.title, "culprit": issue.culprit,
                "level": issue.level, "event_count": issue.events, "user_count": issue.users,
                "release": issue.release,
            })
        });
        json!({
            "text": said.subject(about.map(|(_, issue)| issue)),
            "alert": { "id": rule.id, "name": rule.name },
            "project_id": rule.project_id,
            "issue": issue,
            "facts": said.facts,
            "url": self.link(org, rule, about),
        })
    }

    fn slack(
        &self,
        org: OrgId,
        rule: &CrashAlertRule,
        about: Option<&(IssueId, Issue)>,
        said: &Said,
    ) -> Value {
        let subject = said.subject(about.map(|(_, issue)| issue));
        let mut body = format!("*{}*", escaped(&said.headline));
        if let Some((_, issue)) = about {
            let link = self.link(org, rule, about);
            body.push_str(&format!(
                "\n<{link}|{}> {}",
                escaped(&issue.short_id),
                escaped(&issue.title)
            ));
        }
        let small = match about {
            Some((_, issue)) => format!(
                "{} · {} · {} events · {} users",
                escaped(&issue.project),
                issue.level,
                issue.events,
                issue.users
            ),
            None => escaped(&rule.name),
        };
        json!({
            "text": escaped(&subject),
            "blocks": [
                { "type": "section", "text": { "type": "mrkdwn", "text": body } },
                { "type": "context", "elements": [{ "type": "mrkdwn", "text": small }] },
            ],
        })
    }
}

/// What would be a link or a mention.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
