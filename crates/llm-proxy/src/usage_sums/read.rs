//! Reading usage: whole days, the hours at their edges, and the rows that are in no sum yet, all as of one
//! moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use loom_core::{Error, Result, id::OrgId};
use serde_json::{Map, Value, json};
use sqlx::PgPool;

use super::{
    model::{Answer, Group, Key, Numbers, Question},
    store::{self, Selection, Stored},
    sum::{Dimension, Grain, Request, Sum, Whose},
};

/// Sums that one answer is made of.
const MAX_SUMS: i64 = 50_000;
/// There are fewer models than that; a provider is the sum of its own.
const MODELS: usize = 5000;

pub(super) async fn usage(
    pool: &PgPool,
    org: OrgId,
    whose: Whose,
    question: &Question,
) -> Result<Answer> {
    let mut tx = loom_db::begin(pool).await?;
    // Sums and the rows beyond them, as of one moment.
    sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .execute(&mut *tx)
        .await?;
    let after = store::progress(&mut tx).await?;
    let (from, to) = (question.from, question.to);
    let mut tail: Vec<Request> = Vec::new();
    store::rows_after(&mut tx, org, whose, after, (from, to), |row| tail.push(row)).await?;

    let spans = spans(question);
    let select = |dimension| Selection { org, whose, dimension, spans: spans.clone() };
    let of_all = store::sums(&mut tx, &select(Dimension::All), None, MAX_SUMS).await?;
    let mut total = Sum::default();
    of_all.iter().for_each(|stored| total.merge(&stored.sum));
    tail.iter().for_each(|row| total.add(row));

    let mut truncated = false;
    let mut groups: HashMap<(Option<DateTime<Utc>>, String), Sum> = HashMap::new();
    let when = |at: DateTime<Utc>| question.time.map(|grain| grain.floor(at));
    if let Some(key) = question.key {
        let dimension = key.dimension();
        let keys_of = |row: &Request| row.keys(dimension);
        let limit = if key == Key::Provider { MODELS } else { question.limit };
        let keys = keys(&mut tx, &select(dimension), &tail, limit, keys_of).await?;
        let selected = select(dimension);
        let stored = store::sums(&mut tx, &selected, Some(&keys), MAX_SUMS + 1).await?;
        if stored.len() as i64 > MAX_SUMS {
            return Err(too_much());
        }
        // Which of them are the dearest is known when the rows beyond the sums are added.
        let mut by_key: HashMap<String, BTreeMap<Option<DateTime<Utc>>, Sum>> = HashMap::new();
        for Stored { at, key, sum } in &stored {
            let of_key = by_key.entry(named(question.key, key)).or_default();
            of_key.entry(when(*at)).or_default().merge(sum);
        }
        for row in &tail {
            for key in keys_of(row) {
                let of_key = by_key.entry(named(question.key, &key)).or_default();
                of_key.entry(when(row.started_at)).or_default().add(row);
            }
        }
        let mut ranked: Vec<_> = by_key.into_iter().collect();
        let rank = |sums: &BTreeMap<Option<DateTime<Utc>>, Sum>| {
            let cost: i64 = sums.values().map(|sum| sum.cost_nanousd).sum();
            let requests: i64 = sums.values().map(|sum| sum.requests).sum();
            (cost, requests)
        };
        ranked.sort_by_cached_key(|(key, sums)| {
            let (cost, requests) = rank(sums);
            (std::cmp::Reverse(cost), std::cmp::Reverse(requests), key.clone())
        });
        truncated = ranked.len() > question.limit;
        ranked.truncate(question.limit);
        for (key, sums) in ranked {
            groups.extend(sums.into_iter().map(|(at, sum)| ((at, key.clone()), sum)));
        }
    } else {
        for stored in &of_all {
            let group = groups.entry((when(stored.at), String::new())).or_default();
            group.merge(&stored.sum);
        }
        for row in &tail {
            groups.entry((when(row.started_at), String::new())).or_default().add(row);
        }
    }
    drop(tx);
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|((at, key), sum), ((other_at, other_key), other)| {
        at.cmp(other_at)
            .then(other.cost_nanousd.cmp(&sum.cost_nanousd))
            .then(other.requests.cmp(&sum.requests))
            .then(key.cmp(other_key))
    });
    let groups = groups.into_iter().map(|((at, key), sum)| Group {
        at,
        key: told(question.key, &key),
        numbers: Numbers::from(&sum),
    });
    Ok(Answer {
        from,
        to,
        group_by: question.words.clone(),
        groups: groups.collect(),
        truncated,
        total: Numbers::from(&total),
    })
}

/// The dearest of the sums, one more than are shown, and all that the rows beyond them are of: whoever is
/// among the dearest of both is one of these.
async fn keys(
    db: &mut sqlx::PgConnection,
    of: &Selection,
    tail: &[Request],
    limit: usize,
    keys_of: impl Fn(&Request) -> Vec<String>,
) -> Result<Vec<String>> {
    let limit = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let mut keys: BTreeSet<String> = store::dearest(db, of, limit).await?.into_iter().collect();
    keys.extend(tail.iter().flat_map(keys_of));
    Ok(keys.into_iter().collect())
}

/// Whole days where days do, and hours at the edges.
fn spans(question: &Question) -> Vec<(Grain, DateTime<Utc>, DateTime<Utc>)> {
    let (from, to) = (question.from, question.to);
    let (first, last) = (Grain::Day.ceil(from), Grain::Day.floor(to));
    if question.time == Some(Grain::Hour) || first >= last {
        return vec![(Grain::Hour, from, to)];
    }
    vec![(Grain::Hour, from, first), (Grain::Day, first, last), (Grain::Hour, last, to)]
}

fn too_much() -> Error {
    Error::invalid(
        "from",
        "this is more than one answer holds: ask for less time, or for fewer keys",
    )
}

/// As it is grouped: of a model's key the provider alone, where that is asked for.
fn named(key: Option<Key>, stored: &str) -> String {
    match key {
        Some(Key::Provider) => stored.split_once('/').map_or(stored, |(name, _)| name).to_owned(),
        _ => stored.to_owned(),
    }
}

/// The members that name a group.
fn told(key: Option<Key>, value: &str) -> Map<String, Value> {
    let text = || if value.is_empty() { Value::Null } else { json!(value) };
    let one = |name: &str, value: Value| Map::from_iter([(name.to_owned(), value)]);
    match key {
        None | Some(Key::Of(Dimension::All)) => Map::new(),
        Some(Key::Provider) => one("provider", text()),
        Some(Key::Of(Dimension::Model)) => {
            let (provider, model) = value.split_once('/').unwrap_or(("", value));
            let members = [("provider", provider), ("model", model)];
            members.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
        }
        Some(Key::Of(Dimension::User)) => one("user_id", text()),
        Some(Key::Of(Dimension::ApiKey)) => one("api_key_id", text()),
        Some(Key::Of(Dimension::Thread)) => {
            let id = value.parse().ok().map(loom_core::id::ThreadId);
            one("thread_id", id.map_or(Value::Null, |id| json!(id)))
        }
        Some(Key::Of(Dimension::Weaver)) => one("weaver_id", text()),
        Some(Key::Of(Dimension::Tag)) => one("tag", text()),
    }
}
