//! What is to be done about a weaver: from its row, its pod and the time, and nothing else.

#[cfg(test)]
pub(crate) mod tests;

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::api::core::v1::Pod;

use crate::{
    model::{Change, Event, Row, Status, Trouble},
    network,
    pod::seen,
};

/// Before its end a weaver is warned, so that what it has done can be brought away, or it be extended.
const WARNING: TimeDelta = TimeDelta::minutes(5);
/// A pod that was told to go and is there so long after its grace has nobody who would take it down.
const STUCK: TimeDelta = TimeDelta::seconds(60);
/// So long a pod that the cluster does not take is tried for.
pub(crate) const CREATING: TimeDelta = TimeDelta::minutes(10);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Its secret, and then the pod.
    CreatePod,
    /// The row is to say something else; what follows is for the row as it is then.
    Write(Box<Change>),
    /// What it said is kept first.
    ReadLogsThenDelete { uid: String },
    /// Without grace: it was told long ago, and nobody heard.
    DeleteNow { uid: String },
    /// It is over: no pod is there, and its token ends.
    End(Status),
    /// It is under the policies of another network class than its row names.
    Relabel,
    /// Its maker is told that it ends soon.
    Warn,
    /// There is nothing to do before then, unless something happens.
    LookAgain(DateTime<Utc>),
}

/// `pod` is the one of this name in the cluster: `None` is known, not guessed.
pub(crate) fn decide(row: &Row, pod: Option<&Pod>, now: DateTime<Utc>) -> Vec<Action> {
    if row.ended_at.is_some() {
        return Vec::new();
    }
    // One that has the name and is not ours is none of ours.
    let foreign = |pod: &&Pod| row.pod_uid.is_none() || row.pod_uid.as_deref() == seen::uid(pod);
    let pod = pod.filter(foreign);
    if let Some(ending) = row.ending {
        return leave(row, pod, ending, now);
    }
    if let Some(change) = out_of_time(row, now) {
        return vec![Action::Write(Box::new(change))];
    }
    let Some(pod) = pod else { return without_pod(row, now) };
    let change = observe(row, pod, now);
    if !change.is_empty() {
        return vec![Action::Write(Box::new(change))];
    }
    let mut actions = Vec::new();
    // Changed in the row, and the cluster has not heard; or somebody took it away.
    if seen::network(pod) != Some(&*network::label(row.network, &row.installation)) {
        actions.push(Action::Relabel);
    }
    if row.warned_at.is_none() && now >= warn_at(row) {
        actions.push(Action::Warn);
    }
    actions.push(Action::LookAgain(next_look(row, pod, now)));
    actions
}

/// When a weaver that is to end at `expires_at` is warned: a short one later.
pub(crate) fn warn_at(row: &Row) -> DateTime<Utc> {
    let life = row.expires_at - row.created_at;
    row.expires_at - WARNING.min(life / 2)
}

/// One that is on its way is not idle.
fn idle_at(row: &Row) -> Option<DateTime<Utc>> {
    let limit = TimeDelta::seconds(row.idle_timeout_secs?.into());
    Some(row.active_at.max(row.started_at?) + limit)
}

pub(crate) fn out_of_time(row: &Row, now: DateTime<Utc>) -> Option<Change> {
    let (code, text) = if now >= row.expires_at {
        ("expired", "its time was over".to_owned())
    } else if idle_at(row).is_some_and(|at| now >= at) {
        let secs = row.idle_timeout_secs.unwrap_or_default();
        ("idle", format!("it did nothing for {secs} s"))
    } else {
        return None;
    };
    Some(end_with(Status::Expired, code, text, Vec::new()))
}

/// Its pod is to go, and then it has this status.
pub(crate) fn end_with(ending: Status, code: &str, text: String, events: Vec<Event>) -> Change {
    Change {
        status: Some(Status::Terminating),
        ending: Some(ending),
        reason: Some((code.to_owned(), text)),
        events,
        ..Change::default()
    }
}

fn leave(row: &Row, pod: Option<&Pod>, ending: Status, now: DateTime<Utc>) -> Vec<Action> {
    let Some(pod) = pod else { return vec![Action::End(ending)] };
    let uid = seen::uid(pod).unwrap_or_default().to_owned();
    let last = last_words(row, pod, now);
    if !last.is_empty() {
        return vec![Action::Write(Box::new(last))];
    }
    match seen::going(pod) {
        None => vec![Action::ReadLogsThenDelete { uid }],
        Some(at) if now >= at + STUCK => vec![Action::DeleteNow { uid }],
        Some(at) => vec![Action::LookAgain(at + STUCK)],
    }
}

/// How its command ended, also when the weaver ends for another reason.
fn last_words(row: &Row, pod: &Pod, now: DateTime<Utc>) -> Change {
    let mut change = Change::default();
    if row.pod_uid.is_none() {
        change.pod_uid = seen::uid(pod).map(str::to_owned);
    }
    if row.exited_at.is_none()
        && let Some(outcome) = seen::outcome(pod)
    {
        let at = within(row, outcome.at, now);
        change.exited_at = Some(at);
        change.exit_code = outcome.exit_code;
        change.events.push(Event::new(at, "exit").because(outcome.code, outcome.text));
    }
    change
}

fn without_pod(row: &Row, now: DateTime<Utc>) -> Vec<Action> {
    if row.pod_uid.is_some() {
        let text = "its pod is gone from the cluster, and not by this server";
        let change = end_with(Status::Lost, "pod_gone", text.to_owned(), Vec::new());
        return vec![Action::Write(Box::new(change))];
    }
    match &row.trouble {
        Some(trouble) if now >= trouble.since + CREATING => {
            let change =
                end_with(Status::Failed, &trouble.code, trouble.message.clone(), Vec::new());
            vec![Action::Write(Box::new(change))]
        }
        _ => vec![Action::CreatePod],
    }
}

/// What the pod shows that the row does not say yet.
fn observe(row: &Row, pod: &Pod, now: DateTime<Utc>) -> Change {
    let mut change = Change::default();
    if row.pod_uid.is_none() {
        change.pod_uid = seen::uid(pod).map(str::to_owned);
    }
    if let Some(node) = seen::node(pod)
        && row.node.as_deref() != Some(node)
    {
        change.node = Some(node.to_owned());
    }
    if row.restarts != seen::restarts(pod) {
        change.restarts = Some(seen::restarts(pod));
    }
    let steps = [
        ("scheduled", row.scheduled_at, seen::scheduled_at(pod), &mut change.scheduled_at),
        ("started", row.started_at, seen::started_at(pod), &mut change.started_at),
        ("ready", row.ready_at, seen::ready_at(pod), &mut change.ready_at),
    ];
    let mut events = Vec::new();
    for (phase, known, seen, slot) in steps {
        if known.is_none() && seen.is_some() {
            let at = within(row, seen, now);
            *slot = Some(at);
            events.push(Event::new(at, phase));
        }
    }
    change.events = events;
    let outcome = match (seen::outcome(pod), seen::going(pod)) {
        // Who was told to go was ended by that, and not by itself.
        (Some(it), Some(_)) if it.is_by_signal() => {
            let away = seen::taken_away(pod);
            Some(seen::Outcome { exit_code: it.exit_code, at: it.at, ..away })
        }
        (Some(outcome), _) => Some(outcome),
        (None, Some(_)) => Some(seen::taken_away(pod)),
        (None, None) => None,
    };
    if let Some(outcome) = outcome {
        finish(&mut change, row, outcome, now);
    } else if seen::is_running(pod) && row.status == Status::Pending {
        change.status = Some(Status::Running);
    }
    if change.ending.is_none() {
        worry(&mut change, row, pod, now);
    }
    change
}

fn finish(change: &mut Change, row: &Row, outcome: seen::Outcome, now: DateTime<Utc>) {
    let at = within(row, outcome.at, now);
    change.status = Some(Status::Terminating);
    change.ending = Some(match (outcome.success, outcome.lost) {
        (true, _) => Status::Succeeded,
        (_, true) => Status::Lost,
        _ => Status::Failed,
    });
    change.exit_code = outcome.exit_code;
    change.exited_at = row.exited_at.is_none().then_some(at);
    change.reason = Some((outcome.code.to_owned(), outcome.text.clone()));
    change.events.push(Event::new(at, "exit").because(outcome.code, outcome.text));
    if row.trouble.is_some() {
        change.trouble = Some(None);
    }
}

/// Trouble that begins, lasts too long, or has passed.
fn worry(change: &mut Change, row: &Row, pod: &Pod, now: DateTime<Utc>) {
    let Some(worry) = seen::worry(pod) else {
        // A container that was about to be pulled anew says for a moment that it is being made.
        if row.trouble.is_some() && (seen::is_running(pod) || !is_repeating(row)) {
            change.trouble = Some(None);
        }
        return;
    };
    let known = row.trouble.as_ref().filter(|trouble| trouble.code == worry.code);
    let (since, message) = known
        .map_or((now, worry.text.clone()), |trouble| (trouble.since, first(trouble, &worry.text)));
    let is_new = row.trouble.as_ref().is_none_or(|t| t.code != worry.code || t.message != message);
    let grace = worry.grace.map(|grace| grace_of(worry.code, grace, &message));
    if grace.is_none_or(|grace| now >= since + grace) {
        let status = if worry.code == "node_lost" { Status::Lost } else { Status::Failed };
        let end = end_with(status, worry.code, message.clone(), Vec::new());
        (change.status, change.ending, change.reason) = (end.status, end.ending, end.reason);
        change.trouble = Some(None);
        change.events.push(Event::new(now, "warning").because(worry.code, message));
        return;
    }
    if is_new {
        change.events.push(Event::new(now, "warning").because(worry.code, message.clone()));
        let code = worry.code.to_owned();
        change.trouble = Some(Some(Trouble { code, message, since }));
    }
}

fn is_repeating(row: &Row) -> bool {
    row.trouble.as_ref().is_some_and(|trouble| matches!(&*trouble.code, "image_pull" | "start"))
}

/// What the registry said first tells more than that we wait for it; a first message that was only that gives
/// way to one that tells more.
fn first(trouble: &Trouble, now: &str) -> String {
    let says_little = |text: &str| text.contains("Back-off pulling image");
    if says_little(&trouble.message) && !says_little(now) {
        now.to_owned()
    } else {
        trouble.message.clone()
    }
}

fn grace_of(code: &str, grace: std::time::Duration, message: &str) -> TimeDelta {
    let grace = TimeDelta::from_std(grace).unwrap_or(TimeDelta::MAX);
    // The back-off that follows a refusal no longer says that it was one.
    if code == "image_pull" && seen::is_refusal(message) {
        grace.min(seen::refused())
    } else {
        grace
    }
}

fn next_look(row: &Row, pod: &Pod, now: DateTime<Utc>) -> DateTime<Utc> {
    let warn = row.warned_at.is_none().then(|| warn_at(row));
    let grace = seen::worry(pod).zip(row.trouble.as_ref()).and_then(|(worry, trouble)| {
        Some(trouble.since + grace_of(worry.code, worry.grace?, &trouble.message))
    });
    let times = [Some(row.expires_at), idle_at(row), warn, grace].into_iter().flatten();
    times.min().unwrap_or(row.expires_at).max(now + TimeDelta::seconds(1))
}

/// The cluster's clock is another's: what it says lies between the making of the row and now.
fn within(row: &Row, at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> DateTime<Utc> {
    at.unwrap_or(now).min(now).max(row.created_at)
}
