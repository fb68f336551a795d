//! The SQL of threads and their commits. Each statement names the organisation.

pub(crate) mod drift;
pub(crate) mod events;
pub(crate) mod index;
pub(crate) mod lease;
pub(crate) mod list;
pub(crate) mod messages;
pub(crate) mod refs;
pub(crate) mod search;
pub(crate) mod sharing;

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    authorize::Visibility,
    id::{OrgId, ThreadId, UserId},
};
use sqlx::{PgConnection, types::Json};

use crate::{
    git::Commits,
    model::{AgentState, Client, Git, ThreadHead, Workspace},
    raw::Raw,
    search::PREPARATION,
};

/// Lets all reads of a transaction that has just begun see the same moment.
pub(crate) async fn take_snapshot(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(db).await?;
    Ok(())
}

/// A thread as a member of `org` may find it: one of its own, or a public one of another.
pub(crate) async fn find(
    db: &mut PgConnection,
    org: OrgId,
    id: ThreadId,
) -> Result<Option<ThreadHead>> {
    Ok(sqlx::query_as!(
        ThreadHead,
        r#"SELECT id AS "id: ThreadId", version, last_seq, message_count, created_at, updated_at,
               last_activity_at, title, tags, is_pinned, visibility AS "visibility: Visibility",
               org_id AS "org_id: OrgId", owner_user_id AS "owner_user_id: UserId",
               workspace AS "workspace: Json<Workspace>", client AS "client: Json<Client>", provider, model,
               git AS "git: Json<Git>", agent_state AS "agent_state: Json<AgentState>",
               extra AS "extra?: Json<Raw>", message_bytes, deleted_at
           FROM threads
           WHERE id = $1 AND (org_id = $2 OR visibility = 'public') AND deleted_at IS NULL"#,
        id.0,
        org.0,
    )
    .fetch_optional(db)
    .await?)
}

/// A thread of `org`, deleted or not, held against other writers until the transaction ends.
///
/// Writers queue up at the advisory lock, not at the row: of several who wait for a row each may have
/// been given its transaction's number before it is its turn, and the events of a thread, which are in
/// the order of these numbers, would not be in that of its versions.
pub(crate) async fn lock(
    db: &mut PgConnection,
    org: OrgId,
    id: ThreadId,
) -> Result<Option<ThreadHead>> {
    Ok(sqlx::query_as!(
        ThreadHead,
        r#"WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text, 0)))
           SELECT id AS "id: ThreadId", version, last_seq, message_count, created_at, updated_at,
               last_activity_at, title, tags, is_pinned, visibility AS "visibility: Visibility",
               org_id AS "org_id: OrgId", owner_user_id AS "owner_user_id: UserId",
               workspace AS "workspace: Json<Workspace>", client AS "client: Json<Client>", provider, model,
               git AS "git: Json<Git>", agent_state AS "agent_state: Json<AgentState>",
               extra AS "extra?: Json<Raw>", message_bytes, deleted_at
           FROM turn, threads
           WHERE id = $1 AND org_id = $2
           FOR UPDATE OF threads"#,
        id.0,
        org.0,
    )
    .fetch_optional(db)
    .await?)
}

/// Creates a thread; false when the id is taken, by whichever organisation.
/// The id is in two unique indexes, and who comes at the same moment may be met in either: no one of
/// them can be named as the one to yield to.
pub(crate) async fn insert(db: &mut PgConnection, head: &ThreadHead) -> Result<bool> {
    let agent_state = serde_json::to_string(&head.agent_state).map_err(Error::internal)?;
    let done = sqlx::query!(
        "INSERT INTO threads (
             id, org_id, owner_user_id, version, last_seq, message_count, message_bytes, title, tags, is_pinned,
             visibility, workspace, client, provider, model, git, agent_state, extra, created_at, updated_at,
             last_activity_at, search_preparation)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17::text::json,
             $18::text::json, $19, $20, $21, $22)
         ON CONFLICT DO NOTHING",
        head.id.0,
        head.org_id.0,
        head.owner_user_id.map(|user| user.0),
        head.version,
        head.last_seq,
        head.message_count,
        head.message_bytes,
        head.title,
        &head.tags,
        head.is_pinned,
        head.visibility as Visibility,
        head.workspace.as_ref() as Option<&Json<Workspace>>,
        head.client.as_ref() as Option<&Json<Client>>,
        head.provider,
        head.model,
        &head.git as &Json<Git>,
        agent_state,
        extra(head),
        head.created_at,
        head.updated_at,
        head.last_activity_at,
        PREPARATION,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes back a thread that [`lock`] gave. An agent that works and has no lease by name gets one until
/// its next write is overdue.
pub(crate) async fn update(db: &mut PgConnection, head: &ThreadHead) -> Result<()> {
    let works = head.deleted_at.is_none() && head.agent_state.kind.is_working();
    let silent_until = works.then(|| head.updated_at + lease::SILENCE);
    let agent_state = serde_json::to_string(&head.agent_state).map_err(Error::internal)?;
    sqlx::query!(
        "UPDATE threads
         SET version = $3, last_seq = $4, message_count = $5, message_bytes = $6, title = $7, tags = $8,
             is_pinned = $9, visibility = $10, workspace = $11, client = $12, provider = $13, model = $14,
             git = $15, agent_state = $16::text::json,
             extra = $17::text::json, updated_at = $18, last_activity_at = $19,
             deleted_at = $20,
             lease_holder = CASE WHEN lease_until > $18 THEN lease_holder END,
             lease_until = CASE WHEN lease_holder IS NOT NULL AND lease_until > $18 THEN lease_until ELSE $21 END
         WHERE id = $1 AND org_id = $2",
        head.id.0,
        head.org_id.0,
        head.version,
        head.last_seq,
        head.message_count,
        head.message_bytes,
        head.title,
        &head.tags,
        head.is_pinned,
        head.visibility as Visibility,
        head.workspace.as_ref() as Option<&Json<Workspace>>,
        head.client.as_ref() as Option<&Json<Client>>,
        head.provider,
        head.model,
        &head.git as &Json<Git>,
        agent_state,
        extra(head),
        head.updated_at,
        head.last_activity_at,
        head.deleted_at,
        silent_until,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The thread that has been deleted for longest, if that was before then. Of all organisations: by age
/// alone.
pub(crate) async fn purgeable(
    db: &mut PgConnection,
    deleted_before: DateTime<Utc>,
) -> Result<Option<(OrgId, ThreadId)>> {
    let found = sqlx::query!(
        r#"SELECT org_id AS "org_id: OrgId", id AS "id: ThreadId" FROM threads
           WHERE deleted_at < $1 ORDER BY deleted_at LIMIT 1"#,
        deleted_before,
    )
    .fetch_optional(db)
    .await?;
    Ok(found.map(|row| (row.org_id, row.id)))
}

/// Removes a thread that [`lock`] gave for good, with all that hangs on it.
pub(crate) async fn purge(db: &mut PgConnection, org: OrgId, id: ThreadId) -> Result<()> {
    sqlx::query!("DELETE FROM threads WHERE id = $1 AND org_id = $2", id.0, org.0)
        .execute(db)
        .await?;
    Ok(())
}

/// As text, because sqlx binds JSON as jsonb, which has an order of members and digits of its own.
fn extra(head: &ThreadHead) -> &str {
    head.extra.as_ref().map_or("{}", |extra| extra.get())
}

/// Commits of a thread, listed or passed; each request counts what is there at most so far.
const MAX_COMMITS: i64 = 10_000;

/// Adds what is not known yet; true when the thread's list of commits grew.
///
/// # Errors
/// 422 when the thread would have more than [`MAX_COMMITS`]. A commit that was only passed is left out
/// instead: an agent is not stopped by it.
pub(crate) async fn add_commits(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    commits: &Commits,
    now: DateTime<Utc>,
) -> Result<bool> {
    if !commits.passed.is_empty() {
        sqlx::query!(
            "INSERT INTO thread_commits (org_id, thread_id, sha, is_listed, created_at)
             SELECT $1, $2, sha, false, $4 FROM UNNEST($3::text[]) AS given (sha)
              WHERE (SELECT count(*) FROM (SELECT FROM thread_commits WHERE org_id = $1 AND thread_id = $2 LIMIT $5) AS known) < $5
             ON CONFLICT ON CONSTRAINT thread_commits_pkey DO NOTHING",
            org.0,
            thread.0,
            &commits.passed,
            now,
            MAX_COMMITS,
        )
        .execute(&mut *db)
        .await?;
    }
    if commits.listed.is_empty() {
        return Ok(false);
    }
    let done = sqlx::query!(
        "INSERT INTO thread_commits AS known (org_id, thread_id, sha, is_listed, created_at)
         SELECT $1, $2, sha, true, $4
         FROM (SELECT sha, min(place) AS place FROM UNNEST($3::text[]) WITH ORDINALITY AS given (sha, place)
               GROUP BY sha) AS given
         ORDER BY place
         ON CONFLICT ON CONSTRAINT thread_commits_pkey
         DO UPDATE SET is_listed = true, position = DEFAULT WHERE NOT known.is_listed",
        org.0,
        thread.0,
        &commits.listed,
        now,
    )
    .execute(&mut *db)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    let too_many = sqlx::query_scalar!(
        r#"SELECT count(*) > $3::bigint AS "too_many!"
             FROM (SELECT FROM thread_commits WHERE org_id = $1 AND thread_id = $2 LIMIT $3::bigint + 1) AS known"#,
        org.0,
        thread.0,
        MAX_COMMITS,
    )
    .fetch_one(db)
    .await?;
    if too_many {
        let message = format!("a thread remembers at most {MAX_COMMITS} commits");
        return Err(Error::invalid("git.commits", message));
    }
    Ok(true)
}

/// The thread's own commits, in the order they were first given.
pub(crate) async fn commits(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar!(
        "SELECT sha FROM thread_commits WHERE org_id = $1 AND thread_id = $2 AND is_listed ORDER BY position",
        org.0,
        thread.0,
    )
    .fetch_all(db)
    .await?)
}
