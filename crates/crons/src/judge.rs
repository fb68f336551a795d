//! What a run makes of its monitor: failures and successes in a row, and the incident that they open and close.
//! No database, no clock.

use chrono::{DateTime, Utc};
use loom_core::id::IncidentId;

use crate::model::{EnvironmentState, Health, Monitor, Status};

/// What an outcome changed beyond the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Opened(IncidentId),
    Closed(IncidentId),
}

/// A run that began then: the next is waited for. One that is older than what is known changes nothing.
pub(crate) fn began(state: &mut EnvironmentState, monitor: &Monitor, at: DateTime<Utc>) {
    let expected = monitor.plan.expected_after(at);
    if expected > state.expected_at {
        state.expected_at = expected;
        state.due_at = monitor.due(expected);
    }
}

/// A run that ended then, in `ok`, `error`, `missed` or `timeout`.
pub(crate) fn ended(
    state: &mut EnvironmentState,
    monitor: &Monitor,
    status: Status,
    at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Option<Turn> {
    if matches!(status, Status::InProgress | Status::Unknown | Status::Log) {
        return None;
    }
    // Newer ones win, in whichever order they come.
    if monitor.paused_at.is_some() || state.judged_at.is_some_and(|judged| judged > at) {
        return None;
    }
    state.judged_at = Some(at);
    let failed = match status {
        Status::Ok => {
            state.successes = state.successes.saturating_add(1);
            state.failures = 0;
            let Some(incident) = state.incident else {
                state.health = Health::Healthy;
                return None;
            };
            if state.successes < monitor.recovery_threshold {
                return None;
            }
            state.health = Health::Healthy;
            state.incident = None;
            return Some(Turn::Closed(incident));
        }
        Status::Error => Health::Failing,
        Status::Missed => Health::Missed,
        Status::Timeout => Health::Timeout,
        Status::InProgress | Status::Unknown | Status::Log => return None,
    };
    state.health = failed;
    state.failures = state.failures.saturating_add(1);
    state.successes = 0;
    if state.incident.is_some() || state.failures < monitor.failure_threshold {
        return None;
    }
    let incident = IncidentId::new(now);
    state.incident = Some(incident);
    Some(Turn::Opened(incident))
}
