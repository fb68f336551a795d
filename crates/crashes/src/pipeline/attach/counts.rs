//! What is counted: events of issues by the hour, values of their tags, events of releases.

use std::collections::BTreeMap;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use loom_core::id::new_uuid;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Outcome,
    bounds::{Admitted, left_out},
    events::Stored,
    issues::Issue,
    tags::{self, Tags},
};
use crate::{pipeline::prepare::Prepared, release::order::sort_key};

/// Files that are remembered to be missing of an issue, those that were wanted last.
const MAX_MISSING: i64 = 500;

/// What a batch adds to an issue.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    pub events: i64,
    pub first: Option<DateTime<Utc>>,
    pub last: Option<DateTime<Utc>>,
    pub first_release: Option<String>,
    pub last_release: Option<String>,
    pub level: Option<&'static str>,
    /// Events have left it.
    pub taken: bool,
}

/// Whose it is: organisation and project.
pub(super) type Owner = (Uuid, Uuid);

/// Issue, key and value.
pub(super) type TagKey = (Uuid, String, String);
/// Of a release: the organisation, how many events, the first and the last.
type Seen = (Uuid, i64, DateTime<Utc>, DateTime<Utc>);

#[derive(Debug, Default)]
pub(super) struct Sums {
    pub issues: BTreeMap<Uuid, Sum>,
    hours: BTreeMap<(Uuid, DateTime<Utc>, String), (Owner, i64)>,
    tags: Tags,
    missing: BTreeMap<(Uuid, String, Uuid), (Uuid, DateTime<Utc>)>,
    releases: BTreeMap<(Uuid, String), Seen>,
    /// Names that are counted by themselves.
    admitted: Admitted,
}

fn hour(at: DateTime<Utc>) -> DateTime<Utc> {
    at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at)
}

impl Sums {
    pub(super) fn of(admitted: Admitted) -> Self {
        Self { admitted, ..Self::default() }
    }

    pub(super) fn add(&mut self, event: &Prepared, issue: Uuid, row: &mut Issue) {
        let owner = (event.claimed.org, event.claimed.project.0);
        let sum = self.issues.entry(issue).or_default();
        sum.events += 1;
        sum.first = Some(sum.first.map_or(event.at, |first| first.min(event.at)));
        sum.last = Some(sum.last.map_or(event.at, |last| last.max(event.at)));
        if sum.first_release.is_none() {
            sum.first_release.clone_from(&event.release);
        }
        if event.release.is_some() {
            sum.last_release.clone_from(&event.release);
        }
        sum.level = Some(event.level.as_str());
        if let Some(user) = event.user_hash {
            row.seen_by(user);
        }
        let environment = self.admitted.environment(owner.1, event.environment.as_deref());
        self.hours.entry((issue, hour(event.at), environment)).or_insert((owner, 0)).1 += 1;
        for (key, value) in &event.tags {
            let place = (issue, key.clone(), value.clone());
            let (_, count, last) = self.tags.entry(place).or_insert((owner, 0, event.at));
            *count += 1;
            *last = event.at.max(*last);
        }
    }

    /// Files that it lacks.
    pub(super) fn add_missing(&mut self, event: &Prepared, issue: Uuid) {
        for wanted in &event.missing {
            let place = (event.claimed.project.0, wanted.clone(), issue);
            let (_, last) = self.missing.entry(place).or_insert((event.claimed.org, event.at));
            *last = event.at.max(*last);
        }
    }

    /// Takes an event from the issue that it was in.
    pub(super) fn take(&mut self, stored: &Stored) {
        let owner = (stored.org, stored.project);
        let sum = self.issues.entry(stored.issue).or_default();
        sum.events -= 1;
        sum.taken = true;
        let environment = self.admitted.environment(owner.1, stored.environment.as_deref());
        self.hours.entry((stored.issue, hour(stored.at), environment)).or_insert((owner, 0)).1 -= 1;
        for (key, value) in &stored.tags {
            let place = (stored.issue, key.clone(), value.clone());
            self.tags.entry(place).or_insert((owner, 0, stored.at)).1 -= 1;
        }
    }

    pub(super) fn add_release(&mut self, event: &Prepared) {
        let Some(release) = &event.release else { return };
        if !self.admitted.has_release(event.claimed.project.0, release) {
            return;
        }
        let place = (event.claimed.project.0, release.clone());
        let (_, count, first, last) =
            self.releases.entry(place).or_insert((event.claimed.org, 0, event.at, event.at));
        *count += 1;
        *first = event.at.min(*first);
        *last = event.at.max(*last);
    }
}

pub(super) async fn write(db: &mut PgConnection, sums: &Sums) -> sqlx::Result<()> {
    write_hours(db, sums).await?;
    tags::write(db, &sums.tags).await?;
    write_missing(db, sums).await?;
    write_releases(db, sums).await
}

async fn write_hours(db: &mut PgConnection, sums: &Sums) -> sqlx::Result<()> {
    let (more, less): (Vec<_>, Vec<_>) = sums
        .hours
        .iter()
        .filter(|(_, (_, count))| *count != 0)
        .partition(|(_, (_, count))| *count > 0);
    if !more.is_empty() {
        sqlx::query!(
            "INSERT INTO crash_issue_hours (org_id, project_id, issue_id, hour, environment, events)
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::text[], $6::bigint[])
             ON CONFLICT (issue_id, hour, environment)
                DO UPDATE SET events = crash_issue_hours.events + excluded.events",
            &more.iter().map(|(_, (owner, _))| owner.0).collect::<Vec<_>>(),
            &more.iter().map(|(_, (owner, _))| owner.1).collect::<Vec<_>>(),
            &more.iter().map(|((issue, ..), _)| *issue).collect::<Vec<_>>(),
            &more.iter().map(|((_, hour, _), _)| *hour).collect::<Vec<_>>(),
            &more.iter().map(|((.., environment), _)| environment.clone()).collect::<Vec<_>>(),
            &more.iter().map(|(_, (_, count))| *count).collect::<Vec<_>>()
        )
        .execute(&mut *db)
        .await?;
    }
    if !less.is_empty() {
        sqlx::query!(
            "UPDATE crash_issue_hours h SET events = greatest(h.events + t.events, 0)
               FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::bigint[]) AS t(issue, hour, environment, events)
              WHERE h.issue_id = t.issue AND h.hour = t.hour AND h.environment = t.environment",
            &less.iter().map(|((issue, ..), _)| *issue).collect::<Vec<_>>(),
            &less.iter().map(|((_, hour, _), _)| *hour).collect::<Vec<_>>(),
            &less.iter().map(|((.., environment), _)| environment.clone()).collect::<Vec<_>>(),
            &less.iter().map(|(_, (_, count))| *count).collect::<Vec<_>>()
        )
        .execute(db)
        .await?;
    }
    Ok(())
}

async fn write_missing(db: &mut PgConnection, sums: &Sums) -> sqlx::Result<()> {
    if sums.missing.is_empty() {
        return Ok(());
    }
    let all: Vec<_> = sums.missing.iter().collect();
    sqlx::query!(
        "INSERT INTO crash_missing_files (org_id, project_id, wanted, issue_id, last_seen)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::timestamptz[])
         ON CONFLICT (project_id, wanted, issue_id)
            DO UPDATE SET last_seen = greatest(crash_missing_files.last_seen, excluded.last_seen)",
        &all.iter().map(|(_, (org, _))| *org).collect::<Vec<_>>(),
        &all.iter().map(|((project, ..), _)| *project).collect::<Vec<_>>(),
        &all.iter().map(|((_, wanted, _), _)| wanted.clone()).collect::<Vec<_>>(),
        &all.iter().map(|((.., issue), _)| *issue).collect::<Vec<_>>(),
        &all.iter().map(|(_, (_, last))| *last).collect::<Vec<_>>()
    )
    .execute(&mut *db)
    .await?;
    let mut issues: Vec<Uuid> = all.iter().map(|((.., issue), _)| *issue).collect();
    issues.sort_unstable();
    issues.dedup();
    let gone = sqlx::query!(
        "DELETE FROM crash_missing_files m
          USING unnest($1::uuid[]) AS t(issue)
          CROSS JOIN LATERAL (
              SELECT project_id, wanted, issue_id FROM crash_missing_files
               WHERE issue_id = t.issue ORDER BY last_seen DESC, wanted OFFSET $2) old
          WHERE m.project_id = old.project_id AND m.wanted = old.wanted AND m.issue_id = old.issue_id",
        &issues,
        MAX_MISSING
    )
    .execute(db)
    .await?;
    left_out("missing_file", usize::try_from(gone.rows_affected()).unwrap_or_default());
    Ok(())
}

/// Releases are there once they are seen.
async fn write_releases(db: &mut PgConnection, sums: &Sums) -> sqlx::Result<()> {
    if sums.releases.is_empty() {
        return Ok(());
    }
    let all: Vec<_> = sums.releases.iter().collect();
    sqlx::query!(
        "INSERT INTO crash_releases
             (id, org_id, project_id, version, sort_key, created_at, first_event, last_event, events, on_sight)
         SELECT id, org, project, version, sort_key, first, first, last, events, true
           FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::timestamptz[],
                       $7::timestamptz[], $8::bigint[])
             AS t(id, org, project, version, sort_key, first, last, events)
         ON CONFLICT (project_id, version)
            DO UPDATE SET first_event = least(crash_releases.first_event, excluded.first_event),
                          last_event = greatest(crash_releases.last_event, excluded.last_event),
                          events = crash_releases.events + excluded.events",
        &all.iter().map(|(_, (_, _, first, _))| new_uuid(*first)).collect::<Vec<_>>(),
        &all.iter().map(|(_, (org, ..))| *org).collect::<Vec<_>>(),
        &all.iter().map(|((project, _), _)| *project).collect::<Vec<_>>(),
        &all.iter().map(|((_, version), _)| version.clone()).collect::<Vec<_>>(),
        &all.iter().map(|((_, version), _)| sort_key(version)).collect::<Vec<_>>() as &[Option<String>],
        &all.iter().map(|(_, (_, _, first, _))| *first).collect::<Vec<_>>(),
        &all.iter().map(|(_, (.., last))| *last).collect::<Vec<_>>(),
        &all.iter().map(|(_, (_, count, ..))| *count).collect::<Vec<_>>()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What alerts are to be told of.
pub(super) async fn signal(
    db: &mut PgConnection,
    outcomes: &[Outcome],
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let told: Vec<_> =
        outcomes.iter().filter(|outcome| outcome.is_new_issue || outcome.is_regression).collect();
    if told.is_empty() {
        return Ok(());
    }
    let kind =
        |outcome: &&Outcome| if outcome.is_new_issue { "new" } else { "regressed" }.to_owned();
    sqlx::query!(
        "INSERT INTO crash_alert_signals (org_id, project_id, issue_id, event_id, kind, at)
         SELECT org, project, issue, event, kind, $6
           FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[])
             AS t(org, project, issue, event, kind)",
        &told.iter().map(|outcome| outcome.org.0).collect::<Vec<_>>(),
        &told.iter().map(|outcome| outcome.project.0).collect::<Vec<_>>(),
        &told.iter().map(|outcome| outcome.issue.0).collect::<Vec<_>>(),
        &told.iter().map(|outcome| outcome.event.0).collect::<Vec<_>>(),
        &told.iter().map(kind).collect::<Vec<_>>(),
        now
    )
    .execute(db)
    .await?;
    Ok(())
}
