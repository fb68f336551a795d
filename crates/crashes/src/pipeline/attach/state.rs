//! What an event does to the state of its issue.

use std::{cmp::Ordering, collections::HashMap};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Locked, Places, issues::Issue};
use crate::{
    pipeline::prepare::Prepared,
    release::order::{Known, compare},
};

/// When releases were first seen, by project and version.
pub(super) type Releases = HashMap<(Uuid, String), DateTime<Utc>>;

/// In the order that they happened in.
pub(super) fn in_order<'a>(all: &[&'a Prepared], places: &Places) -> Vec<(&'a Prepared, Uuid)> {
    let mut sorted: Vec<_> =
        all.iter().zip(places).filter_map(|(event, place)| Some((*event, (*place)?))).collect();
    sorted.sort_by_key(|(event, _)| (event.claimed.received_at, event.claimed.queue_id));
    sorted
}

/// Those that a regression is decided by: mostly none.
pub(super) async fn releases(
    db: &mut PgConnection,
    events: &[(&Prepared, Uuid)],
    locked: &Locked,
) -> sqlx::Result<Releases> {
    let mut wanted: Vec<(Uuid, String)> = Vec::new();
    for (event, issue) in events {
        let resolved_in = locked
            .get(issue)
            .filter(|issue| issue.status == "resolved")
            .and_then(|issue| {
                issue.resolved_in_release.as_ref().or(issue.resolved_after_release.as_ref())
            })
            .cloned();
        if let (Some(resolved_in), Some(release)) = (resolved_in, &event.release) {
            wanted.push((event.claimed.project.0, resolved_in));
            wanted.push((event.claimed.project.0, release.clone()));
        }
    }
    wanted.sort();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(Releases::new());
    }
    let (projects, versions): (Vec<Uuid>, Vec<String>) = wanted.into_iter().unzip();
    let rows = sqlx::query!(
        "SELECT r.project_id, r.version, r.created_at
           FROM unnest($1::uuid[], $2::text[]) AS t(project, version)
           JOIN crash_releases r ON r.project_id = t.project AND r.version = t.version",
        &projects,
        &versions
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.project_id, row.version), row.created_at)).collect())
}

/// True: the issue is back.
pub(super) fn react(
    issue: &mut Issue,
    event: &Prepared,
    releases: &Releases,
    now: DateTime<Utc>,
) -> bool {
    match issue.status.as_str() {
        "resolved" => {
            let was_before =
                issue.resolved_at.is_some_and(|resolved| event.claimed.received_at < resolved);
            if was_before || is_older(issue, event, releases) {
                return false;
            }
            "regressed".clone_into(&mut issue.status);
            issue.regressed_at = Some(event.claimed.received_at);
            issue.regressed_in_release.clone_from(&event.release);
            issue.times_regressed += 1;
            issue.changed = true;
            true
        }
        "ignored" if issue.ignored_until.is_some_and(|until| until <= now) => {
            "unresolved".clone_into(&mut issue.status);
            issue.ignored_until = None;
            issue.changed = true;
            false
        }
        _ => false,
    }
}

/// Does the event come of a release that the fault was not mended in yet?
fn is_older(issue: &Issue, event: &Prepared, releases: &Releases) -> bool {
    let Some(release) = &event.release else { return false };
    let (resolved_in, that_one_too) =
        match (&issue.resolved_in_release, &issue.resolved_after_release) {
            (Some(resolved_in), _) => (resolved_in, false),
            (None, Some(before)) => (before, true),
            (None, None) => return false,
        };
    let known =
        |version: &str| releases.get(&(event.claimed.project.0, version.to_owned())).copied();
    let ours = Known { version: release, first_seen: known(release) };
    let theirs = Known { version: resolved_in, first_seen: known(resolved_in) };
    match compare(&ours, &theirs) {
        Ordering::Less => true,
        Ordering::Equal => that_one_too,
        Ordering::Greater => false,
    }
}
