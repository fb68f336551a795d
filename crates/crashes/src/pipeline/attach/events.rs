//! The rows of events.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Folded, Known, key, stored_hash};
use crate::pipeline::prepare::Prepared;

/// Where an event is that was processed before.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub org: Uuid,
    pub project: Uuid,
    pub issue: Uuid,
    pub hash: Vec<u8>,
    pub at: DateTime<Utc>,
    pub environment: Option<String>,
    pub tags: HashMap<String, String>,
}

/// Those that the project has not had; what is kept of a repeat is removed.
pub(super) async fn unseen<'a>(
    db: &mut PgConnection,
    mut events: Vec<&'a Prepared>,
) -> sqlx::Result<Vec<&'a Prepared>> {
    if events.is_empty() {
        return Ok(events);
    }
    // The first of its id stays.
    events
        .sort_by_key(|event| (event.claimed.project, event.claimed.event, event.claimed.queue_id));
    let mut repeats = Vec::new();
    let mut kept: Vec<&Prepared> = Vec::new();
    for event in events {
        let same = |last: &&Prepared| {
            last.claimed.project == event.claimed.project
                && last.claimed.event == event.claimed.event
        };
        if kept.last().is_some_and(same) {
            repeats.push(event);
        } else {
            kept.push(event);
        }
    }
    let projects: Vec<Uuid> = kept.iter().map(|event| event.claimed.project.0).collect();
    let ids: Vec<Uuid> = kept.iter().map(|event| event.claimed.event).collect();
    let times: Vec<_> = kept.iter().map(|event| event.claimed.received_at).collect();
    let first: HashSet<(Uuid, Uuid)> = sqlx::query!(
        "INSERT INTO crash_event_ids (project_id, event_id, received_at)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[])
         ON CONFLICT DO NOTHING
         RETURNING project_id, event_id",
        &projects,
        &ids,
        &times
    )
    .fetch_all(&mut *db)
    .await?
    .into_iter()
    .map(|row| (row.project_id, row.event_id))
    .collect();
    kept.retain(|event| {
        let is_first = first.contains(&(event.claimed.project.0, event.claimed.event));
        if !is_first {
            repeats.push(event);
        }
        is_first
    });
    if !repeats.is_empty() {
        metrics::counter!("loom_crash_events_repeated_total")
            .increment(u64::try_from(repeats.len()).unwrap_or_default());
        let projects: Vec<Uuid> = repeats.iter().map(|event| event.claimed.project.0).collect();
        let ids: Vec<Uuid> = repeats.iter().map(|event| event.claimed.event).collect();
        let times: Vec<_> = repeats.iter().map(|event| event.claimed.received_at).collect();
        // Not what the first of its id consists of.
        sqlx::query!(
            "DELETE FROM crash_raw r USING unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS t(project, event, at)
              WHERE r.project_id = t.project AND r.event_id = t.event AND r.received_at = t.at
                AND NOT EXISTS (SELECT FROM crash_event_ids i
                                 WHERE i.project_id = t.project AND i.event_id = t.event AND i.received_at = t.at)",
            &projects,
            &ids,
            &times
        )
        .execute(db)
        .await?;
    }
    // As they came: what makes an issue is its first event.
    kept.sort_by_key(|event| event.claimed.queue_id);
    Ok(kept)
}

/// Those that are still there, with where they are.
pub(super) async fn stored<'a>(
    db: &mut PgConnection,
    mut events: Vec<&'a Prepared>,
) -> sqlx::Result<Vec<(&'a Prepared, Stored)>> {
    let mut found = Vec::new();
    events
        .sort_by_key(|event| (event.claimed.project, event.claimed.event, event.claimed.queue_id));
    events.dedup_by_key(|event| (event.claimed.project, event.claimed.event));
    for event in events {
        let row = sqlx::query!(
            r#"SELECT coalesce((SELECT m.to_issue FROM crash_event_moves m
                                 WHERE m.org_id = crash_events.org_id AND m.from_issue = crash_events.issue_id
                                   AND m.hash = crash_events.hash ORDER BY m.id DESC LIMIT 1),
                               issue_id) AS "issue_id!", hash, at, environment, tags
                 FROM crash_events
              WHERE project_id = $1 AND event_id = $2 AND received_at = $3 AND org_id = $4
                FOR UPDATE"#,
            event.claimed.project.0,
            event.claimed.event,
            event.claimed.received_at,
            event.claimed.org
        )
        .fetch_optional(&mut *db)
        .await?;
        if let Some(row) = row {
            let tags = serde_json::from_value(row.tags).unwrap_or_default();
            let stored = Stored {
                org: event.claimed.org,
                project: event.claimed.project.0,
                issue: row.issue_id,
                hash: row.hash,
                at: row.at,
                environment: row.environment,
                tags,
            };
            found.push((event, stored));
        }
    }
    Ok(found)
}

fn tags(event: &Prepared) -> Value {
    Value::Object(
        event.tags.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect(),
    )
}

pub(super) async fn insert(
    db: &mut PgConnection,
    events: &[&Prepared],
    known: &Known,
    folded: &Folded,
) -> sqlx::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let all = |get: fn(&Prepared) -> Option<String>| -> Vec<Option<String>> {
        events.iter().map(|event| get(event)).collect()
    };
    let issues: Vec<Uuid> =
        events.iter().filter_map(|event| known.get(&key(event)).copied()).collect();
    sqlx::query!(
        "INSERT INTO crash_events
             (org_id, project_id, event_id, received_at, issue_id, hash, at, level, title, release, dist,
              environment, platform, transaction, user_label, trace_id, session_id, thread_id, tags, processed)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::uuid[], $6::bytea[],
                              $7::timestamptz[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
                              $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::uuid[],
                              $19::jsonb[], $20::bytea[])
         ON CONFLICT DO NOTHING",
        &events.iter().map(|event| event.claimed.org).collect::<Vec<_>>(),
        &events.iter().map(|event| event.claimed.project.0).collect::<Vec<_>>(),
        &events.iter().map(|event| event.claimed.event).collect::<Vec<_>>(),
        &events.iter().map(|event| event.claimed.received_at).collect::<Vec<_>>(),
        &issues,
        &events.iter().map(|event| stored_hash(event, folded)).collect::<Vec<_>>() as &[&[u8]],
        &events.iter().map(|event| event.at).collect::<Vec<_>>(),
        &events.iter().map(|event| event.level.as_str().to_owned()).collect::<Vec<_>>(),
        &events.iter().map(|event| event.title.clone()).collect::<Vec<_>>(),
        &all(|event| event.release.clone()) as &[Option<String>],
        &all(|event| event.dist.clone()) as &[Option<String>],
        &all(|event| event.environment.clone()) as &[Option<String>],
        &all(|event| event.platform.clone()) as &[Option<String>],
        &all(|event| event.transaction.clone()) as &[Option<String>],
        &all(|event| event.user.clone()) as &[Option<String>],
        &all(|event| event.trace_id.clone()) as &[Option<String>],
        &all(|event| event.session_id.clone()) as &[Option<String>],
        &events.iter().map(|event| event.thread).collect::<Vec<_>>() as &[Option<Uuid>],
        &events.iter().map(|event| tags(event)).collect::<Vec<_>>(),
        &events.iter().map(|event| event.processed.as_slice()).collect::<Vec<_>>() as &[&[u8]]
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What processing found out this time.
pub(super) async fn replace(
    db: &mut PgConnection,
    events: &[(&Prepared, Stored)],
    known: &Known,
    folded: &Folded,
) -> sqlx::Result<()> {
    for (event, _) in events {
        let Some(issue) = known.get(&key(event)) else { continue };
        sqlx::query!(
            "UPDATE crash_events
                SET issue_id = $5, hash = $6, title = $7, tags = $8, processed = $9, release = $10,
                    dist = $11, environment = $12, transaction = $13, level = $14, user_label = $15
              WHERE project_id = $1 AND event_id = $2 AND received_at = $3 AND org_id = $4",
            event.claimed.project.0,
            event.claimed.event,
            event.claimed.received_at,
            event.claimed.org,
            issue,
            stored_hash(event, folded),
            event.title,
            tags(event),
            event.processed,
            event.release,
            event.dist,
            event.environment,
            event.transaction,
            event.level.as_str(),
            event.user
        )
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}
