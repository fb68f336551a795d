//! The SQL of what other features may ask about threads.

use loom_core::{
    Principal, Result,
    id::{OrgId, ThreadId, UserId},
    port::ThreadRef,
    principal::OrgRole,
};
use sqlx::PgPool;

/// Who looks: the organisation, the user, and whether threads without an owner are theirs, too.
fn viewer(principal: &Principal) -> (OrgId, Option<UserId>, bool) {
    let user = principal.user_id();
    (principal.org, user, user.is_none() || principal.role >= OrgRole::Admin)
}

/// Pairs of a commit and a thread; at most ten of each commit, newest activity first.
pub(crate) async fn with_commits(
    pool: &PgPool,
    principal: &Principal,
    commits: &[String],
) -> Result<Vec<(String, ThreadRef)>> {
    let (org, user, unowned) = viewer(principal);
    let rows = sqlx::query!(
        r#"SELECT wanted.sha AS "sha!", t.id AS "id!: ThreadId", t.title
             FROM unnest($2::text[]) AS wanted (sha)
             CROSS JOIN LATERAL (
               SELECT t.id, t.title, t.last_activity_at
                 FROM thread_commits c JOIN threads t ON t.org_id = c.org_id AND t.id = c.thread_id
                WHERE c.org_id = $1 AND c.sha = wanted.sha AND t.deleted_at IS NULL
                  AND (t.visibility <> 'private' OR t.owner_user_id = $3
                       OR (t.owner_user_id IS NULL AND $4))
                ORDER BY t.last_activity_at DESC LIMIT 10
             ) t"#,
        org as OrgId,
        commits,
        user as Option<UserId>,
        unowned
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.sha, ThreadRef { id: row.id, title: row.title })).collect())
}

pub(crate) async fn of_trace(
    pool: &PgPool,
    principal: &Principal,
    trace_id: &str,
) -> Result<Vec<ThreadRef>> {
    let (org, user, unowned) = viewer(principal);
    Ok(sqlx::query_as!(
        ThreadRef,
        r#"SELECT id AS "id: ThreadId", title FROM threads
            WHERE org_id = $1 AND extra ->> 'trace_id' = $2 AND deleted_at IS NULL
              AND (visibility <> 'private' OR owner_user_id = $3 OR (owner_user_id IS NULL AND $4))
            ORDER BY last_activity_at DESC LIMIT 10"#,
        org as OrgId,
        trace_id,
        user as Option<UserId>,
        unowned
    )
    .fetch_all(pool)
    .await?)
}

pub(crate) async fn by_ids(
    pool: &PgPool,
    principal: &Principal,
    ids: &[ThreadId],
) -> Result<Vec<ThreadRef>> {
    let (org, user, unowned) = viewer(principal);
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    Ok(sqlx::query_as!(
        ThreadRef,
        r#"SELECT id AS "id: ThreadId", title FROM threads
            WHERE org_id = $1 AND id = ANY($2) AND deleted_at IS NULL
              AND (visibility <> 'private' OR owner_user_id = $3 OR (owner_user_id IS NULL AND $4))"#,
        org as OrgId,
        &ids,
        user as Option<UserId>,
        unowned
    )
    .fetch_all(pool)
    .await?)
}
