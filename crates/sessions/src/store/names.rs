//! Which releases and environments a project has. Whoever has a key of it can make names up, and what is
//! added up of each stays for ever: so many are new in a day, the rest is counted as one.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::id::{OrgId, ProjectId};
use moka::future::Cache;
use sqlx::PgConnection;

/// What stands for all that are too many.
pub(crate) const OTHER: &str = "(other)";
/// Names that are known without asking.
const REMEMBERED: u64 = 20_000;
const DAY: TimeDelta = TimeDelta::days(1);

/// A release and an environment of a project.
pub(crate) type Name = (OrgId, ProjectId, Arc<str>, Arc<str>);

/// The names that are known to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    known: Cache<Name, ()>,
    new_in_a_day: u32,
}

/// What becomes of the names in a batch.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    fresh: Vec<Name>,
    folded: HashMap<Name, (Arc<str>, Arc<str>)>,
}

impl Admitted {
    /// What a name is counted as when it is one too many.
    pub(crate) fn folded(&self, name: &Name) -> Option<&(Arc<str>, Arc<str>)> {
        self.folded.get(name)
    }
}

impl Names {
    pub(crate) fn new(new_in_a_day: u32) -> Self {
        Self { known: Cache::new(REMEMBERED), new_in_a_day }
    }

    /// Asks the database only about what is not remembered.
    pub(crate) async fn admit(
        &self,
        db: &mut PgConnection,
        told: BTreeSet<Name>,
        now: DateTime<Utc>,
    ) -> sqlx::Result<Admitted> {
        let asked: Vec<Name> =
            told.into_iter().filter(|name| !self.known.contains_key(name)).collect();
        if asked.is_empty() {
            return Ok(Admitted::default());
        }
        let stored = self.store(db, &asked, now).await?;
        let (fresh, surplus): (Vec<_>, Vec<_>) =
            asked.into_iter().partition(|(_, project, release, environment)| {
                stored.contains(&(*project, release.to_string(), environment.to_string()))
            });
        let releases = releases(db, &surplus).await?;
        let other: Arc<str> = OTHER.into();
        let folded = surplus.into_iter().map(|name| {
            // A new environment of a release that is known does not take the release away.
            let is_known = releases.contains(&(name.1, name.2.to_string()));
            let release = if is_known { Arc::clone(&name.2) } else { Arc::clone(&other) };
            (name, (release, Arc::clone(&other)))
        });
        Ok(Admitted { folded: folded.collect(), fresh })
    }

    /// To be called after the commit.
    pub(crate) async fn remember(&self, admitted: Admitted) {
        for name in admitted.fresh {
            self.known.insert(name, ()).await;
        }
    }

    /// Those that are there, and those that may be added, in one order for all who write.
    async fn store(
        &self,
        db: &mut PgConnection,
        asked: &[Name],
        now: DateTime<Utc>,
    ) -> sqlx::Result<HashSet<(ProjectId, String, String)>> {
        let orgs: Vec<_> = asked.iter().map(|(org, ..)| org.0).collect();
        let projects: Vec<_> = asked.iter().map(|(_, project, ..)| project.0).collect();
        let releases: Vec<String> =
            asked.iter().map(|(_, _, release, _)| release.to_string()).collect();
        let environments: Vec<String> =
            asked.iter().map(|(_, _, _, environment)| environment.to_string()).collect();
        let rows = sqlx::query!(
            r#"WITH told AS MATERIALIZED (
                 SELECT t.*, EXISTS (SELECT FROM app_session_names n
                                      WHERE n.project_id = t.project_id AND n.release = t.release
                                        AND n.environment = t.environment) AS known
                   FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[])
                        AS t (org_id, project_id, release, environment)
               ), room AS (
                 SELECT p.project_id,
                        $6 - (SELECT count(*) FROM app_session_names n
                               WHERE n.project_id = p.project_id AND n.first_seen > $7) AS places
                   FROM (SELECT DISTINCT project_id FROM told WHERE NOT known) p
               ), fresh AS (
                 SELECT t.*, row_number() OVER
                            (PARTITION BY project_id ORDER BY release, environment) AS place
                   FROM told t WHERE NOT known
               ), added AS (
                 INSERT INTO app_session_names AS n (project_id, release, environment, first_seen, org_id)
                 SELECT project_id, release, environment, $5, org_id FROM fresh JOIN room USING (project_id)
                  WHERE place <= places ORDER BY project_id, release, environment
                 ON CONFLICT (project_id, release, environment)
                    -- Another server was first; it is there all the same.
                    DO UPDATE SET first_seen = n.first_seen
                 RETURNING project_id, release, environment
               )
               SELECT project_id AS "project_id!: ProjectId", release AS "release!",
                      environment AS "environment!"
                 FROM told WHERE known
               UNION ALL SELECT * FROM added"#,
            &orgs,
            &projects,
            &releases,
            &environments,
            now,
            i64::from(self.new_in_a_day),
            now - DAY,
        )
        .fetch_all(db)
        .await?;
        Ok(rows.into_iter().map(|row| (row.project_id, row.release, row.environment)).collect())
    }
}

/// Which of the releases are known, in whatever environment.
async fn releases(
    db: &mut PgConnection,
    names: &[Name],
) -> sqlx::Result<HashSet<(ProjectId, String)>> {
    if names.is_empty() {
        return Ok(HashSet::new());
    }
    let projects: Vec<_> = names.iter().map(|(_, project, ..)| project.0).collect();
    let releases: Vec<String> =
        names.iter().map(|(_, _, release, _)| release.to_string()).collect();
    let rows = sqlx::query!(
        r#"SELECT DISTINCT t.project_id AS "project_id!: ProjectId", t.release AS "release!"
             FROM unnest($1::uuid[], $2::text[]) AS t (project_id, release)
            WHERE EXISTS (SELECT FROM app_session_names n
                           WHERE n.project_id = t.project_id AND n.release = t.release)"#,
        &projects,
        &releases,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.project_id, row.release)).collect())
}
