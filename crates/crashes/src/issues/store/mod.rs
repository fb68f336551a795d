//! The SQL of issues.

pub(crate) mod change;
pub(crate) mod detail;
pub(crate) mod events;
pub(crate) mod list;
pub(crate) mod merge;

use loom_core::{
    Result,
    id::{IssueId, OrgId, ProjectId},
};
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use super::model::{COLUMNS, Issue, ProjectHead};

/// What issues are read from, with the aliases of [`COLUMNS`].
pub(super) const FROM: &str = " FROM crash_issues i JOIN crash_projects p ON p.id = i.project_id \
     LEFT JOIN users u ON u.id = i.assigned_to ";

/// The project of an organisation that a path names, by id, number or slug.
pub(crate) async fn project(pool: &PgPool, org: OrgId, path: &str) -> Result<Option<ProjectHead>> {
    let id = path.parse::<Uuid>().ok();
    // Slugs are never digits only.
    let number = path.parse::<i64>().ok();
    let found = sqlx::query!(
        r#"SELECT id AS "id: ProjectId", slug, short_prefix FROM crash_projects
            WHERE org_id = $1 AND deleted_at IS NULL AND (id = $2 OR number = $3 OR slug = $4)"#,
        org.0,
        id,
        number,
        path,
    )
    .fetch_optional(pool)
    .await?;
    Ok(found.map(|row| ProjectHead { id: row.id, slug: row.slug, short_prefix: row.short_prefix }))
}

/// All projects of an organisation.
pub(crate) async fn projects(pool: &PgPool, org: OrgId) -> Result<Vec<Uuid>> {
    let found = sqlx::query_scalar!(
        "SELECT id FROM crash_projects WHERE org_id = $1 AND deleted_at IS NULL",
        org.0
    );
    Ok(found.fetch_all(pool).await?)
}

/// The issue of a project that a path names, by id or short id; with its row locked when it is to be
/// changed.
pub(crate) async fn find(
    db: &mut PgConnection,
    org: OrgId,
    project: &ProjectHead,
    path: &str,
    lock: bool,
) -> Result<Option<Issue>> {
    let mut sql = QueryBuilder::<Postgres>::new("SELECT ");
    sql.push(COLUMNS).push(FROM).push("WHERE i.org_id = ").push_bind(org);
    sql.push(" AND i.project_id = ").push_bind(project.id);
    if let Ok(id) = path.parse::<IssueId>() {
        sql.push(" AND i.id = ").push_bind(id);
    } else if let Some(number) = number_of(project, path) {
        sql.push(" AND i.number = ").push_bind(number);
    } else {
        return Ok(None);
    }
    if lock {
        sql.push(" FOR NO KEY UPDATE OF i");
    }
    Ok(sql.build_query_as().fetch_optional(db).await?)
}

/// Issues of a project by id, in the order of their ids; locked.
pub(crate) async fn lock_all(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    ids: &[Uuid],
) -> Result<Vec<Issue>> {
    let mut sql = QueryBuilder::<Postgres>::new("SELECT ");
    sql.push(COLUMNS).push(FROM).push("WHERE i.org_id = ").push_bind(org);
    sql.push(" AND i.project_id = ").push_bind(project);
    sql.push(" AND i.id = ANY(").push_bind(ids.to_vec());
    sql.push(") ORDER BY i.id FOR NO KEY UPDATE OF i");
    Ok(sql.build_query_as().fetch_all(db).await?)
}

/// The same, with those locked that were merged into them, which a merge takes along: all in one order.
pub(crate) async fn lock_family(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    ids: &[Uuid],
) -> Result<Vec<Issue>> {
    let mut family = sqlx::query_scalar!(
        "SELECT id FROM crash_issues WHERE org_id = $1 AND project_id = $2 AND merged_into = ANY($3)",
        org.0,
        project.0,
        ids
    )
    .fetch_all(&mut *db)
    .await?;
    family.extend_from_slice(ids);
    let mut locked = lock_all(db, org, project, &family).await?;
    locked.retain(|issue| ids.contains(&issue.id.0));
    Ok(locked)
}

/// `PROJ-123`, in any case of letters.
fn number_of(project: &ProjectHead, path: &str) -> Option<i64> {
    let (prefix, number) = path.rsplit_once('-')?;
    (prefix.eq_ignore_ascii_case(&project.short_prefix))
        .then(|| number.parse().ok())
        .flatten()
        .filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The ids of issues of a project by id or short id, in the order of their names.
pub(crate) async fn ids_of(
    db: &mut PgConnection,
    org: OrgId,
    project: &ProjectHead,
    names: &[String],
) -> Result<Vec<Option<Uuid>>> {
    let numbers: Vec<i64> = names.iter().filter_map(|name| number_of(project, name)).collect();
    let found = sqlx::query!(
        "SELECT id, number FROM crash_issues WHERE org_id = $1 AND project_id = $2 AND number = ANY($3)",
        org.0,
        project.id.0,
        &numbers,
    )
    .fetch_all(db)
    .await?;
    let of = |name: &String| {
        name.parse::<Uuid>().ok().or_else(|| {
            let number = number_of(project, name)?;
            found.iter().find(|row| row.number == number).map(|row| row.id)
        })
    };
    Ok(names.iter().map(of).collect())
}
