//! The SQL of lists and quotas.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    id::{OrgId, UserId, WeaverId},
};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use super::Raw;
use crate::{
    access::{Access, Whose},
    model::{Network, Row, Status},
};

/// Which weavers are wanted.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) statuses: Vec<Status>,
    pub(crate) tags: BTreeMap<String, String>,
}

/// A page, the newest first.
pub(crate) async fn page(
    db: &mut PgConnection,
    access: Access,
    filter: &Filter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Row>> {
    let mut query = QueryBuilder::<Postgres>::new("SELECT * FROM weavers WHERE org_id = ");
    query.push_bind(access.org.0);
    match access.whose {
        Whose::All => {}
        Whose::User(user) => {
            query.push(" AND owner_id = ").push_bind(user.0);
        }
        Whose::Nobody => {
            query.push(" AND owner_id IS NULL");
        }
        Whose::One(weaver) => {
            query.push(" AND id = ").push_bind(weaver.0);
        }
    }
    if !filter.statuses.is_empty() {
        let words: Vec<&str> = filter.statuses.iter().map(|status| status.as_str()).collect();
        query.push(" AND status = ANY(").push_bind(words).push(")");
    }
    if !filter.tags.is_empty() {
        let tags = serde_json::to_value(&filter.tags).map_err(Error::internal)?;
        query.push(" AND tags @> ").push_bind(tags);
    }
    if let Some((at, id)) = after {
        query.push(" AND (created_at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
    }
    query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(limit);
    let rows: Vec<Raw> = query.build_query_as().fetch_all(db).await?;
    rows.into_iter().map(Row::try_from).collect()
}

/// How many there are of each status.
pub(crate) async fn counts(db: &mut PgConnection, access: Access) -> Result<BTreeMap<String, i64>> {
    let (user, one) = match access.whose {
        Whose::User(user) => (Some(user.0), None),
        Whose::One(weaver) => (None, Some(weaver.0)),
        Whose::All | Whose::Nobody => (None, None),
    };
    let rows = sqlx::query!(
        r#"SELECT status, count(*) AS "count!" FROM weavers
            WHERE org_id = $1 AND ($2::uuid IS NULL OR owner_id = $2) AND ($3::uuid IS NULL OR id = $3)
              AND (NOT $4 OR owner_id IS NULL) AND ended_at IS NULL
            GROUP BY status"#,
        access.org.0,
        user,
        one,
        access.whose == Whose::Nobody
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.status, row.count)).collect())
}

/// What is in use of what is shared.
#[derive(Debug)]
pub(crate) struct Used {
    pub(crate) all: i64,
    pub(crate) of_org: i64,
    pub(crate) of_user: i64,
    pub(crate) cpu_millis: i64,
    pub(crate) memory_bytes: i64,
}

/// Until the end of the transaction nobody else makes a weaver here: two do not both take the last place.
pub(crate) async fn used(
    db: &mut PgConnection,
    installation: &str,
    org: OrgId,
    user: Option<UserId>,
) -> Result<Used> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('weavers ' || $1, 0))",
        installation
    )
    .execute(&mut *db)
    .await?;
    let used = sqlx::query_as!(
        Used,
        r#"SELECT count(*) AS "all!", count(*) FILTER (WHERE org_id = $2) AS "of_org!",
                  count(*) FILTER (WHERE owner_id = $3) AS "of_user!",
                  coalesce(sum(cpu_millis) FILTER (WHERE org_id = $2), 0)::bigint AS "cpu_millis!",
                  coalesce(sum(memory_bytes) FILTER (WHERE org_id = $2), 0)::bigint AS "memory_bytes!"
             FROM weavers WHERE installation = $1 AND ended_at IS NULL"#,
        installation,
        org.0,
        user.map(|user| user.0)
    )
    .fetch_one(db)
    .await?;
    Ok(used)
}

/// What was made with this idempotency key, and the digest of what was asked.
pub(crate) async fn by_key(
    db: &mut PgConnection,
    org: OrgId,
    key: &str,
) -> Result<Option<(WeaverId, Vec<u8>)>> {
    let row = sqlx::query!(
        r#"SELECT id, request_sha256 AS "digest!" FROM weavers
            WHERE org_id = $1 AND idempotency_key = $2 AND request_sha256 IS NOT NULL"#,
        org.0,
        key
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (WeaverId(row.id), row.digest)))
}

/// What its owner may change of a weaver.
#[derive(Debug, Default)]
pub(crate) struct Patch {
    pub(crate) tags: Option<BTreeMap<String, String>>,
    pub(crate) lifetime: Option<(f64, DateTime<Utc>)>,
    pub(crate) network: Option<Network>,
}

/// In a transaction that holds the row. A warning is given again before the new end.
pub(crate) async fn patch(db: &mut PgConnection, row: &Row, patch: &Patch) -> Result<Row> {
    let tags =
        patch.tags.as_ref().map(serde_json::to_value).transpose().map_err(Error::internal)?;
    let (hours, expires_at) = patch.lifetime.unzip();
    let written = sqlx::query_as!(
        Raw,
        "UPDATE weavers SET tags = COALESCE($3, tags), network = COALESCE($4, network),
            expires_at = COALESCE($5, expires_at),
            warned_at = CASE WHEN $5 > expires_at THEN NULL ELSE warned_at END,
            spec = CASE WHEN $6::float8 IS NULL THEN spec
                        ELSE jsonb_set(spec, '{lifetime_hours}', to_jsonb($6::float8)) END,
            version = version + 1
          WHERE org_id = $1 AND id = $2 RETURNING *",
        row.org_id.0,
        row.id.0,
        tags,
        patch.network.map(Network::as_str),
        expires_at,
        hours
    )
    .fetch_one(db)
    .await?;
    Row::try_from(written)
}

/// A sign of life, as far as it is newer than the last.
pub(crate) async fn touch(
    db: &mut PgConnection,
    org: OrgId,
    id: WeaverId,
    at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE weavers SET active_at = $3 WHERE org_id = $1 AND id = $2 AND active_at < $3 AND ended_at IS NULL",
        org.0,
        id.0,
        at
    )
    .execute(db)
    .await?;
    Ok(())
}
