//! The rows of issues, and the hashes that lead to them.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use loom_core::id::IssueId;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{FOLDED, Failure, Folded, Known, Locked, counts::Sums, events::Stored, key};
use crate::{
    event::Level, grouping, issues::searchable_words, pipeline::prepare::Prepared, users::Users,
};

/// What of an issue decides, and what changes with events.
#[derive(Clone, Debug)]
pub(super) struct Issue {
    prefix: String,
    number: i64,
    pub title: String,
    pub status: String,
    pub resolved_at: Option<DateTime<Utc>>,
    pub resolved_in_release: Option<String>,
    pub resolved_after_release: Option<String>,
    pub ignored_until: Option<DateTime<Utc>>,
    pub times_regressed: i32,
    pub regressed_at: Option<DateTime<Utc>>,
    pub regressed_in_release: Option<String>,
    pub merged_into: Option<Uuid>,
    users: Users,
    users_changed: bool,
    /// Its state is to be written.
    pub changed: bool,
    /// What it is called from now on.
    retitled: Option<Title>,
}

#[derive(Clone, Debug)]
struct Title {
    title: String,
    culprit: Option<String>,
    kind: Option<String>,
    value: Option<String>,
}

impl Title {
    /// What free text is searched in.
    fn words(&self) -> String {
        let Self { title, culprit, kind, value } = self;
        searchable_words(title, culprit.as_deref(), kind.as_deref(), value.as_deref())
    }
}

impl Issue {
    pub(super) fn short_id(&self) -> String {
        format!("{}-{}", self.prefix, self.number)
    }

    pub(super) fn seen_by(&mut self, user: u64) {
        self.users_changed |= self.users.add(user);
    }

    /// Symbols have given its events other names.
    pub(super) fn rename(&mut self, event: &Prepared) {
        self.title.clone_from(&event.title);
        self.retitled = Some(Title {
            title: event.title.clone(),
            culprit: event.culprit.clone(),
            kind: event.kind.clone(),
            value: event.value.clone(),
        });
    }
}

/// Where the hashes of these events lead, as far as they are known, and those of notices.
pub(super) async fn of_hashes(db: &mut PgConnection, events: &[&Prepared]) -> sqlx::Result<Known> {
    let notices = events.iter().map(|event| (event.claimed.project.0, FOLDED));
    let wanted: BTreeSet<_> = events.iter().map(|event| key(event)).chain(notices).collect();
    find(db, wanted.into_iter()).await
}

async fn find(
    db: &mut PgConnection,
    wanted: impl Iterator<Item = (Uuid, [u8; 16])>,
) -> sqlx::Result<Known> {
    let (projects, hashes): (Vec<Uuid>, Vec<Vec<u8>>) =
        wanted.map(|(project, hash)| (project, hash.to_vec())).unzip();
    let rows = sqlx::query!(
        // The limit keeps the look-ups one by one.
        "SELECT h.project_id, h.hash, h.issue_id
           FROM unnest($1::uuid[], $2::bytea[]) AS t(project, hash)
          CROSS JOIN LATERAL (
              SELECT project_id, hash, issue_id FROM crash_grouping_hashes
               WHERE project_id = t.project AND hash = t.hash LIMIT 1) h",
        &projects,
        &hashes
    )
    .fetch_all(db)
    .await?;
    let known = rows.into_iter().filter_map(|row| {
        Some(((row.project_id, <[u8; 16]>::try_from(row.hash).ok()?), row.issue_id))
    });
    Ok(known.collect())
}

/// Makes issues for hashes that lead nowhere yet; gives those that were made, and the hashes that were too
/// many. One batch at a time does so in a project.
pub(super) async fn create(
    db: &mut PgConnection,
    new: &[&Prepared],
    again: &[(&Prepared, Stored)],
    known: &mut Known,
    now: DateTime<Utc>,
) -> Result<(BTreeSet<Uuid>, Folded), Failure> {
    let (mut made, mut surplus) = (BTreeSet::new(), Folded::new());
    let mut missing: BTreeMap<Uuid, Vec<&Prepared>> = BTreeMap::new();
    for event in new.iter().copied().chain(again.iter().map(|(event, _)| *event)) {
        if !known.contains_key(&key(event)) {
            missing.entry(event.claimed.project.0).or_default().push(event);
        }
    }
    let projects: Vec<Uuid> = missing.keys().copied().collect();
    let locked = sqlx::query!(
        "SELECT id, last_issue_number, new_issues_per_hour FROM crash_projects
          WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE",
        &projects
    )
    .fetch_all(&mut *db)
    .await?;
    // Whoever had the turn before may have made them.
    let wanted: BTreeSet<_> = missing.values().flatten().map(|event| key(event)).collect();
    let folded = projects.iter().map(|project| (*project, FOLDED));
    known.extend(find(db, wanted.into_iter().chain(folded)).await?);
    follow_symbols(db, again, known).await?;
    let hour = now.duration_trunc(TimeDelta::hours(1)).unwrap_or(now);
    let mut rows = Vec::new();
    for project in locked {
        let Some(events) = missing.get(&project.id) else { continue };
        let had = sqlx::query_scalar!(
            "SELECT issues FROM crash_new_issues WHERE project_id = $1 AND hour = $2",
            project.id,
            hour
        )
        .fetch_optional(&mut *db)
        .await?;
        let mut room = project.new_issues_per_hour - had.unwrap_or_default();
        let mut number = project.last_issue_number;
        let first_row = rows.len();
        for event in events {
            if known.contains_key(&key(event)) {
                continue;
            }
            if room > 0 {
                room -= 1;
                number += 1;
                let id = IssueId::new(now).0;
                rows.push(New::of(event, id, number));
                known.insert(key(event), id);
                continue;
            }
            metrics::counter!("loom_crash_events_folded_total").increment(1);
            let notice = match known.get(&(project.id, FOLDED)) {
                Some(notice) => *notice,
                None => {
                    number += 1;
                    let id = IssueId::new(now).0;
                    rows.push(New::notice(event, id, number, project.new_issues_per_hour));
                    known.insert((project.id, FOLDED), id);
                    id
                }
            };
            // For this batch: later it may have an issue of its own.
            known.insert(key(event), notice);
            surplus.insert(key(event));
        }
        let count = rows.len() - first_row;
        made.extend(rows.iter().skip(first_row).map(|row| row.id));
        if let Some(org) = events.first().map(|event| event.claimed.org)
            && count > 0
        {
            counted(db, org, project.id, number, hour, i32::try_from(count).unwrap_or(i32::MAX))
                .await?;
        }
    }
    insert(db, &rows, now).await?;
    Ok((made, surplus))
}

/// An event that was processed anew under another hash takes the way of its old one along: the issue stays
/// what it is, with all that people made of it.
async fn follow_symbols(
    db: &mut PgConnection,
    again: &[(&Prepared, Stored)],
    known: &mut Known,
) -> sqlx::Result<()> {
    for (event, stored) in again {
        if known.contains_key(&key(event)) || stored.hash == FOLDED {
            continue;
        }
        let moved = sqlx::query_scalar!(
            "UPDATE crash_grouping_hashes SET hash = $4, components = $5, algorithm = $6
              WHERE project_id = $1 AND hash = $2 AND issue_id = $3
          RETURNING issue_id",
            event.claimed.project.0,
            stored.hash,
            stored.issue,
            event.hash.as_slice(),
            event.components,
            grouping::ALGORITHM
        )
        .fetch_optional(&mut *db)
        .await?;
        if let Some(issue) = moved {
            known.insert(key(event), issue);
        }
    }
    Ok(())
}

async fn counted(
    db: &mut PgConnection,
    org: Uuid,
    project: Uuid,
    number: i64,
    hour: DateTime<Utc>,
    count: i32,
) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH numbered AS (UPDATE crash_projects SET last_issue_number = $3 WHERE id = $2 AND org_id = $1)
         INSERT INTO crash_new_issues (org_id, project_id, hour, issues) VALUES ($1, $2, $4, $5)
         ON CONFLICT (project_id, hour) DO UPDATE SET issues = crash_new_issues.issues + excluded.issues",
        org,
        project,
        number,
        hour,
        count
    )
    .execute(db)
    .await?;
    Ok(())
}

/// An issue to be made.
struct New {
    id: Uuid,
    org: Uuid,
    project: Uuid,
    number: i64,
    hash: [u8; 16],
    components: serde_json::Value,
    title: Title,
    level: Level,
    priority: &'static str,
    platform: Option<String>,
    at: DateTime<Utc>,
}

impl New {
    fn of(event: &Prepared, id: Uuid, number: i64) -> Self {
        let priority = match event.level {
            Level::Fatal => "high",
            Level::Error if event.unhandled => "high",
            Level::Error | Level::Warning => "medium",
            Level::Info | Level::Debug => "low",
        };
        Self {
            id,
            org: event.claimed.org,
            project: event.claimed.project.0,
            number,
            hash: event.hash,
            components: event.components.clone(),
            title: Title {
                title: event.title.clone(),
                culprit: event.culprit.clone(),
                kind: event.kind.clone(),
                value: event.value.clone(),
            },
            level: event.level,
            priority,
            platform: event.platform.clone(),
            at: event.at,
        }
    }

    /// The one that too many are folded into.
    fn notice(event: &Prepared, id: Uuid, number: i64, limit: i32) -> Self {
        let surplus = grouping::surplus(limit);
        Self {
            hash: FOLDED,
            components: surplus.components,
            title: Title {
                title: surplus.title,
                culprit: surplus.culprit,
                kind: surplus.kind,
                value: surplus.value,
            },
            level: Level::Warning,
            priority: "high",
            platform: None,
            ..Self::of(event, id, number)
        }
    }
}

async fn insert(db: &mut PgConnection, rows: &[New], now: DateTime<Utc>) -> sqlx::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let text =
        |get: fn(&New) -> Option<String>| -> Vec<Option<String>> { rows.iter().map(get).collect() };
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let orgs: Vec<Uuid> = rows.iter().map(|row| row.org).collect();
    let projects: Vec<Uuid> = rows.iter().map(|row| row.project).collect();
    sqlx::query!(
        "INSERT INTO crash_issues
             (id, org_id, project_id, number, title, culprit, kind, value, level, priority, platform,
              first_seen, last_seen, created_at, updated_at, tsv)
         SELECT id, org, project, number, title, culprit, kind, value, level, priority, platform,
                at, at, $13, $13, to_tsvector('simple', words)
           FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::text[], $7::text[],
                       $8::text[], $9::text[], $10::text[], $11::text[], $12::timestamptz[], $14::text[])
             AS t(id, org, project, number, title, culprit, kind, value, level, priority, platform, at, words)",
        &ids,
        &orgs,
        &projects,
        &rows.iter().map(|row| row.number).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.title.title.clone()).collect::<Vec<_>>(),
        &text(|row| row.title.culprit.clone()) as &[Option<String>],
        &text(|row| row.title.kind.clone()) as &[Option<String>],
        &text(|row| row.title.value.clone()) as &[Option<String>],
        &rows.iter().map(|row| row.level.as_str().to_owned()).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.priority.to_owned()).collect::<Vec<_>>(),
        &text(|row| row.platform.clone()) as &[Option<String>],
        &rows.iter().map(|row| row.at).collect::<Vec<_>>(),
        now,
        &rows.iter().map(|row| row.title.words()).collect::<Vec<_>>()
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "INSERT INTO crash_grouping_hashes
             (org_id, project_id, hash, issue_id, own_issue_id, algorithm, components, created_at)
         SELECT org, project, hash, issue, issue, $6, components, $7
           FROM unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::uuid[], $5::jsonb[])
             AS t(org, project, hash, issue, components)",
        &orgs,
        &projects,
        &rows.iter().map(|row| row.hash.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        &ids,
        &rows.iter().map(|row| row.components.clone()).collect::<Vec<_>>(),
        grouping::ALGORITHM,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Until the end of the transaction nobody else changes them.
pub(super) async fn lock(db: &mut PgConnection, ids: &BTreeSet<Uuid>) -> sqlx::Result<Locked> {
    let ids: Vec<Uuid> = ids.iter().copied().collect();
    let rows = sqlx::query!(
        "SELECT i.id, i.number, i.title, i.status, i.resolved_at, i.resolved_in_release,
                i.resolved_after_release, i.ignored_until,
                i.times_regressed, i.regressed_at, i.regressed_in_release, i.merged_into, i.users,
                p.short_prefix
           FROM crash_issues i JOIN crash_projects p ON p.org_id = i.org_id AND p.id = i.project_id
          WHERE i.id = ANY ($1)
          ORDER BY i.id
            FOR NO KEY UPDATE OF i",
        &ids
    )
    .fetch_all(db)
    .await?;
    let locked = rows.into_iter().map(|row| {
        let issue = Issue {
            prefix: row.short_prefix,
            number: row.number,
            title: row.title,
            status: row.status,
            resolved_at: row.resolved_at,
            resolved_in_release: row.resolved_in_release,
            resolved_after_release: row.resolved_after_release,
            ignored_until: row.ignored_until,
            times_regressed: row.times_regressed,
            regressed_at: row.regressed_at,
            regressed_in_release: row.regressed_in_release,
            merged_into: row.merged_into,
            users: Users::from_bytes(&row.users),
            users_changed: false,
            changed: false,
            retitled: None,
        };
        (row.id, issue)
    });
    Ok(locked.collect())
}

/// Writes back what [`lock`] gave, with the sums added.
pub(super) async fn update(
    db: &mut PgConnection,
    locked: &Locked,
    sums: &Sums,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let rows: Vec<_> =
        sums.issues.iter().filter_map(|(id, sum)| Some((*id, sum, locked.get(id)?))).collect();
    let users: Vec<Option<Vec<u8>>> = rows
        .iter()
        .map(|(_, _, issue)| issue.users_changed.then(|| issue.users.to_bytes()))
        .collect();
    if !rows.is_empty() {
        sqlx::query!(
            "UPDATE crash_issues i
                SET event_count = i.event_count + t.events,
                    first_seen = least(i.first_seen, t.first), last_seen = greatest(i.last_seen, t.last),
                    first_release = coalesce(i.first_release, t.first_release),
                    last_release = coalesce(t.last_release, i.last_release),
                    level = coalesce(t.level, i.level),
                    user_count = coalesce(t.user_count, i.user_count), users = coalesce(t.users, i.users),
                    updated_at = $10
               FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::text[],
                           $6::text[], $7::text[], $8::bigint[], $9::bytea[])
                 AS t(id, events, first, last, first_release, last_release, level, user_count, users)
              WHERE i.id = t.id",
            &rows.iter().map(|(id, ..)| *id).collect::<Vec<_>>(),
            &rows.iter().map(|(_, sum, _)| sum.events).collect::<Vec<_>>(),
            &rows.iter().map(|(_, sum, _)| sum.first).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
            &rows.iter().map(|(_, sum, _)| sum.last).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
            &rows.iter().map(|(_, sum, _)| sum.first_release.clone()).collect::<Vec<_>>()
                as &[Option<String>],
            &rows.iter().map(|(_, sum, _)| sum.last_release.clone()).collect::<Vec<_>>()
                as &[Option<String>],
            &rows.iter().map(|(_, sum, _)| sum.level.map(str::to_owned)).collect::<Vec<_>>()
                as &[Option<String>],
            &rows
                .iter()
                .map(|(_, _, issue)| issue.users_changed.then(|| issue.users.count()))
                .collect::<Vec<_>>() as &[Option<i64>],
            &users as &[Option<Vec<u8>>],
            now
        )
        .execute(&mut *db)
        .await?;
    }
    for (id, issue) in locked {
        if issue.changed {
            sqlx::query!(
                "UPDATE crash_issues
                    SET status = $2, ignored_until = $3, times_regressed = $4, regressed_at = $5,
                        regressed_in_release = $6
                  WHERE id = $1",
                id,
                issue.status,
                issue.ignored_until,
                issue.times_regressed,
                issue.regressed_at,
                issue.regressed_in_release
            )
            .execute(&mut *db)
            .await?;
        }
        if let Some(title) = &issue.retitled {
            sqlx::query!(
                "UPDATE crash_issues
                    SET title = $2, culprit = $3, kind = $4, value = $5, tsv = to_tsvector('simple', $6)
                  WHERE id = $1",
                id,
                title.title,
                title.culprit,
                title.kind,
                title.value,
                title.words()
            )
            .execute(&mut *db)
            .await?;
        }
    }
    Ok(())
}

/// Those that all events have left.
pub(super) async fn drop_empty(db: &mut PgConnection, sums: &Sums) -> sqlx::Result<()> {
    let left: Vec<Uuid> =
        sums.issues.iter().filter(|(_, sum)| sum.taken).map(|(id, _)| *id).collect();
    if left.is_empty() {
        return Ok(());
    }
    sqlx::query!("DELETE FROM crash_issues WHERE id = ANY ($1) AND event_count <= 0", &left)
        .execute(db)
        .await?;
    Ok(())
}
