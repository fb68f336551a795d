//! Check-ins from SDKs, and from our own scheduler.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::INTERNAL_ORG,
    port::{BoxFuture, CheckInSink, Delivery, OwnRun, Taken},
    text::cut,
};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Crons,
    draft::{MonitorDraft, is_environment, is_slug, utc},
    model::{DEFAULT_ENVIRONMENT, Monitor, Source},
    report::{Kind, Report, RunKey, believable},
    schedule::{Schedule, Unit},
};

/// What Sentry takes when nothing is said.
const MARGIN_MINUTES: f64 = 1.0;
const MAX_RUNTIME_MINUTES: f64 = 30.0;

/// How often a check-in looks again for the monitor that one beside it may be making, and the pause between.
const BESIDE: usize = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// A `check_in` item, as far as it is ours; SDKs add more.
#[derive(Deserialize)]
struct Payload {
    check_in_id: Option<String>,
    monitor_slug: String,
    status: String,
    duration: Option<f64>,
    release: Option<String>,
    environment: Option<String>,
    timestamp: Option<Value>,
    contexts: Option<Value>,
    monitor_config: Option<MonitorConfig>,
}

#[derive(Deserialize)]
struct MonitorConfig {
    schedule: Option<ConfigSchedule>,
    checkin_margin: Option<f64>,
    max_runtime: Option<f64>,
    timezone: Option<String>,
    failure_issue_threshold: Option<i32>,
    recovery_threshold: Option<i32>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ConfigSchedule {
    Crontab { value: String },
    Interval { value: u32, unit: Unit },
}

impl CheckInSink for Crons {
    fn check_in<'a>(
        &'a self,
        delivery: &'a Delivery,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(async move {
            match self.take_item(delivery, &payload).await {
                // What is wrong with it stays wrong.
                Err(error)
                    if error.status().is_client_error() && error.retry_after_secs().is_none() =>
                {
                    Ok(Taken::Rejected(error.detail().to_owned()))
                }
                taken => taken,
            }
        })
    }

    fn own_run(&self, run: OwnRun) {
        self.own.put(run);
    }
}

impl Crons {
    async fn take_item(&self, delivery: &Delivery, payload: &Bytes) -> Result<Taken> {
        let rejected = |why: &str| Ok(Taken::Rejected(why.to_owned()));
        if loom_core::extract::has_nul_escape(payload) {
            return rejected("the check-in holds a NUL character");
        }
        let item: Payload = match serde_json::from_slice(payload) {
            Ok(item) => item,
            Err(error) => {
                return rejected(&format!("the check-in is not as it should be: {error}"));
            }
        };
        let Some(slug) = slug_of(&item.monitor_slug) else {
            return rejected("`monitor_slug` is no slug");
        };
        let kind = match item.status.as_str() {
            "in_progress" => Kind::Start,
            "ok" => Kind::End { ok: true },
            "error" => Kind::End { ok: false },
            _ => return rejected("`status` is in_progress, ok or error"),
        };
        let key = match item.check_in_id.as_deref().map(str::parse::<Uuid>) {
            None => RunKey::Newest(true),
            Some(Ok(id)) if id.is_nil() => RunKey::Newest(true),
            Some(Ok(id)) => RunKey::Given(id),
            Some(Err(_)) => return rejected("`check_in_id` is no UUID"),
        };
        let mut found = self.monitor_of(delivery, &slug, item.monitor_config).await?;
        // Its start, which makes the monitor, may be in a request beside this one.
        for _ in 0..BESIDE {
            if found.is_some() || matches!(kind, Kind::Start) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            found = self.monitor_of(delivery, &slug, None).await?;
        }
        let Some(monitor) = found else {
            return rejected(
                "there is no such monitor, and the check-in does not say what it should be",
            );
        };
        let environment = item
            .environment
            .filter(|name| is_environment(name))
            .unwrap_or_else(|| DEFAULT_ENVIRONMENT.to_owned());
        let received_at = delivery.received_at;
        let said = item.timestamp.as_ref().and_then(time_of).map(|at| delivery.by_our_clock(at));
        let at = said.and_then(|at| believable(at, received_at).ok()).unwrap_or(received_at);
        #[expect(clippy::cast_possible_truncation, reason = "at most a year")]
        let duration_ms = item
            .duration
            .filter(|secs| (0.0..=31_622_400.0).contains(secs))
            .map(|secs| (secs * 1000.0).round() as i64);
        let mut report = Report::new(
            monitor,
            environment,
            (key, kind),
            at,
            duration_ms,
            received_at,
            Source::Sdk,
        );
        report.release = item.release.map(|release| cut(&release, 250).to_owned());
        report.trace_id = item
            .contexts
            .as_ref()
            .and_then(|contexts| contexts.pointer("/trace/trace_id")?.as_str())
            .filter(|id| id.len() == 32 && id.bytes().all(|c| c.is_ascii_hexdigit()))
            .map(str::to_ascii_lowercase);
        self.submit(report).await?;
        Ok(Taken::Stored)
    }

    /// The monitor, made or changed to what the item says it is.
    async fn monitor_of(
        &self,
        delivery: &Delivery,
        slug: &str,
        config: Option<MonitorConfig>,
    ) -> Result<Option<Arc<Monitor>>> {
        let org = delivery.project.org;
        let known = self.engine.by_slug(org, slug).await?;
        // The key in a DSN is public: it speaks for its own project, and never of our own jobs.
        let is_foreign = |monitor: &Arc<Monitor>| {
            monitor.project.is_some_and(|project| project != delivery.project.id)
        };
        if org == INTERNAL_ORG || known.as_ref().is_some_and(is_foreign) {
            return Ok(None);
        }
        let Some(MonitorConfig { schedule: Some(schedule), timezone, .. }) = &config else {
            return Ok(known);
        };
        let schedule = match schedule {
            ConfigSchedule::Crontab { value } => Schedule::Crontab { expression: value.clone() },
            ConfigSchedule::Interval { value, unit } => {
                Schedule::Interval { value: *value, unit: *unit }
            }
        };
        let config_of = config.as_ref();
        let minutes = |minutes: Option<f64>, default| {
            Some(minutes.filter(|minutes| *minutes > 0.0).unwrap_or(default))
        };
        let draft = MonitorDraft {
            timezone: timezone.clone().filter(|zone| !zone.is_empty()).unwrap_or_else(utc),
            max_runtime_minutes: minutes(
                config_of.and_then(|c| c.max_runtime),
                MAX_RUNTIME_MINUTES,
            ),
            failure_threshold: config_of.and_then(|c| c.failure_issue_threshold),
            recovery_threshold: config_of.and_then(|c| c.recovery_threshold),
            checkin_margin_minutes: minutes(
                config_of.and_then(|c| c.checkin_margin),
                MARGIN_MINUTES,
            ),
            ..MonitorDraft::plain(slug.to_owned(), schedule, MARGIN_MINUTES)
        };
        let project = Some(delivery.project.id);
        match draft.check(org, project, "sdk", delivery.received_at) {
            Ok((wanted, _)) => Ok(Some(self.upsert(wanted).await?.0)),
            // The check-in counts all the same when the monitor is there.
            Err(error) => known.map(Some).ok_or(error),
        }
    }
}

/// As Sentry makes slugs of names.
fn slug_of(name: &str) -> Option<String> {
    let mut slug: String = name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' })
        .collect();
    slug.truncate(100);
    let slug = slug.trim_matches('-').to_owned();
    is_slug(&slug).then_some(slug)
}

/// RFC 3339, or seconds since 1970.
fn time_of(value: &Value) -> Option<DateTime<Utc>> {
    if let Some(secs) = value.as_f64() {
        #[expect(clippy::cast_possible_truncation, reason = "what is too large is no time")]
        return DateTime::from_timestamp_millis((secs * 1000.0) as i64);
    }
    DateTime::parse_from_rfc3339(value.as_str()?).ok().map(|at| at.to_utc())
}
