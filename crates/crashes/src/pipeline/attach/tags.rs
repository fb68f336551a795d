//! Values of tags, counted per issue: of each tag so many, of each issue so many tags.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    bounds::{OTHER, left_out},
    counts::{Owner, TagKey},
};
use crate::event;

/// Different values that are counted of a tag of an issue. Those beyond are one, and in the events.
pub(crate) const MAX_VALUES: i64 = 200;
/// Different tags of an issue that are counted, those aside that the event itself makes. Those beyond are
/// in the events.
pub(crate) const MAX_KEYS: i64 = 100;

/// What a batch adds to values of tags, or takes from them.
pub(super) type Tags = BTreeMap<TagKey, Sum>;
/// Whose, how many, and when last.
type Sum = (Owner, i64, DateTime<Utc>);

/// The issues are locked: nobody else counts their tags.
pub(super) async fn write(db: &mut PgConnection, tags: &Tags) -> sqlx::Result<()> {
    let (more, less): (Vec<_>, Vec<_>) = tags
        .iter()
        .filter(|(_, (_, count, _))| *count != 0)
        .partition(|(_, (_, count, _))| *count > 0);
    if !more.is_empty() {
        add(db, more.into_iter().map(|(key, sum)| (key.clone(), *sum)).collect()).await?;
    }
    if !less.is_empty() {
        let taken = take(db, &less).await?;
        // What is not counted by itself is counted with others.
        let mut others: BTreeMap<TagKey, i64> = BTreeMap::new();
        for (place, (_, count, _)) in less.iter().filter(|(place, _)| !taken.contains(*place)) {
            let (issue, key, _) = place;
            *others.entry((*issue, key.clone(), OTHER.to_owned())).or_default() += count;
        }
        if !others.is_empty() {
            let sum = |count: i64| ((Uuid::nil(), Uuid::nil()), count, DateTime::<Utc>::MIN_UTC);
            let others: Tags =
                others.into_iter().map(|(place, count)| (place, sum(count))).collect();
            take(db, &others.iter().collect::<Vec<_>>()).await?;
        }
    }
    Ok(())
}

async fn add(db: &mut PgConnection, tags: Tags) -> sqlx::Result<()> {
    let known = known(db, tags.keys()).await?;
    let new: BTreeSet<(Uuid, String)> = tags
        .keys()
        .filter(|place| !known.contains(*place))
        .map(|(issue, key, _)| (*issue, key.clone()))
        .collect();
    let mut room = if new.is_empty() { HashMap::new() } else { rooms(db, &new).await? };
    let (mut folded, mut dropped) = (0, 0);
    let mut written = Tags::new();
    for (place, sum) in tags {
        let (issue, key, _) = &place;
        let place = if known.contains(&place) {
            place
        } else {
            match room.get_mut(&(*issue, key.clone())) {
                None => {
                    dropped += 1;
                    continue;
                }
                Some(0) => {
                    folded += 1;
                    (*issue, key.clone(), OTHER.to_owned())
                }
                Some(left) => {
                    *left -= 1;
                    place
                }
            }
        };
        let (owner, count, last) = sum;
        let (_, all, latest) = written.entry(place).or_insert((owner, 0, last));
        *all += count;
        *latest = last.max(*latest);
    }
    left_out("tag_value", folded);
    left_out("tag", dropped);
    if written.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO crash_issue_tags (org_id, project_id, issue_id, key, value, events, last_seen)
         SELECT org, project, issue, key, value, events, last
           FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[])
             AS t(org, project, issue, key, value, events, last)
         ON CONFLICT (issue_id, key, value)
            DO UPDATE SET events = crash_issue_tags.events + excluded.events,
                          last_seen = greatest(crash_issue_tags.last_seen, excluded.last_seen)",
        &written.values().map(|(owner, ..)| owner.0).collect::<Vec<_>>(),
        &written.values().map(|(owner, ..)| owner.1).collect::<Vec<_>>(),
        &written.keys().map(|(issue, ..)| *issue).collect::<Vec<_>>(),
        &written.keys().map(|(_, key, _)| key.clone()).collect::<Vec<_>>(),
        &written.keys().map(|(.., value)| value.clone()).collect::<Vec<_>>(),
        &written.values().map(|(_, count, _)| *count).collect::<Vec<_>>(),
        &written.values().map(|(.., last)| *last).collect::<Vec<_>>()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Those that are counted by themselves already.
async fn known(
    db: &mut PgConnection,
    wanted: impl Iterator<Item = &TagKey>,
) -> sqlx::Result<HashSet<TagKey>> {
    let (mut issues, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (issue, key, value) in wanted {
        issues.push(*issue);
        keys.push(key.clone());
        values.push(value.clone());
    }
    let rows = sqlx::query!(
        // The limit keeps the look-ups one by one.
        "SELECT o.issue_id, o.key, o.value
           FROM unnest($1::uuid[], $2::text[], $3::text[]) AS t(issue, key, value)
          CROSS JOIN LATERAL (
              SELECT issue_id, key, value FROM crash_issue_tags
               WHERE issue_id = t.issue AND key = t.key AND value = t.value LIMIT 1) o",
        &issues,
        &keys,
        &values
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.issue_id, row.key, row.value)).collect())
}

/// How many more values these tags may have; those that may not be are absent.
async fn rooms(
    db: &mut PgConnection,
    wanted: &BTreeSet<(Uuid, String)>,
) -> sqlx::Result<HashMap<(Uuid, String), i64>> {
    let (issues, keys): (Vec<Uuid>, Vec<String>) = wanted.iter().cloned().unzip();
    let rows = sqlx::query!(
        r#"SELECT t.issue AS "issue!", t.key AS "key!",
                  (SELECT count(*) FROM (SELECT FROM crash_issue_tags o
                                          WHERE o.issue_id = t.issue AND o.key = t.key LIMIT $3) few) AS "values!"
             FROM unnest($1::uuid[], $2::text[]) AS t(issue, key)"#,
        &issues,
        &keys,
        MAX_VALUES
    )
    .fetch_all(&mut *db)
    .await?;
    let mut room = HashMap::new();
    let mut fresh: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
    for row in rows {
        if row.values == 0 && !event::is_own_tag(&row.key) {
            fresh.entry(row.issue).or_default().push(row.key);
        } else {
            room.insert((row.issue, row.key), MAX_VALUES - row.values);
        }
    }
    if fresh.is_empty() {
        return Ok(room);
    }
    // From one key to the next, over all their values.
    let had = sqlx::query!(
        r#"WITH RECURSIVE keys AS (
               SELECT t.issue, (SELECT min(o.key) FROM crash_issue_tags o WHERE o.issue_id = t.issue) AS key
                 FROM unnest($1::uuid[]) AS t(issue)
               UNION ALL
               SELECT k.issue, (SELECT min(o.key) FROM crash_issue_tags o WHERE o.issue_id = k.issue AND o.key > k.key)
                 FROM keys k WHERE k.key IS NOT NULL)
           SELECT issue AS "issue!", count(key) FILTER (WHERE NOT key = ANY ($2)) AS "keys!" FROM keys GROUP BY issue"#,
        &fresh.keys().copied().collect::<Vec<_>>(),
        &event::OWN_TAGS.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>()
    )
    .fetch_all(db)
    .await?;
    for row in had {
        let left = usize::try_from(MAX_KEYS - row.keys).unwrap_or_default();
        let keys = fresh.remove(&row.issue).unwrap_or_default();
        room.extend(keys.into_iter().take(left).map(|key| ((row.issue, key), MAX_VALUES)));
    }
    Ok(room)
}

/// Gives those that were there.
async fn take(db: &mut PgConnection, less: &[(&TagKey, &Sum)]) -> sqlx::Result<HashSet<TagKey>> {
    let rows = sqlx::query!(
        "UPDATE crash_issue_tags o SET events = greatest(o.events + t.events, 0)
           FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[]) AS t(issue, key, value, events)
          WHERE o.issue_id = t.issue AND o.key = t.key AND o.value = t.value
      RETURNING o.issue_id, o.key, o.value",
        &less.iter().map(|((issue, ..), _)| *issue).collect::<Vec<_>>(),
        &less.iter().map(|((_, key, _), _)| key.clone()).collect::<Vec<_>>(),
        &less.iter().map(|((.., value), _)| value.clone()).collect::<Vec<_>>(),
        &less.iter().map(|(_, (_, count, _))| *count).collect::<Vec<_>>()
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.issue_id, row.key, row.value)).collect())
}
