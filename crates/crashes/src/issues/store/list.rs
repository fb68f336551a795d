//! The SQL of lists.

use http::StatusCode;
use loom_core::{
    Error, Result,
    id::{OrgId, ProjectId, UserId},
};
use sqlx::{PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use super::super::{
    list::{Listing, Position},
    model::{COLUMNS, Issue},
    search::{self, Within},
};

/// Where issues are looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope<'a> {
    Project(ProjectId),
    /// All projects of the organisation, which are these.
    Organisation(&'a [Uuid]),
}

/// One page, in the list's order.
pub(crate) async fn list(
    pool: &PgPool,
    org: OrgId,
    scope: Scope<'_>,
    listing: &Listing,
    after: Option<Position>,
    limit: i64,
) -> Result<Vec<Issue>> {
    let people = people(pool, org, &listing.emails).await?;
    let mut sql = statement(org, scope, listing, &people, after, limit);
    // Each query is a statement of its own, planned for its values: none of them is worth being kept.
    let query = sql.build_query_as().persistent(false);
    if !listing.query.is_broad() {
        return Ok(query.fetch_all(pool).await?);
    }
    let mut tx = bounded(pool).await?;
    query.fetch_all(&mut *tx).await.map_err(too_broad)
}

/// A transaction whose statements end after a while.
async fn bounded(pool: &PgPool) -> Result<sqlx::Transaction<'static, Postgres>> {
    let mut tx = loom_db::begin(pool).await?;
    sqlx::query("SET LOCAL statement_timeout = '5s'").execute(&mut *tx).await?;
    Ok(tx)
}

fn too_broad(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Database(db) if db.code().as_deref() == Some("57014") => Error::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "query_too_broad",
            "this query has to look at too many issues; leave out a `*` or a `!`, or say more, as \
             `is:unresolved` or `last_seen:-7d`",
        )
        .because(error),
        _ => error.into(),
    }
}

/// The statement of a page.
pub(crate) fn statement(
    org: OrgId,
    scope: Scope<'_>,
    listing: &Listing,
    people: &[Option<UserId>],
    after: Option<Position>,
    limit: i64,
) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::<Postgres>::new("SELECT ");
    // The page first, what is shown of it then: else all that is sorted carries its sketch.
    sql.push(COLUMNS).push(" FROM (SELECT i.id FROM crash_issues i WHERE i.merged_into IS NULL");
    push_where(&mut sql, org, scope, listing, people);
    let column = listing.sort.column();
    match after {
        None => {}
        Some(Position::Time(at, id)) => {
            sql.push(" AND (").push(column).push(", i.id) < (").push_bind(at);
            sql.push(", ").push_bind(id).push(")");
        }
        Some(Position::Count(count, id)) => {
            sql.push(" AND (").push(column).push(", i.id) < (").push_bind(count);
            sql.push(", ").push_bind(id).push(")");
        }
    }
    sql.push(" ORDER BY ").push(column).push(" DESC, i.id DESC LIMIT ").push_bind(limit);
    sql.push(
        ") page JOIN crash_issues i ON i.id = page.id JOIN crash_projects p ON p.id = i.project_id",
    );
    sql.push(" LEFT JOIN users u ON u.id = i.assigned_to");
    sql.push(" ORDER BY ").push(column).push(" DESC, i.id DESC");
    sql
}

/// Issues of a project that a query finds, the newest first: at most so many.
pub(crate) async fn ids(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    listing: &Listing,
    limit: i64,
) -> Result<Vec<Uuid>> {
    let people = people(pool, org, &listing.emails).await?;
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT i.id FROM crash_issues i WHERE i.merged_into IS NULL",
    );
    push_where(&mut sql, org, Scope::Project(project), listing, &people);
    sql.push(" ORDER BY i.last_seen DESC, i.id DESC LIMIT ").push_bind(limit);
    let mut tx = bounded(pool).await?;
    sql.build_query_scalar().persistent(false).fetch_all(&mut *tx).await.map_err(too_broad)
}

fn push_where(
    sql: &mut QueryBuilder<Postgres>,
    org: OrgId,
    scope: Scope<'_>,
    listing: &Listing,
    people: &[Option<UserId>],
) {
    sql.push(" AND i.org_id = ").push_bind(org);
    let one;
    let projects = match scope {
        Scope::Project(project) => {
            sql.push(" AND i.project_id = ").push_bind(project);
            one = [project.0];
            &one[..]
        }
        Scope::Organisation(projects) => projects,
    };
    search::push(sql, &listing.query, &Within { org, projects, people });
}

/// Members of the organisation by their addresses.
async fn people(pool: &PgPool, org: OrgId, emails: &[String]) -> Result<Vec<Option<UserId>>> {
    if emails.is_empty() {
        return Ok(Vec::new());
    }
    let found = sqlx::query!(
        r#"SELECT u.id AS "id: UserId", u.email FROM users u
             JOIN organisation_members m ON m.user_id = u.id AND m.org_id = $1
            WHERE u.email = ANY($2)"#,
        org.0,
        emails,
    )
    .fetch_all(pool)
    .await?;
    let of = |email: &String| found.iter().find(|row| row.email == *email).map(|row| row.id);
    Ok(emails.iter().map(of).collect())
}
