//! How many names a project may have of what is counted by name: whoever has its DSN can make up any.
//! Looked at before a batch is attached, in a transaction of its own that locks one row of each project.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use loom_core::id::new_uuid;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{pipeline::prepare::Prepared, release::order::sort_key};

/// What all beyond a limit is counted as.
pub(crate) const OTHER: &str = "(other)";
/// Environments of a project that are counted by themselves.
const MAX_ENVIRONMENTS: i64 = 100;
/// Releases of a project that events have made, and how many of them in an hour. Whoever names a release
/// himself is not bound by it.
const MAX_RELEASES: i64 = 10_000;
const MAX_RELEASES_PER_HOUR: i32 = 100;

/// A project, and what it calls something.
type Name = (Uuid, String);

/// Names that are counted by themselves.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    environments: HashSet<Name>,
    releases: HashSet<Name>,
}

impl Admitted {
    /// What events of the environment are counted as; none is `''`.
    pub(super) fn environment(&self, project: Uuid, name: Option<&str>) -> String {
        match name {
            None => String::new(),
            Some(name) if self.environments.contains(&(project, name.to_owned())) => {
                name.to_owned()
            }
            Some(_) => OTHER.to_owned(),
        }
    }

    pub(super) fn has_release(&self, project: Uuid, version: &str) -> bool {
        self.releases.contains(&(project, version.to_owned()))
    }
}

/// Counts what was left out, by its reason.
pub(super) fn left_out(what: &'static str, count: usize) {
    if count > 0 {
        metrics::counter!("loom_crash_surplus_total", "what" => what)
            .increment(u64::try_from(count).unwrap_or_default());
    }
}

/// What a batch names, with its organisation and when it was seen first and last.
type Wanted = BTreeMap<Name, (Uuid, DateTime<Utc>, DateTime<Utc>)>;

fn wanted(batch: &[Prepared], name: fn(&Prepared) -> Option<&String>) -> Wanted {
    let mut all = Wanted::new();
    for event in batch {
        let Some(name) = name(event) else { continue };
        let place = (event.claimed.project.0, name.clone());
        let (_, first, last) = all.entry(place).or_insert((event.claimed.org, event.at, event.at));
        *first = event.at.min(*first);
        *last = event.at.max(*last);
    }
    all
}

fn columns<'a>(names: impl Iterator<Item = &'a Name>) -> (Vec<Uuid>, Vec<String>) {
    names.cloned().unzip()
}

pub(super) async fn admit(
    pool: &PgPool,
    batch: &[Prepared],
    now: DateTime<Utc>,
) -> sqlx::Result<Admitted> {
    let mut environments = wanted(batch, |event| event.environment.as_ref());
    let mut releases = wanted(batch, |event| event.release.as_ref());
    let mut admitted = Admitted::default();
    let (of_environments, of_releases) = (columns(environments.keys()), columns(releases.keys()));
    let hour = now.duration_trunc(TimeDelta::hours(1)).unwrap_or(now);
    let known = sqlx::query!(
        r#"SELECT true AS "environment!", e.project_id AS "project!", e.name AS "name!", e.last_seen < $5 AS "stale!"
             FROM unnest($1::uuid[], $2::text[]) AS t(project, name)
             JOIN crash_environments e ON e.project_id = t.project AND e.name = t.name
           UNION ALL
           SELECT false, r.project_id, r.version, false
             FROM unnest($3::uuid[], $4::text[]) AS t(project, name)
             JOIN crash_releases r ON r.project_id = t.project AND r.version = t.name"#,
        &of_environments.0,
        &of_environments.1,
        &of_releases.0,
        &of_releases.1,
        hour
    )
    .fetch_all(pool)
    .await?;
    let mut stale = Vec::new();
    for row in known {
        let name = (row.project, row.name);
        if row.environment {
            environments.remove(&name);
            if row.stale {
                stale.push(name.clone());
            }
            admitted.environments.insert(name);
        } else {
            releases.remove(&name);
            admitted.releases.insert(name);
        }
    }
    if !stale.is_empty() {
        let (projects, names) = columns(stale.iter());
        sqlx::query!(
            "UPDATE crash_environments e SET last_seen = $3
               FROM (SELECT e.project_id, e.name FROM unnest($1::uuid[], $2::text[]) AS t(project, name)
                       JOIN crash_environments e ON e.project_id = t.project AND e.name = t.name
                      ORDER BY 1, 2 FOR UPDATE OF e SKIP LOCKED) due
              WHERE e.project_id = due.project_id AND e.name = due.name",
            &projects,
            &names,
            now
        )
        .execute(pool)
        .await?;
    }
    if !environments.is_empty() || !releases.is_empty() {
        let mut tx = loom_db::begin(pool).await?;
        add(&mut tx, &mut admitted, environments, releases, hour, now).await?;
        tx.commit().await?;
    }
    Ok(admitted)
}

/// What is new, as far as there is room.
async fn add(
    db: &mut PgConnection,
    admitted: &mut Admitted,
    environments: Wanted,
    releases: Wanted,
    hour: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let mut projects: Vec<Uuid> =
        environments.keys().chain(releases.keys()).map(|(project, _)| *project).collect();
    projects.sort_unstable();
    projects.dedup();
    // Whoever else adds names waits here.
    let rooms = sqlx::query!(
        r#"INSERT INTO crash_new_issues AS n (org_id, project_id, hour, issues)
           SELECT org_id, id, $2, 0 FROM crash_projects WHERE id = ANY ($1) ORDER BY id
           ON CONFLICT (project_id, hour) DO UPDATE SET issues = n.issues
           RETURNING project_id, releases"#,
        &projects,
        hour
    )
    .fetch_all(&mut *db)
    .await?;
    let mut room = HashMap::new();
    for row in rooms {
        let had = sqlx::query!(
            r#"SELECT (SELECT count(*) FROM crash_environments WHERE project_id = $1) AS "environments!",
                      (SELECT count(*) FROM (SELECT FROM crash_releases WHERE project_id = $1 AND on_sight LIMIT $2) few)
                          AS "releases!""#,
            row.project_id,
            MAX_RELEASES
        )
        .fetch_one(&mut *db)
        .await?;
        let of_hour = i64::from(MAX_RELEASES_PER_HOUR - row.releases);
        let of_releases = of_hour.min(MAX_RELEASES - had.releases);
        room.insert(row.project_id, (MAX_ENVIRONMENTS - had.environments, of_releases));
    }
    let (mut new_environments, mut new_releases) = (Vec::new(), Vec::new());
    let (mut surplus_environments, mut surplus_releases) = (0, 0);
    for (name, (org, ..)) in environments {
        match room.get_mut(&name.0) {
            Some((left, _)) if *left > 0 => {
                *left -= 1;
                new_environments.push((name, org));
            }
            _ => surplus_environments += 1,
        }
    }
    for (name, seen) in releases {
        match room.get_mut(&name.0) {
            Some((_, left)) if *left > 0 => {
                *left -= 1;
                new_releases.push((name, seen));
            }
            _ => surplus_releases += 1,
        }
    }
    left_out("environment", surplus_environments);
    left_out("release", surplus_releases);
    if !new_environments.is_empty() {
        let (projects, names) = columns(new_environments.iter().map(|(name, _)| name));
        sqlx::query!(
            "INSERT INTO crash_environments (org_id, project_id, name, last_seen)
             SELECT org, project, name, $4 FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS t(org, project, name)
             ON CONFLICT DO NOTHING",
            &new_environments.iter().map(|(_, org)| *org).collect::<Vec<_>>(),
            &projects,
            &names,
            now
        )
        .execute(&mut *db)
        .await?;
    }
    if !new_releases.is_empty() {
        let (projects, versions) = columns(new_releases.iter().map(|(name, _)| name));
        let first = |(_, seen): &(Name, (Uuid, DateTime<Utc>, DateTime<Utc>))| seen.1;
        sqlx::query!(
            "WITH made AS (
                 INSERT INTO crash_releases (id, org_id, project_id, version, sort_key, created_at, last_event, on_sight)
                 SELECT id, org, project, version, sort_key, first, last, true
                   FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::timestamptz[],
                               $7::timestamptz[])
                     AS t(id, org, project, version, sort_key, first, last)
                 ON CONFLICT (project_id, version) DO NOTHING
                 RETURNING project_id
             )
             UPDATE crash_new_issues n SET releases = n.releases + m.made
               FROM (SELECT project_id, count(*)::integer AS made FROM made GROUP BY project_id) m
              WHERE n.project_id = m.project_id AND n.hour = $8",
            &new_releases.iter().map(|new| new_uuid(first(new))).collect::<Vec<_>>(),
            &new_releases.iter().map(|(_, (org, ..))| *org).collect::<Vec<_>>(),
            &projects,
            &versions,
            &versions.iter().map(|version| sort_key(version)).collect::<Vec<_>>() as &[Option<String>],
            &new_releases.iter().map(first).collect::<Vec<_>>(),
            &new_releases.iter().map(|(_, (.., last))| *last).collect::<Vec<_>>(),
            hour
        )
        .execute(db)
        .await?;
    }
    admitted.environments.extend(new_environments.into_iter().map(|(name, _)| name));
    admitted.releases.extend(new_releases.into_iter().map(|(name, _)| name));
    Ok(())
}
