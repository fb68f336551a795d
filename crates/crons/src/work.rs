//! One transaction on some monitors: their state locked and read, changed in memory, and written back in a few
//! statements, however many reports there are.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::{
    Result,
    id::{CheckInId, MonitorId},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    engine::Engine,
    judge::{self, Turn},
    model::{EnvironmentState, Monitor, Source, Status},
    report::{Applied, Kind, Report, RunKey},
    store::{self, sweeps::Gap},
    stream::Told,
};

/// A start that is told again within this, without an id, is a repeat.
const REPEAT: TimeDelta = TimeDelta::seconds(60);

pub(crate) type Place = (MonitorId, String);

/// A row of `cron_runs`.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) key: Uuid,
    pub(crate) given: bool,
    pub(crate) checkin: CheckInId,
    pub(crate) at: DateTime<Utc>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) seen_at: DateTime<Utc>,
    pub(crate) deadline_at: Option<DateTime<Utc>>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    pub(crate) outcome: Option<Status>,
    pub(crate) changed: bool,
}

/// A row of `cron_checkins` to be written; what is none of one that is there stays as it is.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) is_new: bool,
    pub(crate) id: CheckInId,
    pub(crate) at: DateTime<Utc>,
    pub(crate) place: Place,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) run_key: Option<Uuid>,
    pub(crate) status: Status,
    pub(crate) reason: Option<&'static str>,
    pub(crate) source: Source,
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

/// A monitor in an environment, locked.
pub(crate) struct Held {
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) state: EnvironmentState,
    pub(crate) runs: Vec<Run>,
}

/// An incident that opened or closed, and by which run.
pub(crate) struct Change {
    pub(crate) turn: Turn,
    pub(crate) place: Place,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) status: Status,
    pub(crate) reason: Option<&'static str>,
    pub(crate) checkin: CheckInId,
    pub(crate) at: DateTime<Utc>,
}

#[derive(Default)]
pub(crate) struct Work {
    pub(crate) held: HashMap<Place, Held>,
    pub(crate) rows: Vec<Row>,
    by_id: HashMap<CheckInId, usize>,
    /// Where a row that says a run was missed proved wrong: monitor, environment, from, to.
    pub(crate) refuted: Vec<(Place, DateTime<Utc>, DateTime<Utc>)>,
    pub(crate) changes: Vec<Change>,
    pub(crate) told: Vec<Told>,
    /// When no server was there; only what touches a run of a report.
    pub(crate) gaps: Vec<Gap>,
    now: DateTime<Utc>,
}

impl Work {
    pub(crate) fn new(now: DateTime<Utc>) -> Self {
        Self { now, ..Self::default() }
    }

    pub(crate) fn hold(&mut self, monitor: Arc<Monitor>, state: EnvironmentState) {
        let place = (monitor.id, state.name.clone());
        self.held.insert(place, Held { monitor, state, runs: Vec::new() });
    }

    /// Is there an end among these that came after its run's time was over?
    pub(crate) fn is_any_overdue(&self, reports: &[Report]) -> bool {
        reports.iter().any(|report| {
            let held = self.held.get(&(report.monitor.id, report.environment.clone()));
            let passed = |run: &Run| run.deadline_at.is_some_and(|deadline| deadline < report.at);
            held.is_some_and(|held| held.runs.iter().any(passed))
        })
    }

    fn put(&mut self, row: Row) {
        self.told.push(Told::of(&row));
        match self.by_id.get(&row.id).and_then(|index| self.rows.get_mut(*index)) {
            Some(there) => there.take(row),
            None => {
                self.by_id.insert(row.id, self.rows.len());
                self.rows.push(row);
            }
        }
    }

    /// Takes a report into account; one of a monitor that is gone changes nothing.
    pub(crate) fn apply(&mut self, report: &Report) {
        let place = (report.monitor.id, report.environment.clone());
        let Some(held) = self.held.get_mut(&place) else { return };
        let found = held.find(report);
        let (row, is_outcome, is_new) = match found {
            Some(index) => {
                let Some(run) = held.runs.get_mut(index) else { return };
                report.fate.apply(Applied { id: run.checkin });
                let Some((row, is_outcome)) = on_known(run, report, &place, &self.gaps) else {
                    return;
                };
                (row, is_outcome, false)
            }
            None => {
                report.fate.apply(Applied { id: report.new_id });
                (held.on_new(report, &place), true, true)
            }
        };
        if is_new && row.status != Status::Log {
            let early = TimeDelta::seconds(30);
            // Told afterwards, and in time all the same.
            if row.at + held.monitor.margin() < report.received_at {
                self.refuted.push((place.clone(), row.at - held.monitor.margin(), row.at + early));
            }
            judge::began(&mut held.state, &held.monitor, row.at);
        }
        if row.is_new && held.state.last_checkin.is_none_or(|(_, at, _)| at <= row.at)
            || held.state.last_checkin.is_some_and(|(id, ..)| id == row.id)
        {
            held.state.last_checkin = Some((row.id, row.at, row.status));
        }
        if is_outcome {
            self.judge(&place, &row, row.finished_at.unwrap_or(report.at));
        }
        self.put(row);
    }

    /// Counts the outcome of a run.
    pub(crate) fn judge(&mut self, place: &Place, row: &Row, at: DateTime<Utc>) {
        let Some(held) = self.held.get_mut(place) else { return };
        let turn = judge::ended(&mut held.state, &held.monitor, row.status, at, self.now);
        if let Some(turn) = turn {
            self.changes.push(Change {
                turn,
                place: place.clone(),
                monitor: Arc::clone(&held.monitor),
                status: row.status,
                reason: row.reason,
                checkin: row.id,
                at: row.at,
            });
        }
    }

    /// Adds a row of ours, about a run that was not told of.
    pub(crate) fn add(&mut self, row: Row, judged_at: DateTime<Utc>) {
        let place = row.place.clone();
        if let Some(held) = self.held.get_mut(&place)
            && held.state.last_checkin.is_none_or(|(id, at, _)| at <= row.at || id == row.id)
        {
            held.state.last_checkin = Some((row.id, row.at, row.status));
        }
        self.judge(&place, &row, judged_at);
        self.put(row);
    }

    pub(crate) async fn save(self, engine: &Engine, db: &mut PgConnection) -> Result<Vec<Told>> {
        let Self { held, rows, refuted, changes, mut told, now, .. } = self;
        store::checkins::refute(db, &refuted).await?;
        store::checkins::write(db, &rows).await?;
        store::states::write(db, &held).await?;
        for change in changes {
            told.push(engine.turned(db, &change, now).await?);
        }
        Ok(told)
    }
}

impl Held {
    /// The run that a report is about.
    fn find(&self, report: &Report) -> Option<usize> {
        let open = |run: &Run| run.deadline_at.is_some();
        match report.key {
            RunKey::Given(key) => self.runs.iter().position(|run| run.key == key),
            RunKey::Newest(also_given) => {
                let newest = self.runs.iter().enumerate().filter(|(_, run)| {
                    open(run)
                        && (also_given || !run.given)
                        && run.started_at.is_none_or(|started| started <= report.at)
                });
                let (index, run) = newest.max_by_key(|(_, run)| run.at)?;
                // Without an id, a start is of a run of its own, unless it is told twice.
                let repeat = run.started_at.is_some_and(|at| report.at - at <= REPEAT);
                (report.kind != Kind::Start || (repeat && !run.given)).then_some(index)
            }
        }
    }

    /// A run that was not heard of before.
    fn on_new(&mut self, report: &Report, place: &Place) -> Row {
        let began = report.began_at();
        let mut row = Row::of(report, place, began);
        let key = match report.key {
            RunKey::Given(key) => Some(key),
            RunKey::Newest(_) => (report.kind == Kind::Start).then_some(report.new_id.0),
        };
        if report.kind == Kind::Log {
            return row;
        }
        if let Some(key) = key {
            row.run_key = Some(key);
            let is_open = report.kind == Kind::Start;
            self.runs.push(Run {
                key,
                given: matches!(report.key, RunKey::Given(_)),
                checkin: report.new_id,
                at: began,
                started_at: row.started_at,
                seen_at: report.at,
                deadline_at: is_open.then(|| report.at + report.monitor.patience()),
                ended_at: row.finished_at,
                outcome: (!is_open).then_some(row.status),
                changed: true,
            });
        }
        row
    }
}

/// What a report says of a run that is known, and whether that is its outcome; None when it is no news.
fn on_known(run: &mut Run, report: &Report, place: &Place, gaps: &[Gap]) -> Option<(Row, bool)> {
    let monitor = &report.monitor;
    let mut row = Row {
        is_new: false,
        id: run.checkin,
        run_key: Some(run.key),
        ..Row::of(report, place, run.at)
    };
    row.started_at = run.started_at;
    match (report.kind, run.outcome) {
        (Kind::Start | Kind::Log, None) => {
            row.status = Status::InProgress;
            let is_repeat = report.at <= run.seen_at && report.output.is_none();
            if report.at > run.seen_at {
                run.seen_at = report.at;
                run.deadline_at = Some(report.at + monitor.patience());
                run.changed = true;
            }
            // A sign of life alone is in no row.
            (!is_repeat && (report.kind == Kind::Log || report.output.is_some()))
                .then_some((row, false))
        }
        // Its start was overtaken by its end.
        (Kind::Start, Some(status @ (Status::Ok | Status::Error))) => {
            let ended = run.ended_at?;
            if run.started_at.is_some() || report.at > ended {
                return None;
            }
            run.started_at = Some(report.at);
            run.changed = true;
            row.status = status;
            row.started_at = run.started_at;
            row.finished_at = Some(ended);
            row.duration_ms = Some((ended - report.at).num_milliseconds());
            Some((row, false))
        }
        (Kind::Start | Kind::Log, Some(_)) => None,
        (Kind::End { .. }, outcome @ (None | Some(Status::Timeout | Status::Unknown))) => {
            if run.ended_at.is_some() && outcome == Some(Status::Timeout) {
                // It did end, late: that stays a failure, and is told apart from one that never did.
                if run.seen_at >= report.at {
                    return None;
                }
                row.late = true;
            }
            let duration = report
                .duration_ms
                .or_else(|| Some((report.at - run.started_at?).num_milliseconds().max(0)));
            row.duration_ms = duration;
            row.finished_at = Some(report.at);
            (row.status, row.reason) = if row.late {
                (Status::Timeout, Some("too_long"))
            } else {
                let too_late = run.deadline_at.is_some_and(|deadline| {
                    // Its end may have been told to nobody first.
                    let unheard = overlapping(gaps, run.seen_at, deadline)
                        .is_some_and(|gap| report.at <= gap.to + monitor.margin());
                    report.at > deadline && !unheard
                });
                verdict(report, duration, Some(too_late))
            };
            run.seen_at = report.at;
            run.deadline_at = None;
            run.ended_at = Some(report.at);
            run.outcome = Some(row.status);
            run.changed = true;
            let is_outcome = !row.late;
            Some((row, is_outcome))
        }
        // Told twice.
        (Kind::End { .. }, Some(_)) => None,
    }
}

/// The last of these times that has something of another.
pub(crate) fn overlapping(gaps: &[Gap], from: DateTime<Utc>, to: DateTime<Utc>) -> Option<Gap> {
    gaps.iter().rev().find(|gap| gap.from < to && gap.to > from).copied()
}

/// What a run that said it ended has come to. `too_late` is known of one whose start was told.
fn verdict(
    report: &Report,
    duration_ms: Option<i64>,
    too_late: Option<bool>,
) -> (Status, Option<&'static str>) {
    let monitor = &report.monitor;
    let millis = |secs: i32| i64::from(secs) * 1000;
    if !matches!(report.kind, Kind::End { ok: true }) {
        return (Status::Error, None);
    }
    let too_long = too_late.unwrap_or_else(|| {
        let limit = monitor.max_runtime_secs.map(millis);
        limit.zip(duration_ms).is_some_and(|(limit, took)| took > limit)
    });
    if too_long {
        return (Status::Timeout, Some("too_long"));
    }
    let least = monitor.min_runtime_secs.map(millis);
    if least.zip(duration_ms).is_some_and(|(least, took)| took < least) {
        return (Status::Error, Some("too_short"));
    }
    (Status::Ok, None)
}

impl Row {
    fn of(report: &Report, place: &Place, at: DateTime<Utc>) -> Self {
        let (status, reason) = match report.kind {
            Kind::Start => (Status::InProgress, None),
            Kind::Log => (Status::Log, None),
            Kind::End { .. } => verdict(report, report.duration_ms, None),
        };
        let is_end = matches!(report.kind, Kind::End { .. });
        let began = (report.kind == Kind::Start || (is_end && report.duration_ms.is_some()))
            .then(|| report.began_at());
        Self {
            is_new: true,
            id: report.new_id,
            at,
            place: place.clone(),
            monitor: Arc::clone(&report.monitor),
            run_key: None,
            status,
            reason,
            source: report.source,
            expected_at: None,
            started_at: began,
            finished_at: is_end.then_some(report.at),
            received_at: report.received_at,
            duration_ms: report.duration_ms.filter(|_| is_end),
            exit_code: report.exit_code,
            output: report.output.clone(),
            late: false,
            release: report.release.clone(),
            trace_id: report.trace_id.clone(),
        }
    }

    /// Takes over what a later one says.
    fn take(&mut self, later: Self) {
        self.status = later.status;
        self.reason = later.reason;
        self.late = later.late;
        self.run_key = later.run_key.or(self.run_key);
        self.started_at = later.started_at.or(self.started_at);
        self.finished_at = later.finished_at.or(self.finished_at);
        self.duration_ms = later.duration_ms.or(self.duration_ms);
        self.exit_code = later.exit_code.or(self.exit_code);
        self.output = later.output.or(self.output.take());
        self.release = later.release.or(self.release.take());
        self.trace_id = later.trace_id.or(self.trace_id.take());
    }
}
