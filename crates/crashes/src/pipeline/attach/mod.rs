//! A batch of processed events, put to its issues in one transaction: all or nothing. Whatever is locked is
//! locked in the order of tables below and of keys in each, so that no two batches wait for each other.

mod bounds;
mod counts;
mod events;
mod issues;
mod state;
mod tags;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use loom_core::id::{EventId, IssueId, OrgId, ProjectId};
use sqlx::PgConnection;
use uuid::Uuid;

pub(crate) use bounds::OTHER;
pub(crate) use tags::{MAX_KEYS, MAX_VALUES};

use super::{claim, prepare::Prepared};
use crate::{Crashes, issues::record_activity};

/// Of the issue that new ones beyond a project's limit are folded into.
const FOLDED: [u8; 16] = *b"loom-many-issues";

/// What became of an event.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub org: OrgId,
    pub project: ProjectId,
    pub event: EventId,
    pub issue: IssueId,
    pub short_id: String,
    pub title: String,
    pub level: &'static str,
    pub at: DateTime<Utc>,
    pub is_new_issue: bool,
    pub is_regression: bool,
    /// It was processed before: nobody is told.
    pub again: bool,
}

/// Why a batch was not attached.
#[derive(Debug)]
pub(super) enum Failure {
    Database(sqlx::Error),
    /// An issue was merged or deleted meanwhile: to be tried again at once.
    Moved,
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// Which issue an event goes to, by its place in the batch.
type Places = Vec<Option<Uuid>>;

pub(super) async fn attach(crashes: &Crashes, batch: &[Prepared]) -> Result<Vec<Outcome>, Failure> {
    let now = crashes.deps.clock.now();
    let admitted = bounds::admit(&crashes.deps.pool, batch, now).await?;
    let mut tx = loom_db::begin(&crashes.deps.pool).await?;
    let ids: Vec<i64> = batch.iter().map(|event| event.claimed.queue_id).collect();
    let ours: BTreeSet<i64> = claim::finish(&mut tx, &ids).await?.into_iter().collect();
    let batch: Vec<&Prepared> =
        batch.iter().filter(|event| ours.contains(&event.claimed.queue_id)).collect();
    let (new, again): (Vec<&Prepared>, Vec<&Prepared>) =
        batch.into_iter().partition(|event| !event.claimed.again);
    let new = events::unseen(&mut tx, new).await?;
    // Of those that were processed before, where they are now.
    let again = events::stored(&mut tx, again).await?;
    let mut outcomes = Vec::new();
    if !new.is_empty() || !again.is_empty() {
        outcomes = place(&mut tx, &new, &again, admitted, now).await?;
    }
    tx.commit().await?;
    Ok(outcomes)
}

async fn place(
    tx: &mut PgConnection,
    new: &[&Prepared],
    again: &[(&Prepared, events::Stored)],
    admitted: bounds::Admitted,
    now: DateTime<Utc>,
) -> Result<Vec<Outcome>, Failure> {
    let all: Vec<&Prepared> =
        new.iter().copied().chain(again.iter().map(|(event, _)| *event)).collect();
    let mut known = issues::of_hashes(tx, &all).await?;
    let (mut made, mut folded) = (BTreeSet::new(), BTreeSet::new());
    if all.iter().any(|event| !known.contains_key(&key(event))) {
        (made, folded) = issues::create(tx, new, again, &mut known, now).await?;
    }
    let places: Places = all.iter().map(|event| known.get(&key(event)).copied()).collect();
    let wanted: BTreeSet<Uuid> = places
        .iter()
        .flatten()
        .copied()
        .chain(again.iter().map(|(_, stored)| stored.issue))
        .collect();
    let mut locked = issues::lock(tx, &wanted).await?;
    // Hashes of one that was merged lead elsewhere by now, those of a deleted one nowhere.
    if places.iter().any(|place| {
        place.is_none_or(|id| locked.get(&id).is_none_or(|issue| issue.merged_into.is_some()))
    }) {
        return Err(Failure::Moved);
    }
    // A hash that was taken out of an issue meanwhile leads elsewhere. (Folded ones lead nowhere; that of
    // their notice is among these.)
    let now_known = issues::of_hashes(tx, &all).await?;
    if now_known.iter().any(|(key, id)| known.get(key) != Some(id)) {
        return Err(Failure::Moved);
    }
    // An event that a merge has taken along meanwhile counts elsewhere by now: taken from where it was, it
    // would be counted twice, and the merged issue go as an empty one. Both are locked, so that it stays so.
    if !again.is_empty() {
        let there = events::stored(tx, again.iter().map(|(event, _)| *event).collect()).await?;
        let as_it_was = there.len() == again.len()
            && there.iter().zip(again).all(|((event, now), (same, was))| {
                std::ptr::eq(*event, *same) && now.issue == was.issue
            });
        if !as_it_was {
            return Err(Failure::Moved);
        }
    }
    let sorted = state::in_order(&all, &places);
    let releases = state::releases(tx, &sorted, &locked).await?;
    let mut outcomes = Vec::new();
    let mut sums = counts::Sums::of(admitted);
    for (event, issue) in sorted {
        let Some(row) = locked.get_mut(&issue) else { continue };
        let from =
            again.iter().find(|(other, _)| std::ptr::eq(*other, event)).map(|(_, stored)| stored);
        let is_again = from.is_some();
        let regressed = !is_again && state::react(row, event, &releases, now);
        match from {
            Some(stored) if stored.issue == issue => {
                if stored.hash != stored_hash(event, &folded) {
                    row.rename(event);
                }
            }
            Some(stored) => {
                sums.take(stored);
                sums.add(event, issue, row);
            }
            None => {
                sums.add(event, issue, row);
                sums.add_release(event);
            }
        }
        sums.add_missing(event, issue);
        outcomes.push(Outcome {
            org: OrgId(event.claimed.org),
            project: event.claimed.project,
            event: EventId(event.claimed.event),
            issue: IssueId(issue),
            short_id: row.short_id(),
            title: row.title.clone(),
            level: event.level.as_str(),
            at: event.at,
            // The first event of a new issue is what made it.
            is_new_issue: made.remove(&issue) && !is_again,
            is_regression: regressed,
            again: is_again,
        });
    }
    issues::update(tx, &locked, &sums, now).await?;
    counts::write(tx, &sums).await?;
    events::insert(tx, new, &known, &folded).await?;
    events::replace(tx, again, &known, &folded).await?;
    issues::drop_empty(tx, &sums).await?;
    counts::signal(tx, &outcomes, now).await?;
    for outcome in outcomes.iter().filter(|outcome| outcome.is_regression) {
        let release = all
            .iter()
            .find(|event| {
                event.claimed.event == outcome.event.0 && event.claimed.project == outcome.project
            })
            .and_then(|event| event.release.as_deref());
        let details = serde_json::json!({ "release": release, "event_id": outcome.event });
        record_activity(tx, outcome.org, &[outcome.issue.0], None, "regressed", &details, now)
            .await?;
    }
    Ok(outcomes)
}

/// What a hash is looked up by.
fn key(event: &Prepared) -> (Uuid, [u8; 16]) {
    (event.claimed.project.0, event.hash)
}

/// What an event is stored with: the hash that leads to its issue.
fn stored_hash<'a>(event: &'a Prepared, folded: &Folded) -> &'a [u8] {
    if folded.contains(&key(event)) { &FOLDED } else { &event.hash }
}

/// Hashes that have no issue of their own.
type Folded = BTreeSet<(Uuid, [u8; 16])>;
/// Where hashes lead. Those of folded events lead to the notice for this batch only.
type Known = HashMap<(Uuid, [u8; 16]), Uuid>;
type Locked = BTreeMap<Uuid, issues::Issue>;
