//! Monitors, what is known of them, and check-ins: as they are kept and as they are shown.

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::{
    clock::{millis, millis_option},
    id::{CheckInId, IncidentId, MonitorId, OrgId, ProjectId},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    alerts::Alerts,
    mute::MuteWindow,
    schedule::{Plan, Schedule},
};

/// Where a run happens when nobody says it.
pub(crate) const DEFAULT_ENVIRONMENT: &str = "production";
/// Nothing was said of how long a run takes: it is given up after a day without a sign.
const UNLIMITED: TimeDelta = TimeDelta::hours(24);

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// What the database holds is one of ours, or of a later version.
            pub(crate) fn of(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

pub(crate) use {CheckInStatus as Status, MonitorHealth as Health};

words! {
    /// What became of a run.
    CheckInStatus {
        InProgress = "in_progress",
        Ok = "ok",
        Error = "error",
        /// It did not begin.
        Missed = "missed",
        /// It took longer than it may.
        Timeout = "timeout",
        /// It could not have been heard of, because this server was down.
        Unknown = "unknown",
        /// Something it said, which is no result.
        Log = "log",
    }
}

words! {
    /// How a monitor does.
    MonitorHealth {
        Unknown = "unknown",
        Healthy = "healthy",
        /// It is past its time, and its margin is not over.
        Late = "late",
        Failing = "failing",
        Missed = "missed",
        Timeout = "timeout",
    }
}

impl Health {
    /// The worst of several environments is the monitor's.
    pub(crate) fn rank(self) -> u8 {
        match self {
            Self::Healthy => 1,
            Self::Unknown => 0,
            Self::Late => 2,
            Self::Timeout => 3,
            Self::Missed => 4,
            Self::Failing => 5,
        }
    }
}

words! {
    /// By which way a check-in came.
    Source { Ping = "ping", Sdk = "sdk", Api = "api", System = "system" }
}

/// A monitor with its schedule worked out; what pings need is at hand.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) id: MonitorId,
    pub(crate) org: OrgId,
    pub(crate) project: Option<ProjectId>,
    pub(crate) slug: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) schedule: Schedule,
    pub(crate) timezone: String,
    pub(crate) plan: Plan,
    pub(crate) margin_secs: i32,
    pub(crate) max_runtime_secs: Option<i32>,
    pub(crate) min_runtime_secs: Option<i32>,
    pub(crate) failure_threshold: i32,
    pub(crate) recovery_threshold: i32,
    pub(crate) tags: Vec<String>,
    pub(crate) paused_at: Option<DateTime<Utc>>,
    pub(crate) muted_until: Option<DateTime<Utc>>,
    pub(crate) mute_windows: Vec<MuteWindow>,
    pub(crate) alerts: Alerts,
    pub(crate) ping_key: Uuid,
    pub(crate) badge_key: String,
    pub(crate) made_by: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

impl Monitor {
    pub(crate) fn margin(&self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.margin_secs))
    }

    /// How long after a sign of it a run is given up.
    pub(crate) fn patience(&self) -> TimeDelta {
        self.max_runtime_secs.map_or(UNLIMITED, |secs| TimeDelta::seconds(i64::from(secs)))
    }

    pub(crate) fn is_muted(&self, now: DateTime<Utc>) -> bool {
        self.muted_until.is_some_and(|until| until > now)
            || self.mute_windows.iter().any(|window| window.holds(now, self.plan.zone()))
    }

    /// Until when a run that is expected then may begin; never while paused.
    pub(crate) fn due(&self, expected: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        expected.filter(|_| self.paused_at.is_none()).map(|at| at + self.margin())
    }
}

/// What is known of a monitor in an environment.
#[derive(Clone, Debug)]
pub(crate) struct EnvironmentState {
    pub(crate) name: String,
    pub(crate) health: Health,
    pub(crate) last_checkin: Option<(CheckInId, DateTime<Utc>, Status)>,
    pub(crate) expected_at: Option<DateTime<Utc>>,
    pub(crate) due_at: Option<DateTime<Utc>>,
    pub(crate) judged_at: Option<DateTime<Utc>>,
    pub(crate) failures: i32,
    pub(crate) successes: i32,
    pub(crate) incident: Option<IncidentId>,
}

impl EnvironmentState {
    pub(crate) fn health_at(&self, now: DateTime<Utc>) -> Health {
        let is_late = self.due_at.is_some() && self.expected_at.is_some_and(|at| at < now);
        match self.health {
            Health::Healthy | Health::Unknown if is_late => Health::Late,
            health => health,
        }
    }
}

/// A monitor as it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MonitorView {
    pub(crate) id: MonitorId,
    pub(crate) slug: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    /// The project that its failures become issues of, and that its check-ins by SDK came to.
    pub(crate) project_id: Option<ProjectId>,
    pub(crate) schedule: Schedule,
    pub(crate) timezone: String,
    /// A run that has not begun so long after its time is missed.
    pub(crate) checkin_margin_minutes: f64,
    /// A run that takes longer has failed; without it, it is given up after 24 hours without a sign.
    pub(crate) max_runtime_minutes: Option<f64>,
    /// A run that succeeds faster has failed.
    pub(crate) min_runtime_minutes: Option<f64>,
    pub(crate) failure_threshold: i32,
    pub(crate) recovery_threshold: i32,
    pub(crate) tags: Vec<String>,
    pub(crate) status: Activity,
    /// Of its environments the worst.
    pub(crate) health: Health,
    /// Alerts wait until then.
    #[serde(serialize_with = "millis_option")]
    pub(crate) muted_until: Option<DateTime<Utc>>,
    pub(crate) mute_windows: Vec<MuteWindow>,
    pub(crate) environments: Vec<EnvironmentView>,
    /// Of its environments the next.
    #[serde(serialize_with = "millis_option")]
    pub(crate) next_expected_at: Option<DateTime<Utc>>,
    pub(crate) last_checkin: Option<LastCheckIn>,
    /// What its job calls; who knows it can check in, and nothing else. Only for `crons:write`.
    pub(crate) ping_url: Option<String>,
    pub(crate) badge_url: String,
    /// `api`, `ping` (by `?create=1`), `sdk` or `internal`.
    pub(crate) made_by: String,
    #[serde(serialize_with = "millis")]
    pub(crate) created_at: DateTime<Utc>,
    #[serde(serialize_with = "millis")]
    pub(crate) updated_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activity {
    Active,
    Paused,
}

/// A monitor in one environment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnvironmentView {
    pub(crate) name: String,
    pub(crate) health: Health,
    #[serde(serialize_with = "millis_option")]
    pub(crate) next_expected_at: Option<DateTime<Utc>>,
    /// Failures in a row.
    pub(crate) consecutive_failures: i32,
    pub(crate) incident_id: Option<IncidentId>,
    pub(crate) last_checkin: Option<LastCheckIn>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct LastCheckIn {
    pub(crate) id: CheckInId,
    pub(crate) status: Status,
    #[serde(serialize_with = "millis")]
    pub(crate) at: DateTime<Utc>,
}

impl EnvironmentState {
    fn view(&self, now: DateTime<Utc>) -> EnvironmentView {
        EnvironmentView {
            name: self.name.clone(),
            health: self.health_at(now),
            next_expected_at: self.expected_at.filter(|_| self.due_at.is_some()),
            consecutive_failures: self.failures,
            incident_id: self.incident,
            last_checkin: self.last_checkin.map(|(id, at, status)| LastCheckIn { id, status, at }),
        }
    }
}

impl Monitor {
    pub(crate) fn view(
        &self,
        states: &[EnvironmentState],
        base_url: &str,
        may_write: bool,
        now: DateTime<Utc>,
    ) -> MonitorView {
        let minutes = |secs: i32| f64::from(secs) / 60.0;
        let environments: Vec<_> = states.iter().map(|state| state.view(now)).collect();
        let newest = environments.iter().filter_map(|e| e.last_checkin.clone());
        MonitorView {
            id: self.id,
            slug: self.slug.clone(),
            name: self.name.clone(),
            description: self.description.clone(),
            project_id: self.project,
            schedule: self.schedule.clone(),
            timezone: self.timezone.clone(),
            checkin_margin_minutes: minutes(self.margin_secs),
            max_runtime_minutes: self.max_runtime_secs.map(minutes),
            min_runtime_minutes: self.min_runtime_secs.map(minutes),
            failure_threshold: self.failure_threshold,
            recovery_threshold: self.recovery_threshold,
            tags: self.tags.clone(),
            status: if self.paused_at.is_some() { Activity::Paused } else { Activity::Active },
            health: environments
                .iter()
                .map(|e| e.health)
                .max_by_key(|health| health.rank())
                .unwrap_or(Health::Unknown),
            muted_until: self.muted_until,
            mute_windows: self.mute_windows.clone(),
            next_expected_at: environments.iter().filter_map(|e| e.next_expected_at).min(),
            last_checkin: newest.max_by_key(|last| last.at),
            environments,
            ping_url: may_write.then(|| format!("{base_url}/ping/{}", self.ping_key)),
            badge_url: format!("{base_url}/api/crons/badge/{}.svg", self.badge_key),
            made_by: self.made_by.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

/// A run as it is shown.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CheckIn {
    pub(crate) id: CheckInId,
    pub(crate) monitor_id: MonitorId,
    pub(crate) environment: String,
    /// The id that its job gave: `rid`, `check_in_id` or `id`.
    pub(crate) run_id: Option<Uuid>,
    pub(crate) status: Status,
    /// Why it is not what its job said: `too_short`, `too_long`, `not_started`, `no_sign`, `server_down`.
    pub(crate) reason: Option<String>,
    pub(crate) source: Source,
    /// When it began as far as that is known; of a missed one when it was expected.
    #[serde(serialize_with = "millis")]
    pub(crate) at: DateTime<Utc>,
    #[serde(serialize_with = "millis_option")]
    pub(crate) expected_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "millis_option")]
    pub(crate) started_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "millis_option")]
    pub(crate) finished_at: Option<DateTime<Utc>>,
    /// When it was first heard of.
    #[serde(serialize_with = "millis")]
    pub(crate) received_at: DateTime<Utc>,
    pub(crate) duration_ms: Option<i64>,
    pub(crate) exit_code: Option<i16>,
    /// What it wrote, cut to the limit, secrets masked. Absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<String>,
    /// Its end came after it was given up.
    pub(crate) late: bool,
    pub(crate) release: Option<String>,
    pub(crate) trace_id: Option<String>,
}

/// A row of `cron_checkins`.
#[derive(sqlx::FromRow)]
#[expect(dead_code, reason = "whose it is stands in the WHERE")]
pub(crate) struct CheckInRow {
    pub(crate) id: Uuid,
    pub(crate) at: DateTime<Utc>,
    pub(crate) org_id: Uuid,
    pub(crate) monitor_id: Uuid,
    pub(crate) environment: String,
    pub(crate) run_key: Option<Uuid>,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) source: String,
    pub(crate) expected_at: Option<DateTime<Utc>>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
    pub(crate) received_at: DateTime<Utc>,
    pub(crate) duration_ms: Option<i64>,
    pub(crate) exit_code: Option<i16>,
    pub(crate) output: Option<String>,
    pub(crate) late: bool,
    pub(crate) release: Option<String>,
    pub(crate) trace_id: Option<String>,
}

impl From<CheckInRow> for CheckIn {
    fn from(row: CheckInRow) -> Self {
        Self {
            id: CheckInId(row.id),
            monitor_id: MonitorId(row.monitor_id),
            environment: row.environment,
            run_id: row.run_key,
            status: Status::of(&row.status).unwrap_or(Status::Unknown),
            reason: row.reason,
            source: Source::of(&row.source).unwrap_or(Source::System),
            at: row.at,
            expected_at: row.expected_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            received_at: row.received_at,
            duration_ms: row.duration_ms,
            exit_code: row.exit_code,
            output: row.output,
            late: row.late,
            release: row.release,
            trace_id: row.trace_id,
        }
    }
}

/// Failures in a row, as they are shown.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Incident {
    pub(crate) id: IncidentId,
    pub(crate) environment: String,
    /// Of the check-in that opened it.
    pub(crate) status: Status,
    pub(crate) reason: Option<String>,
    pub(crate) checkin_id: CheckInId,
    /// The time of the run that failed.
    #[serde(serialize_with = "millis")]
    pub(crate) began_at: DateTime<Utc>,
    #[serde(serialize_with = "millis")]
    pub(crate) opened_at: DateTime<Utc>,
    #[serde(serialize_with = "millis_option")]
    pub(crate) closed_at: Option<DateTime<Utc>>,
    /// When somebody was first told of it.
    #[serde(serialize_with = "millis_option")]
    pub(crate) told_at: Option<DateTime<Utc>>,
}
