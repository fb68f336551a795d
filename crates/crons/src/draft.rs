//! What a monitor may be asked to be: found to be in order, or refused with all that is wrong.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    error::FieldError,
    id::{MonitorId, OrgId, ProjectId},
    text::is_plain_line,
};
use rand::RngExt as _;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    alerts::Alerts,
    model::{DEFAULT_ENVIRONMENT, Monitor},
    mute::MuteWindow,
    schedule::{Plan, Schedule},
};

const MOST_ENVIRONMENTS: usize = 20;
const MOST_TAGS: usize = 20;
const MOST_WINDOWS: usize = 20;
const LONGEST_MINUTES: f64 = 40_320.0;
/// Words of the ping surface, which a slug would be taken for.
const RESERVED: [&str; 3] = ["start", "fail", "log"];

/// A monitor to be made.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct MonitorDraft {
    /// 1 to 100 of a-z, 0-9, `-` and `_`; not `start`, `fail`, `log`, nor digits alone.
    pub(crate) slug: String,
    /// Absent: the slug.
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) schedule: Schedule,
    /// As `Europe/Berlin`.
    #[serde(default = "utc")]
    pub(crate) timezone: String,
    /// 5 when absent.
    pub(crate) checkin_margin_minutes: Option<f64>,
    pub(crate) max_runtime_minutes: Option<f64>,
    pub(crate) min_runtime_minutes: Option<f64>,
    /// So many failures in a row open an incident; 1 when absent.
    pub(crate) failure_threshold: Option<i32>,
    /// So many successes in a row close it; 1 when absent.
    pub(crate) recovery_threshold: Option<i32>,
    /// Where it runs, each judged by itself; `production` when absent.
    #[serde(default)]
    pub(crate) environments: Vec<String>,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// Id, number or slug.
    pub(crate) project_id: Option<String>,
    pub(crate) muted_until: Option<DateTime<Utc>>,
    #[serde(default)]
    pub(crate) mute_windows: Vec<MuteWindow>,
}

pub(crate) fn utc() -> String {
    "UTC".to_owned()
}

/// What is to change; what is absent stays, null takes away.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct MonitorPatch {
    pub(crate) name: Option<String>,
    #[serde(default, deserialize_with = "some")]
    #[schema(value_type = Option<String>)]
    pub(crate) description: Option<Option<String>>,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) timezone: Option<String>,
    pub(crate) checkin_margin_minutes: Option<f64>,
    #[serde(default, deserialize_with = "some")]
    #[schema(value_type = Option<f64>)]
    pub(crate) max_runtime_minutes: Option<Option<f64>>,
    #[serde(default, deserialize_with = "some")]
    #[schema(value_type = Option<f64>)]
    pub(crate) min_runtime_minutes: Option<Option<f64>>,
    pub(crate) failure_threshold: Option<i32>,
    pub(crate) recovery_threshold: Option<i32>,
    /// All that there are to be; those left out are forgotten with what is known of them.
    pub(crate) environments: Option<Vec<String>>,
    pub(crate) tags: Option<Vec<String>>,
    #[serde(default, deserialize_with = "some")]
    #[schema(value_type = Option<String>)]
    pub(crate) project_id: Option<Option<String>>,
    #[serde(default, deserialize_with = "some")]
    #[schema(value_type = Option<DateTime<Utc>>)]
    pub(crate) muted_until: Option<Option<DateTime<Utc>>>,
    pub(crate) mute_windows: Option<Vec<MuteWindow>>,
}

/// Tells what is null from what is absent.
fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// May it be the slug of a monitor?
pub(crate) fn is_slug(slug: &str) -> bool {
    (1..=100).contains(&slug.len())
        && slug.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_".contains(&c))
        && !slug.bytes().all(|c| c.is_ascii_digit())
        && !RESERVED.contains(&slug)
}

pub(crate) fn is_environment(name: &str) -> bool {
    is_plain_line(name, 64) && !name.contains('/')
}

/// Gathers what is wrong.
#[derive(Default)]
struct Check(Vec<FieldError>);

impl Check {
    fn wrong(&mut self, path: &str, message: impl Into<String>) {
        self.0.push(FieldError { path: path.to_owned(), message: message.into() });
    }

    fn secs(&mut self, path: &str, minutes: Option<f64>) -> Option<i32> {
        let minutes = minutes?;
        if !(minutes * 60.0 >= 1.0 && minutes <= LONGEST_MINUTES) {
            self.wrong(path, "is from one second (0.0167) to 40320 minutes");
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 28 days")]
        Some((minutes * 60.0).round() as i32)
    }

    fn texts(&mut self, path: &str, texts: &[String], most: usize, good: fn(&str) -> bool) {
        if texts.len() > most {
            self.wrong(path, format!("are at most {most}"));
        }
        for (index, text) in texts.iter().enumerate().take(most) {
            if !good(text) {
                let path = format!("{path}[{index}]");
                self.wrong(&path, "is one line of 1 to 64 bytes without a slash");
            }
        }
    }

    /// All that any monitor has to be.
    fn monitor(&mut self, monitor: &Monitor) {
        if !is_slug(&monitor.slug) {
            self.wrong(
                "slug",
                "is 1 to 100 of a-z, 0-9, - and _; not digits alone, nor start, fail or log, which are words \
                 of the ping URL",
            );
        }
        if !is_plain_line(&monitor.name, 200) {
            self.wrong("name", "is one line of 1 to 200 bytes");
        }
        if monitor.description.as_ref().is_some_and(|text| text.len() > 4000) {
            self.wrong("description", "is at most 4000 bytes");
        }
        for (path, value) in [
            ("failure_threshold", monitor.failure_threshold),
            ("recovery_threshold", monitor.recovery_threshold),
        ] {
            if !(1..=720).contains(&value) {
                self.wrong(path, "is 1 to 720");
            }
        }
        if let (Some(min), Some(max)) = (monitor.min_runtime_secs, monitor.max_runtime_secs)
            && min >= max
        {
            self.wrong("min_runtime_minutes", "is less than `max_runtime_minutes`");
        }
        self.texts("tags", &monitor.tags, MOST_TAGS, is_environment);
        if monitor.mute_windows.len() > MOST_WINDOWS {
            self.wrong("mute_windows", format!("are at most {MOST_WINDOWS}"));
        }
        for (index, window) in monitor.mute_windows.iter().enumerate().take(MOST_WINDOWS) {
            if let Err(message) = window.check() {
                self.wrong(&format!("mute_windows[{index}]"), message);
            }
        }
        if monitor.muted_until.is_some_and(|at| !loom_core::clock::is_storable(at)) {
            self.wrong("muted_until", "is a time from the year 1970 to 9999");
        }
    }

    fn finish<T>(self, value: T) -> Result<T> {
        if self.0.is_empty() { Ok(value) } else { Err(Error::invalid_fields(self.0)) }
    }
}

/// A random key that can stand in a URL.
pub(crate) fn new_key() -> String {
    const LETTERS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rng = rand::rng();
    (0..22)
        .filter_map(|_| LETTERS.get(rng.random_range(0..LETTERS.len())))
        .map(|byte| char::from(*byte))
        .collect()
}

impl MonitorDraft {
    /// One of which only slug and schedule are known, as jobs make them.
    pub(crate) fn plain(slug: String, schedule: Schedule, margin_minutes: f64) -> Self {
        Self {
            slug,
            name: None,
            description: None,
            schedule,
            timezone: utc(),
            checkin_margin_minutes: Some(margin_minutes),
            max_runtime_minutes: None,
            min_runtime_minutes: None,
            failure_threshold: None,
            recovery_threshold: None,
            environments: Vec::new(),
            tags: Vec::new(),
            project_id: None,
            muted_until: None,
            mute_windows: Vec::new(),
        }
    }

    /// The monitor, and its environments.
    ///
    /// # Errors
    /// 422 with all that is wrong.
    pub(crate) fn check(
        self,
        org: OrgId,
        project: Option<ProjectId>,
        made_by: &str,
        now: DateTime<Utc>,
    ) -> Result<(Monitor, Vec<String>)> {
        let mut check = Check::default();
        let plan = match Plan::of(&self.schedule, &self.timezone, now) {
            Ok(plan) => Some(plan),
            Err((path, message)) => {
                check.wrong(path, message);
                None
            }
        };
        let margin = check.secs("checkin_margin_minutes", self.checkin_margin_minutes);
        let max = check.secs("max_runtime_minutes", self.max_runtime_minutes);
        let min = check.secs("min_runtime_minutes", self.min_runtime_minutes);
        let mut environments = self.environments;
        environments.sort();
        environments.dedup();
        check.texts("environments", &environments, MOST_ENVIRONMENTS, is_environment);
        if environments.is_empty() {
            environments.push(DEFAULT_ENVIRONMENT.to_owned());
        }
        let Some(plan) = plan else { return Err(Error::invalid_fields(check.0)) };
        let monitor = Monitor {
            id: MonitorId::new(now),
            org,
            project,
            name: self.name.unwrap_or_else(|| self.slug.clone()),
            slug: self.slug,
            description: self.description,
            schedule: self.schedule,
            timezone: self.timezone,
            plan,
            margin_secs: margin.unwrap_or(300),
            max_runtime_secs: max,
            min_runtime_secs: min,
            failure_threshold: self.failure_threshold.unwrap_or(1),
            recovery_threshold: self.recovery_threshold.unwrap_or(1),
            tags: self.tags,
            paused_at: None,
            muted_until: self.muted_until,
            mute_windows: self.mute_windows,
            alerts: Alerts { issue: true, ..Alerts::default() },
            ping_key: Uuid::from_u128(rand::random()),
            badge_key: new_key(),
            made_by: made_by.to_owned(),
            created_at: now,
            updated_at: now,
        };
        let monitor = Monitor {
            ping_key: uuid::Builder::from_random_bytes(monitor.ping_key.into_bytes()).into_uuid(),
            ..monitor
        };
        check.monitor(&monitor);
        check.finish((monitor, environments))
    }
}

impl MonitorPatch {
    /// Changes the monitor, and gives the environments that there are to be, if that is said.
    ///
    /// # Errors
    /// 422 with all that is wrong.
    pub(crate) fn apply(
        self,
        monitor: &mut Monitor,
        project: Option<Option<ProjectId>>,
        now: DateTime<Utc>,
    ) -> Result<Option<Vec<String>>> {
        let mut check = Check::default();
        monitor.name = self.name.unwrap_or_else(|| monitor.name.clone());
        if let Some(description) = self.description {
            monitor.description = description;
        }
        if let Some(project) = project {
            monitor.project = project;
        }
        monitor.schedule = self.schedule.unwrap_or_else(|| monitor.schedule.clone());
        monitor.timezone = self.timezone.unwrap_or_else(|| monitor.timezone.clone());
        match Plan::of(&monitor.schedule, &monitor.timezone, now) {
            Ok(plan) => monitor.plan = plan,
            Err((path, message)) => check.wrong(path, message),
        }
        if let Some(secs) = check.secs("checkin_margin_minutes", self.checkin_margin_minutes) {
            monitor.margin_secs = secs;
        }
        if let Some(max) = self.max_runtime_minutes {
            monitor.max_runtime_secs = check.secs("max_runtime_minutes", max);
        }
        if let Some(min) = self.min_runtime_minutes {
            monitor.min_runtime_secs = check.secs("min_runtime_minutes", min);
        }
        monitor.failure_threshold = self.failure_threshold.unwrap_or(monitor.failure_threshold);
        monitor.recovery_threshold = self.recovery_threshold.unwrap_or(monitor.recovery_threshold);
        monitor.tags = self.tags.unwrap_or_else(|| monitor.tags.clone());
        if let Some(until) = self.muted_until {
            monitor.muted_until = until;
        }
        monitor.mute_windows = self.mute_windows.unwrap_or_else(|| monitor.mute_windows.clone());
        monitor.updated_at = now;
        let environments = self.environments.map(|mut names| {
            names.sort();
            names.dedup();
            names
        });
        if let Some(names) = &environments {
            check.texts("environments", names, MOST_ENVIRONMENTS, is_environment);
            if names.is_empty() {
                check.wrong("environments", "are at least one");
            }
        }
        check.monitor(monitor);
        check.finish(environments)
    }
}
