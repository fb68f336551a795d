//! Telling who wants to know when a release does badly: once when it begins, once when it is over, however
//! many servers look.

use std::collections::HashMap;

use chrono::TimeDelta;
use loom_core::{Result, port::Project};
use loom_jobs::{JobContext, JobError, JobReport};
use loom_notify::{Call, Mail};
use metrics::counter;
use serde_json::json;

use crate::{
    Sessions,
    feed::{Told, What},
    session::{SLOT, slot},
    statistics::{confidence_worse, crash_free, wilson},
    store::{
        alerts::{self, Alert, Kind},
        read::{self, Counts, Filter, Which},
    },
    users::Users,
};

/// What webhooks hear.
pub(crate) const EVENT: &str = "app_session.alert";
const BATCH: i64 = 500;
/// Releases before a release that are looked at for one to compare with.
const LOOKED_BACK: i64 = 10;

/// What a rule found out about a release.
struct Finding {
    release: String,
    is_bad: bool,
    value: f64,
    text: String,
}

pub(crate) async fn run(sessions: Sessions, context: JobContext) -> Result<JobReport, JobError> {
    let mut after = None;
    let mut items_handled = 0;
    loop {
        let rules = alerts::list(&sessions.deps.pool, None, after, BATCH).await?;
        let is_last = (rules.len() as i64) < BATCH;
        after = rules.last().map(|rule| (rule.created_at, rule.id));
        for rule in rules {
            if context.cancel.is_cancelled() {
                return Ok(JobReport { items_handled });
            }
            let project = rule.project_id.to_string();
            let Some(project) = sessions.deps.projects.find(rule.org_id, &project).await? else {
                continue;
            };
            sessions.judge(&rule, &project).await?;
            items_handled += 1;
        }
        if is_last {
            return Ok(JobReport { items_handled });
        }
    }
}

impl Sessions {
    async fn judge(&self, rule: &Alert, project: &Project) -> Result<()> {
        let now = self.now();
        let from = slot(now - TimeDelta::minutes(rule.window_minutes.into()));
        let filter = Filter {
            org: project.org,
            project: project.id,
            // The release before is looked at, too.
            release: rule.release.as_deref().filter(|_| rule.kind != Kind::Regression),
            environment: rule.environment.as_deref(),
        };
        let to = slot(now) + SLOT;
        let rows = read::by_release(&self.deps.pool, filter, from, to).await?;
        let counts: HashMap<String, Counts> = rows.into_iter().collect();
        let mut db = self.deps.pool.acquire().await?;
        let firing = alerts::firing(&mut db, rule.id).await?;
        drop(db);
        for told in firing {
            // A release that nobody uses any more is not bad and not good.
            if counts.get(&told.release).is_none_or(|counts| counts.total() == 0) {
                let mut tx = loom_db::begin(&self.deps.pool).await?;
                alerts::end(&mut tx, rule, &told.release).await?;
                tx.commit().await?;
            }
        }
        for (release, counted) in &counts {
            let is_of_rule = rule.release.as_ref().is_none_or(|only| only == release);
            if !is_of_rule || counted.total() < i64::from(rule.min_sessions) {
                continue;
            }
            let finding = match rule.kind {
                Kind::CrashFreeSessions => Some(by_sessions(rule, release, counted)),
                Kind::CrashFreeUsers => {
                    let filter = Filter { release: Some(release), ..filter };
                    self.by_users(rule, filter, release, (from, to)).await?
                }
                Kind::Regression => {
                    self.by_predecessor(rule, filter, release, counted, &counts).await?
                }
            };
            if let Some(finding) = finding {
                self.tell(rule, project, finding).await?;
            }
        }
        Ok(())
    }

    async fn by_users(
        &self,
        rule: &Alert,
        filter: Filter<'_>,
        release: &str,
        span: (chrono::DateTime<chrono::Utc>, chrono::DateTime<chrono::Utc>),
    ) -> Result<Option<Finding>> {
        let (mut all, mut crashed) = (Vec::new(), Vec::new());
        read::sets(&self.deps.pool, filter, span, false, |set| {
            all.extend(set.users);
            crashed.extend(set.crashed_users);
        })
        .await?;
        let (all, crashed) = (Users::exact(all).count(), Users::exact(crashed).count());
        Ok(crash_free(all, crashed).map(|value| Finding {
            release: release.to_owned(),
            is_bad: value < rule.threshold,
            value,
            text: format!(
                "{value:.2} % of {all} users met no crash in the last {} ({crashed} did); the bar is {} %.",
                span_of(rule),
                rule.threshold
            ),
        }))
    }

    async fn by_predecessor(
        &self,
        rule: &Alert,
        filter: Filter<'_>,
        release: &str,
        counted: &Counts,
        counts: &HashMap<String, Counts>,
    ) -> Result<Option<Finding>> {
        let pool = &self.deps.pool;
        let versions = [release.to_owned()];
        let here = read::totals(pool, filter, Which::Versions(&versions)).await?;
        let Some(here) = here.first() else { return Ok(None) };
        let after = (here.first_started, here.release.clone());
        let which = Which::Page { after: Some(&after), limit: LOOKED_BACK };
        let before = read::totals(pool, filter, which).await?;
        // One that hardly anybody had says nothing, and hides nothing: the last that many had.
        let enough = before.iter().find(|one| one.counts.total() >= i64::from(rule.min_sessions));
        let Some(before) = enough.or(before.first()) else { return Ok(None) };
        // Of the same time, if it is still in use; else as a whole.
        let in_window = counts
            .get(&before.release)
            .filter(|counts| counts.total() >= i64::from(rule.min_sessions));
        let (then, when) =
            in_window.map_or((&before.counts, "ever"), |counts| (counts, "in the same time"));
        let Some(sure) = confidence_worse(counted, then) else { return Ok(None) };
        let rate = crash_free(counted.total(), counted.crashed).unwrap_or_default();
        let old_rate = crash_free(then.total(), then.crashed).unwrap_or_default();
        Ok(Some(Finding {
            release: release.to_owned(),
            is_bad: sure >= rule.threshold,
            value: sure,
            text: format!(
                "{rate:.2} % of {} sessions did without a crash in the last {}; of {} before it {old_rate:.2} % \
                 of {} {when}. That it crashes more often is {sure:.2} % sure (one-sided test of two \
                 proportions; {} % is wanted).",
                counted.total(),
                span_of(rule),
                before.release,
                then.total(),
                rule.threshold,
            ),
        }))
    }

    /// The page of the dashboard.
    fn link(&self, rule: &Alert, project: &Project, release: &str) -> String {
        let base = &self.config.base_url;
        let release =
            percent_encoding::utf8_percent_encode(release, percent_encoding::NON_ALPHANUMERIC);
        format!("{base}/releases/{}/{release}?org={}", project.slug, rule.org_id)
    }

    /// Tells what has changed, in the transaction that remembers it.
    async fn tell(&self, rule: &Alert, project: &Project, finding: Finding) -> Result<()> {
        let Finding { release, is_bad, value, text } = finding;
        let mut tx = loom_db::begin(&self.deps.pool).await?;
        let changed = if is_bad {
            alerts::begin(&mut tx, rule, &release, self.now(), value).await?
        } else {
            alerts::end(&mut tx, rule, &release).await?
        };
        if !changed {
            return Ok(());
        }
        let what = if is_bad { "does badly" } else { "is well again" };
        let line = |text: &str| text.replace(char::is_control, " ");
        let subject = line(&format!("{}: release {release} {what} ({})", project.name, rule.name));
        let environment = rule.environment.as_deref().unwrap_or("all");
        let url = self.link(rule, project, &release);
        let body = format!(
            "Release {release} of {} {what}.\n\n{text}\n\nAlert: {} ({})\nEnvironment: {environment}\n\n{url}\n",
            project.name,
            rule.name,
            rule.kind.as_str(),
        );
        let orgs = self.deps.orgs.as_ref();
        for to in loom_notify::recipients(orgs, rule.org_id, &rule.emails).await? {
            let mail = Mail {
                kind: "app_session_alert",
                to,
                subject: loom_core::text::cut(&subject, 200).to_owned(),
                text: body.clone(),
                html: None,
                expires_at: None,
            };
            if let Err(error) = self.deps.notify.mail_of(&mut tx, rule.org_id, &mail).await {
                // One address that cannot be written to keeps nobody else in the dark.
                if error.status().is_server_error() {
                    return Err(error);
                }
                // Nothing is remembered of it: the next look tells when there is room.
                if error.retry_after_secs().is_some() && rule.webhook_id.is_none() {
                    tracing::warn!(alert = %rule.id, %error, "an alert on sessions is told of later");
                    return Ok(());
                }
                tracing::warn!(alert = %rule.id, %error, "an alert on sessions cannot be mailed");
            }
        }
        if let Some(webhook) = rule.webhook_id {
            let data = json!({
                "alert_id": rule.id, "alert": rule.name, "kind": rule.kind.as_str(), "firing": is_bad,
                "project_id": project.id, "project": project.slug, "release": release,
                "environment": rule.environment, "value": value, "threshold": rule.threshold, "text": text,
                "url": url,
            });
            let called = self
                .deps
                .notify
                .call_hook(&mut tx, rule.org_id, webhook, (EVENT, EVENT), Call::Event(&data))
                .await;
            match called {
                Err(error) if error.status().is_server_error() => return Err(error),
                Err(error) => {
                    tracing::warn!(alert = %rule.id, %error, "an alert on sessions goes to no webhook");
                }
                Ok(_) => {}
            }
        }
        tx.commit().await?;
        self.deps.notify.wake();
        counter!("loom_app_session_alerts_total", "kind" => rule.kind.as_str()).increment(1);
        self.feed.say(&Told {
            org: rule.org_id,
            project: project.id,
            what: What::HealthChanged {
                release,
                alert: rule.name.clone(),
                kind: rule.kind.as_str().to_owned(),
                firing: is_bad,
                value,
            },
        });
        Ok(())
    }
}

fn by_sessions(rule: &Alert, release: &str, counts: &Counts) -> Finding {
    let (total, crashed) = (counts.total(), counts.crashed);
    let value = crash_free(total, crashed).unwrap_or_default();
    let interval = wilson(total, crashed)
        .map(|interval| format!("{:.2} to {:.2} %", interval.low, interval.high))
        .unwrap_or_default();
    Finding {
        release: release.to_owned(),
        is_bad: value < rule.threshold,
        value,
        text: format!(
            "{value:.2} % of {total} sessions did without a crash in the last {} ({crashed} crashed; the true \
             rate is {interval} with 95 % confidence); the bar is {} %.",
            span_of(rule),
            rule.threshold
        ),
    }
}

fn span_of(rule: &Alert) -> String {
    match rule.window_minutes {
        60 => "hour".to_owned(),
        1440 => "day".to_owned(),
        minutes if minutes % 1440 == 0 => format!("{} days", minutes / 1440),
        minutes if minutes % 60 == 0 => format!("{} hours", minutes / 60),
        minutes => format!("{minutes} minutes"),
    }
}
