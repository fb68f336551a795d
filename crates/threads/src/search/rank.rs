//! From rows that match to threads in order, and what there is of each kind among them.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map::Entry};

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{message::Role, store::search::Candidate};

/// After so many days a thread's age has taken half of what it can take, which is half of all.
const HALF_LIFE_DAYS: f64 = 30.0;
/// How much the second row of a thread adds; further ones add less and less.
const FURTHER_ROWS: f64 = 0.1;
/// Values of one facet.
const MAX_VALUES: usize = 20;

/// A thread with the row that shows best why it was found.
#[derive(Clone, Debug)]
pub(crate) struct Ranked {
    pub(crate) thread: Uuid,
    pub(crate) seq: i64,
    pub(crate) role: Option<Role>,
    pub(crate) score: f64,
}

/// How many of the threads that were found have this value.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct FacetValue {
    pub value: String,
    pub count: u64,
}

/// What the found threads have in common; each is also a filter of this search. The most frequent first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Facets {
    pub repo: Vec<FacetValue>,
    pub branch: Vec<FacetValue>,
    pub state: Vec<FacetValue>,
    /// Whose messages match. A thread counts once for each.
    pub role: Vec<FacetValue>,
    /// Ids of users.
    pub owner: Vec<FacetValue>,
}

/// The threads, best first.
pub(crate) fn by_thread(rows: &[Candidate], now: DateTime<Utc>) -> Vec<Ranked> {
    struct Sum {
        best: Ranked,
        rows: u32,
        recency: f64,
    }
    let mut threads: HashMap<Uuid, Sum> = HashMap::new();
    for row in rows {
        let score = f64::from(row.rank);
        match threads.entry(row.thread_id) {
            Entry::Vacant(entry) => {
                let best = Ranked { thread: row.thread_id, seq: row.seq, role: row.role, score };
                let recency = recency(row.last_activity_at, now);
                entry.insert(Sum { best, rows: 1, recency });
            }
            Entry::Occupied(mut entry) => {
                let sum = entry.get_mut();
                sum.rows += 1;
                // Of equals the later message.
                if (score, row.seq) > (sum.best.score, sum.best.seq) {
                    sum.best = Ranked { score, seq: row.seq, role: row.role, ..sum.best };
                }
            }
        }
    }
    let mut ranked: Vec<Ranked> = threads
        .into_values()
        .map(|Sum { mut best, rows, recency }| {
            best.score *= (1.0 + FURTHER_ROWS * f64::from(rows).ln()) * recency;
            best
        })
        .collect();
    sort(&mut ranked);
    ranked
}

pub(crate) fn sort(ranked: &mut [Ranked]) {
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.thread.cmp(&a.thread)));
}

/// From 1 for now down to a half for long ago.
fn recency(at: DateTime<Utc>, now: DateTime<Utc>) -> f64 {
    let days = (now - at).num_seconds().max(0) as f64 / 86_400.0;
    0.5 + 0.5 * 0.5_f64.powf(days / HALF_LIFE_DAYS)
}

pub(crate) fn facets(rows: &[Candidate]) -> Facets {
    let mut facets = Counts::default();
    let (mut threads, mut roles) = (HashSet::new(), HashSet::new());
    for row in rows {
        if threads.insert(row.thread_id) {
            facets.add(0, row.repo.as_deref());
            facets.add(1, row.branch.as_deref());
            facets.add(2, Some(&row.state));
            facets.add(3, row.owner_user_id.map(|id| id.to_string()).as_deref());
        }
        if let Some(role) = row.role
            && roles.insert((row.thread_id, role.as_str()))
        {
            facets.add(4, Some(role.as_str()));
        }
    }
    let [repo, branch, state, owner, role] = facets.0.map(most_frequent);
    Facets { repo, branch, state, role, owner }
}

#[derive(Default)]
struct Counts([BTreeMap<String, u64>; 5]);

impl Counts {
    fn add(&mut self, facet: usize, value: Option<&str>) {
        if let (Some(counts), Some(value)) = (self.0.get_mut(facet), value) {
            *counts.entry(value.to_owned()).or_default() += 1;
        }
    }
}

fn most_frequent(counts: BTreeMap<String, u64>) -> Vec<FacetValue> {
    let mut values: Vec<_> =
        counts.into_iter().map(|(value, count)| FacetValue { value, count }).collect();
    values.sort_by_key(|value| std::cmp::Reverse(value.count));
    values.truncate(MAX_VALUES);
    values
}
