//! The SQL of releases.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{OrgId, ProjectId},
    port::Project,
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::model::{Commit, Deploy, IssueCounts, NewDeploy, Release, ReleasePatch};

/// False: there is one of this version already.
pub(crate) async fn insert(
    db: &mut PgConnection,
    project: &Project,
    version: &str,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        // What somebody names stays, though events had named it first.
        r#"INSERT INTO crash_releases (id, org_id, project_id, version, sort_key, created_at)
              VALUES ($1, $2, $3, $4, $5, $6)
           ON CONFLICT (project_id, version) DO UPDATE SET on_sight = false
           RETURNING (xmax = 0) AS "is_new!""#,
        loom_core::id::new_uuid(now),
        project.org.0,
        project.id.0,
        version,
        crate::release::order::sort_key(version),
        now
    )
    .fetch_one(db)
    .await?;
    Ok(done.is_new)
}

pub(crate) async fn find(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    version: &str,
) -> Result<Option<Release>> {
    Ok(sqlx::query_as!(
        Release,
        r#"SELECT id, org_id AS "org_id: OrgId", project_id AS "project_id: ProjectId", version, created_at,
                  started_at, released_at, first_event, last_event, events, url, ref AS reference
             FROM crash_releases WHERE org_id = $1 AND project_id = $2 AND version = $3"#,
        org.0,
        project.0,
        version
    )
    .fetch_optional(db)
    .await?)
}

pub(crate) async fn by_versions(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    versions: &[String],
) -> Result<Vec<Release>> {
    Ok(sqlx::query_as!(
        Release,
        r#"SELECT id, org_id AS "org_id: OrgId", project_id AS "project_id: ProjectId", version, created_at,
                  started_at, released_at, first_event, last_event, events, url, ref AS reference
             FROM crash_releases WHERE org_id = $1 AND project_id = $2 AND version = ANY($3)"#,
        org.0,
        project.0,
        versions
    )
    .fetch_all(pool)
    .await?)
}

/// Newest first.
pub(crate) async fn list(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    prefix: &str,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Release>> {
    let (at, id) = after.unzip();
    Ok(sqlx::query_as!(
        Release,
        r#"SELECT id, org_id AS "org_id: OrgId", project_id AS "project_id: ProjectId", version, created_at,
                  started_at, released_at, first_event, last_event, events, url, ref AS reference
             FROM crash_releases
            WHERE org_id = $1 AND project_id = $2 AND starts_with(version, $3)
              AND ($4::timestamptz IS NULL OR (created_at, id) < ($4, $5::uuid))
            ORDER BY created_at DESC, id DESC LIMIT $6"#,
        org.0,
        project.0,
        prefix,
        at,
        id,
        limit
    )
    .fetch_all(pool)
    .await?)
}

/// Of one project of an organisation or of all, newest first.
pub(crate) async fn list_of_org(
    pool: &PgPool,
    org: OrgId,
    project: Option<ProjectId>,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Release>> {
    if let Some(project) = project {
        return list(pool, org, project, "", after, limit).await;
    }
    let (at, id) = after.unzip();
    Ok(sqlx::query_as!(
        Release,
        r#"SELECT r.id, r.org_id AS "org_id: OrgId", r.project_id AS "project_id: ProjectId", r.version,
                  r.created_at, r.started_at, r.released_at, r.first_event, r.last_event, r.events, r.url,
                  r.ref AS reference
             FROM crash_releases r
             JOIN crash_projects p ON p.id = r.project_id AND p.deleted_at IS NULL
            WHERE r.org_id = $1 AND ($2::timestamptz IS NULL OR (r.created_at, r.id) < ($2, $3::uuid))
            ORDER BY r.created_at DESC, r.id DESC LIMIT $4"#,
        org.0,
        at,
        id,
        limit
    )
    .fetch_all(pool)
    .await?)
}

/// The projects that have a release of this version; at most 100.
pub(crate) async fn projects_with(
    pool: &PgPool,
    org: OrgId,
    version: &str,
) -> Result<Vec<ProjectId>> {
    Ok(sqlx::query_scalar!(
        r#"SELECT r.project_id AS "project_id: ProjectId" FROM crash_releases r
             JOIN crash_projects p ON p.id = r.project_id AND p.deleted_at IS NULL
            WHERE r.org_id = $1 AND r.version = $2 ORDER BY r.created_at LIMIT 100"#,
        org.0,
        version
    )
    .fetch_all(pool)
    .await?)
}

/// What is absent stays as it is.
pub(crate) async fn update(
    db: &mut PgConnection,
    org: OrgId,
    release: Uuid,
    patch: &ReleasePatch,
) -> Result<()> {
    sqlx::query!(
        "UPDATE crash_releases
            SET url = coalesce($3, url), ref = coalesce($4, ref), started_at = coalesce($5, started_at),
                released_at = coalesce($6, released_at), on_sight = false
          WHERE org_id = $1 AND id = $2",
        org.0,
        release,
        patch.url,
        patch.reference,
        patch.started_at,
        patch.released_at
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn delete(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    version: &str,
) -> Result<bool> {
    let done = sqlx::query!(
        "DELETE FROM crash_releases WHERE org_id = $1 AND project_id = $2 AND version = $3",
        org.0,
        project.0,
        version
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Issues new, back and resolved in releases.
pub(crate) async fn issues(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    versions: &[String],
) -> Result<HashMap<String, IssueCounts>> {
    let rows = sqlx::query!(
        r#"SELECT w.version AS "version!", count(*) FILTER (WHERE w.what = 0) AS "new!",
                  count(*) FILTER (WHERE w.what = 1) AS "regressed!",
                  count(*) FILTER (WHERE w.what = 2) AS "resolved!"
             FROM crash_issues i
            CROSS JOIN LATERAL (VALUES (0, i.first_release), (1, i.regressed_in_release),
                      (2, CASE WHEN i.status = 'resolved' THEN i.resolved_in_release END)) AS w (what, version)
            WHERE i.org_id = $1 AND i.project_id = $2 AND i.merged_into IS NULL AND w.version = ANY($3)
            GROUP BY w.version"#,
        org.0,
        project.0,
        versions
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let counts =
                IssueCounts { new: row.new, regressed: row.regressed, resolved: row.resolved };
            (row.version, counts)
        })
        .collect())
}

/// Commits and deploys of releases, by their ids.
pub(crate) async fn counts(
    pool: &PgPool,
    org: OrgId,
    releases: &[Uuid],
) -> Result<HashMap<Uuid, (i64, i64)>> {
    let rows = sqlx::query!(
        r#"SELECT r.id AS "id!",
                  (SELECT count(*) FROM crash_release_commits c WHERE c.org_id = $1 AND c.release_id = r.id) AS "commits!",
                  (SELECT count(*) FROM crash_deploys d WHERE d.org_id = $1 AND d.release_id = r.id) AS "deploys!"
             FROM UNNEST($2::uuid[]) AS r (id)"#,
        org.0,
        releases
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, (row.commits, row.deploys))).collect())
}

/// In place of those that it has.
pub(crate) async fn replace_commits(
    db: &mut PgConnection,
    release: &Release,
    commits: &[Commit],
) -> Result<()> {
    sqlx::query!(
        "DELETE FROM crash_release_commits WHERE org_id = $1 AND release_id = $2",
        release.org_id.0,
        release.id
    )
    .execute(&mut *db)
    .await?;
    // Files are a list in a list: as JSON.
    let rows = serde_json::to_value(commits).map_err(loom_core::Error::internal)?;
    sqlx::query!(
        "INSERT INTO crash_release_commits
             (org_id, project_id, release_id, position, sha, message, author_name, author_email, at, repository, files)
         SELECT $1, $2, $3, c.n - 1, c.row ->> 'sha', c.row ->> 'message', c.row ->> 'author_name',
                c.row ->> 'author_email', (c.row ->> 'at')::timestamptz, c.row ->> 'repository',
                ARRAY(SELECT jsonb_array_elements_text(c.row -> 'files'))
           FROM jsonb_array_elements($4) WITH ORDINALITY AS c (row, n)",
        release.org_id.0,
        release.project_id.0,
        release.id,
        rows
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The newest first, from a place on.
pub(crate) async fn commits(
    pool: &PgPool,
    org: OrgId,
    release: Uuid,
    from: i32,
    limit: i64,
) -> Result<Vec<Commit>> {
    Ok(sqlx::query_as!(
        Commit,
        "SELECT sha, message, author_name, author_email, at, repository, files FROM crash_release_commits
          WHERE org_id = $1 AND release_id = $2 AND position >= $3 ORDER BY position LIMIT $4",
        org.0,
        release,
        from,
        limit
    )
    .fetch_all(pool)
    .await?)
}

pub(crate) async fn insert_deploy(
    db: &mut PgConnection,
    release: &Release,
    new: &NewDeploy,
    now: DateTime<Utc>,
) -> Result<Deploy> {
    Ok(sqlx::query_as!(
        Deploy,
        "INSERT INTO crash_deploys
             (id, org_id, project_id, release_id, environment, name, url, started_at, finished_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         RETURNING id, environment, name, url, started_at, finished_at",
        loom_core::id::new_uuid(now),
        release.org_id.0,
        release.project_id.0,
        release.id,
        new.environment.trim(),
        new.name,
        new.url,
        new.started_at,
        new.finished_at.unwrap_or(now),
        now
    )
    .fetch_one(db)
    .await?)
}

/// Newest first.
pub(crate) async fn deploys(
    pool: &PgPool,
    org: OrgId,
    release: Uuid,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Deploy>> {
    let (at, id) = after.unzip();
    Ok(sqlx::query_as!(
        Deploy,
        "SELECT id, environment, name, url, started_at, finished_at FROM crash_deploys
          WHERE org_id = $1 AND release_id = $2
            AND ($3::timestamptz IS NULL OR (finished_at, id) < ($3, $4::uuid))
          ORDER BY finished_at DESC, id DESC LIMIT $5",
        org.0,
        release,
        at,
        id,
        limit
    )
    .fetch_all(pool)
    .await?)
}

/// The release before this one that has commits: by version where both are semantic, else by time.
pub(crate) async fn previous(
    db: &mut PgConnection,
    release: &Release,
    with_commits: bool,
) -> Result<Option<Release>> {
    Ok(sqlx::query_as!(
        Release,
        r#"SELECT p.id, p.org_id AS "org_id: OrgId", p.project_id AS "project_id: ProjectId", p.version, p.created_at,
                  p.started_at, p.released_at, p.first_event, p.last_event, p.events, p.url, p.ref AS reference
             FROM crash_releases r
             JOIN crash_releases p ON p.org_id = r.org_id AND p.project_id = r.project_id AND p.id <> r.id
              AND CASE WHEN p.sort_key IS NULL OR r.sort_key IS NULL
                       THEN coalesce(p.first_event, p.created_at) < coalesce(r.first_event, r.created_at)
                       ELSE p.sort_key COLLATE "C" < r.sort_key COLLATE "C" END
            WHERE r.org_id = $1 AND r.id = $2
              AND (NOT $3 OR EXISTS (SELECT FROM crash_release_commits c WHERE c.release_id = p.id))
            ORDER BY p.sort_key COLLATE "C" DESC NULLS LAST, coalesce(p.first_event, p.created_at) DESC LIMIT 1"#,
        release.org_id.0,
        release.id,
        with_commits
    )
    .fetch_optional(db)
    .await?)
}

/// Whoever changes the commits of a release does so alone.
pub(crate) async fn lock(db: &mut PgConnection, org: OrgId, release: Uuid) -> Result<()> {
    sqlx::query!(
        "SELECT id FROM crash_releases WHERE org_id = $1 AND id = $2 FOR UPDATE",
        org.0,
        release
    )
    .fetch_optional(db)
    .await?;
    Ok(())
}
