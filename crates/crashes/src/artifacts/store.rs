//! The SQL of artifacts.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{ArtifactId, OrgId, ProjectId},
};
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use super::model::{Artifact, ArtifactFilter, ArtifactKind, ArtifactObject, What};

/// Objects that a detail shows.
const SHOWN: i64 = 200;

/// A name of the store that an upload is about to use; it is free again after `remove_after`.
pub(crate) async fn reserve(
    pool: &PgPool,
    location: &str,
    remove_after: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO crash_loose_objects (location, remove_after) VALUES ($1, $2)",
        location,
        remove_after
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Nothing will refer to it any more. False: something does.
pub(crate) async fn release(db: &mut PgConnection, location: &str) -> Result<bool> {
    let released = sqlx::query!(
        "UPDATE crash_loose_objects SET remove_after = '-infinity' WHERE location = $1",
        location
    )
    .execute(db)
    .await?;
    Ok(released.rows_affected() > 0)
}

pub(crate) async fn keep(db: &mut PgConnection, location: &str) -> Result<()> {
    sqlx::query!("DELETE FROM crash_loose_objects WHERE location = $1", location)
        .execute(db)
        .await?;
    Ok(())
}

/// A content of an organisation.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub sha256: Vec<u8>,
    pub location: String,
    pub size: i64,
}

/// Makes a staged content known. False: it is there already, and the new one is loose.
pub(crate) async fn take_blob(
    db: &mut PgConnection,
    org: OrgId,
    staged: &super::objects::Staged,
    now: DateTime<Utc>,
) -> Result<bool> {
    let location = sqlx::query_scalar!(
        "INSERT INTO crash_blobs (org_id, sha256, sha1, location, size, touched_at)
              VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (org_id, sha256) DO UPDATE SET touched_at = EXCLUDED.touched_at
         RETURNING location",
        org.0,
        &staged.sha256,
        &staged.sha1,
        staged.location,
        i64::try_from(staged.size).unwrap_or(i64::MAX),
        now
    )
    .fetch_one(&mut *db)
    .await?;
    let is_new = location == staged.location;
    if is_new {
        keep(db, &staged.location).await?;
    } else {
        release(db, &staged.location).await?;
    }
    Ok(is_new)
}

/// The content that an assembly of this checksum would make.
pub(crate) async fn blob_by_sha1(pool: &PgPool, org: OrgId, sha1: &[u8]) -> Result<Option<Blob>> {
    Ok(sqlx::query_as!(
        Blob,
        "SELECT sha256, location, size FROM crash_blobs WHERE org_id = $1 AND sha1 = $2 LIMIT 1",
        org.0,
        sha1
    )
    .fetch_optional(pool)
    .await?)
}

/// Holds a content that is there, so that it is not removed before the transaction ends. False: it is gone.
pub(crate) async fn hold_blob(
    db: &mut PgConnection,
    org: OrgId,
    sha256: &[u8],
    now: DateTime<Utc>,
) -> Result<bool> {
    let held = sqlx::query!(
        "UPDATE crash_blobs SET touched_at = $3 WHERE org_id = $1 AND sha256 = $2",
        org.0,
        sha256,
        now
    )
    .execute(db)
    .await?;
    Ok(held.rows_affected() > 0)
}

pub(crate) struct NewArtifact<'a> {
    pub org: OrgId,
    pub project: ProjectId,
    pub sha256: &'a [u8],
    pub kind: ArtifactKind,
    pub name: &'a str,
    pub size: i64,
    pub release: &'a str,
    pub dist: &'a str,
    pub uploaded_by: Option<&'a str>,
    pub now: DateTime<Utc>,
}

/// The artifact with this content and name, and whether it is new.
pub(crate) async fn insert(
    db: &mut PgConnection,
    new: &NewArtifact<'_>,
) -> Result<(ArtifactId, bool)> {
    let id = ArtifactId::new(new.now);
    let stored = sqlx::query_scalar!(
        r#"INSERT INTO crash_artifacts
               (id, org_id, project_id, sha256, kind, name, size, release, dist, uploaded_by, created_at, last_used_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)
           ON CONFLICT (project_id, sha256, release, dist, name)
               DO UPDATE SET last_used_at = EXCLUDED.last_used_at
           RETURNING id AS "id: ArtifactId""#,
        id.0,
        new.org.0,
        new.project.0,
        new.sha256,
        new.kind as ArtifactKind,
        new.name,
        new.size,
        new.release,
        new.dist,
        new.uploaded_by,
        new.now
    )
    .fetch_one(db)
    .await?;
    Ok((stored, stored == id))
}

/// Adds those that are not there yet; gives how many.
pub(crate) async fn insert_objects(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    artifact: ArtifactId,
    objects: &[ArtifactObject],
) -> Result<u64> {
    // Arrays of different lengths do not go through UNNEST: features as words in one text.
    let column =
        |of: fn(&ArtifactObject) -> Option<String>| objects.iter().map(of).collect::<Vec<_>>();
    let (debug_ids, code_ids) = (column(|o| o.debug_id.clone()), column(|o| o.code_id.clone()));
    let (archs, urls) = (column(|o| o.arch.clone()), column(|o| o.url.clone()));
    let (entries, maps) = (column(|o| o.entry.clone()), column(|o| o.source_map.clone()));
    let features: Vec<_> = objects.iter().map(|o| o.features.join(" ")).collect();
    let whats: Vec<_> = objects.iter().map(|o| o.what.as_str().to_owned()).collect();
    let sizes: Vec<_> = objects.iter().map(|o| o.size).collect();
    let done = sqlx::query!(
        "INSERT INTO crash_artifact_objects
             (org_id, project_id, artifact_id, position, what, debug_id, code_id, arch, features, url, entry,
              source_map, size)
         SELECT $1, $2, $3,
                n + (SELECT coalesce(max(k.position), 0) FROM crash_artifact_objects k WHERE k.artifact_id = $3),
                what, debug_id, code_id, arch, coalesce(string_to_array(nullif(features, ''), ' '), '{}'),
                url, entry, source_map, size
           FROM UNNEST($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
                       $11::text[], $12::bigint[])
                WITH ORDINALITY AS o (what, debug_id, code_id, arch, features, url, entry, source_map, size, n)
          WHERE NOT EXISTS (
              SELECT FROM crash_artifact_objects k
               WHERE k.artifact_id = $3
                 AND ROW (k.what, k.arch, k.debug_id, k.code_id, k.url, k.entry)
                     IS NOT DISTINCT FROM ROW (o.what, o.arch, o.debug_id, o.code_id, o.url, o.entry))",
        org.0,
        project.0,
        artifact.0,
        &whats,
        &debug_ids as &[Option<String>],
        &code_ids as &[Option<String>],
        &archs as &[Option<String>],
        &features,
        &urls as &[Option<String>],
        &entries as &[Option<String>],
        &maps as &[Option<String>],
        &sizes
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub(crate) async fn count_objects(db: &mut PgConnection, artifact: ArtifactId) -> Result<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM crash_artifact_objects WHERE artifact_id = $1"#,
        artifact.0
    )
    .fetch_one(db)
    .await?)
}

pub(crate) async fn find(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    id: ArtifactId,
) -> Result<Option<Artifact>> {
    Ok(sqlx::query_as!(
        Artifact,
        r#"SELECT id AS "id: ArtifactId", project_id AS "project_id: ProjectId",
                  kind AS "kind: ArtifactKind", name, size, sha256, nullif(release, '') AS release,
                  nullif(dist, '') AS dist, uploaded_by, created_at, last_used_at
             FROM crash_artifacts WHERE org_id = $1 AND project_id = $2 AND id = $3"#,
        org.0,
        project.0,
        id.0
    )
    .fetch_optional(pool)
    .await?)
}

/// Some of the objects of an artifact, and how many there are.
pub(crate) async fn objects(
    pool: &PgPool,
    org: OrgId,
    id: ArtifactId,
) -> Result<(Vec<ArtifactObject>, i64)> {
    let objects = sqlx::query_as!(
        ArtifactObject,
        r#"SELECT what AS "what: What", debug_id, code_id, arch, features, url, entry, source_map, size
             FROM crash_artifact_objects WHERE org_id = $1 AND artifact_id = $2 ORDER BY position LIMIT $3"#,
        org.0,
        id.0,
        SHOWN
    )
    .fetch_all(pool)
    .await?;
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM crash_artifact_objects WHERE org_id = $1 AND artifact_id = $2"#,
        org.0,
        id.0
    )
    .fetch_one(pool)
    .await?;
    Ok((objects, count))
}

/// Newest first.
pub(crate) async fn list(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    filter: &ArtifactFilter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Artifact>> {
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT id, project_id, kind, name, size, sha256, nullif(release, '') AS release,
                nullif(dist, '') AS dist, uploaded_by, created_at, last_used_at
           FROM crash_artifacts WHERE org_id = ",
    );
    sql.push_bind(org).push(" AND project_id = ").push_bind(project);
    for (condition, value) in [(" AND release = ", &filter.release), (" AND dist = ", &filter.dist)]
    {
        if let Some(value) = value {
            sql.push(condition).push_bind(value.clone());
        }
    }
    if let Some(kind) = filter.kind {
        sql.push(" AND kind = ").push_bind(kind);
    }
    if let Some(debug_id) = &filter.debug_id {
        sql.push(" AND id IN (SELECT artifact_id FROM crash_artifact_objects WHERE project_id = ");
        sql.push_bind(project).push(" AND debug_id = ").push_bind(debug_id.clone()).push(")");
    }
    if let Some((at, id)) = after {
        sql.push(" AND (created_at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
    }
    sql.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(limit);
    Ok(sql.build_query_as().fetch_all(pool).await?)
}

pub(crate) async fn delete(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    id: ArtifactId,
) -> Result<bool> {
    let gone = sqlx::query!(
        "DELETE FROM crash_artifacts WHERE org_id = $1 AND project_id = $2 AND id = $3",
        org.0,
        project.0,
        id.0
    )
    .execute(pool)
    .await?;
    Ok(gone.rows_affected() > 0)
}

pub(crate) async fn blob(pool: &PgPool, org: OrgId, sha256: &[u8]) -> Result<Option<Blob>> {
    Ok(sqlx::query_as!(
        Blob,
        "SELECT sha256, location, size FROM crash_blobs WHERE org_id = $1 AND sha256 = $2",
        org.0,
        sha256
    )
    .fetch_optional(pool)
    .await?)
}

/// A file that could be what is looked for.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Candidate {
    pub artifact_id: ArtifactId,
    pub name: String,
    pub sha256: Vec<u8>,
    pub location: String,
    pub url: Option<String>,
    pub entry: Option<String>,
    pub source_map: Option<String>,
    pub last_used_at: DateTime<Utc>,
}

const CANDIDATES: &str =
    "SELECT a.id AS artifact_id, a.name, a.sha256, b.location, o.url, o.entry, o.source_map,
            a.last_used_at
       FROM crash_artifact_objects o
       JOIN crash_artifacts a ON a.id = o.artifact_id
       JOIN crash_blobs b ON b.org_id = a.org_id AND b.sha256 = a.sha256
      WHERE o.project_id = ";

/// The best object of a project by its debug id or else its code id: that has the first of `features` first,
/// newest first.
pub(crate) async fn by_id(
    pool: &PgPool,
    project: ProjectId,
    what: What,
    debug_id: Option<&str>,
    code_id: Option<&str>,
    features: &[&str],
) -> Result<Option<Candidate>> {
    let mut sql = QueryBuilder::<Postgres>::new(CANDIDATES);
    sql.push_bind(project).push(" AND o.what = ").push_bind(what.as_str()).push(" AND (false");
    for (column, id) in [("debug_id", debug_id), ("code_id", code_id)] {
        if let Some(id) = id {
            sql.push(format!(" OR o.{column} = ")).push_bind(id.to_owned());
        }
    }
    sql.push(")");
    if !features.is_empty() {
        sql.push(" AND o.features && ")
            .push_bind(features.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>());
    }
    sql.push(" ORDER BY ");
    if let Some(debug_id) = debug_id {
        sql.push("(o.debug_id = ").push_bind(debug_id.to_owned()).push(") DESC NULLS LAST, ");
    }
    for feature in features {
        sql.push("(").push_bind((*feature).to_owned()).push(" = ANY (o.features)) DESC, ");
    }
    sql.push("a.created_at DESC, a.id DESC, o.position LIMIT 1");
    Ok(sql.build_query_as().fetch_optional(pool).await?)
}

/// Objects of a release by the forms of a URL, the best first: with the same dist before none, the form that
/// says most first, newest first.
pub(crate) async fn by_url(
    pool: &PgPool,
    project: ProjectId,
    what: What,
    release: &str,
    dist: &str,
    urls: &[String],
) -> Result<Option<Candidate>> {
    let mut sql = QueryBuilder::<Postgres>::new(CANDIDATES);
    sql.push_bind(project).push(" AND o.what = ").push_bind(what.as_str());
    sql.push(" AND o.url = ANY(").push_bind(urls.to_vec()).push(") AND a.release = ");
    sql.push_bind(release.to_owned()).push(" AND a.dist IN ('', ").push_bind(dist.to_owned());
    sql.push(") ORDER BY (a.dist <> '') DESC, array_position(").push_bind(urls.to_vec());
    sql.push("::text[], o.url), a.created_at DESC, a.id DESC, o.position LIMIT 1");
    Ok(sql.build_query_as().fetch_optional(pool).await?)
}

pub(crate) async fn used(pool: &PgPool, id: ArtifactId, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "UPDATE crash_artifacts SET last_used_at = $2 WHERE id = $1 AND last_used_at < $2",
        id.0,
        now
    )
    .execute(pool)
    .await?;
    Ok(())
}
