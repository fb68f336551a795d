//! The SQL that compares the index of the search with the threads, and mends it.

use loom_core::{
    Result,
    id::{OrgId, ThreadId},
};
use sqlx::{PgConnection, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

use super::index;
use crate::{
    message::{Message, Role},
    model::ThreadHead,
    raw::Raw,
    search::PREPARATION,
};

/// Messages that are put into the index at a time.
const BATCH: i64 = 200;
/// And their bytes; the first of a batch may be larger.
const BATCH_BYTES: i64 = 4 * 1024 * 1024;

/// A thread compared with its rows of the index.
#[derive(sqlx::FromRow)]
pub(crate) struct Compared {
    #[sqlx(flatten)]
    pub(crate) head: ThreadHead,
    pub(crate) head_digest: Option<Vec<u8>>,
    /// Messages without a row.
    pub(crate) missing: i64,
    /// Rows of another content.
    pub(crate) stale: i64,
    /// Rows without a message.
    pub(crate) surplus: i64,
}

/// The next threads of all organisations by id, deleted ones too, each with what is wrong. Those that are to
/// be prepared anew are left out.
pub(crate) async fn compare(
    db: &mut PgConnection,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Compared>> {
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT t.*, head.digest AS head_digest, drift.* FROM (SELECT ",
    );
    sql.push(super::list::COLUMNS).push(" FROM threads WHERE id > ").push_bind(after);
    sql.push(" AND (search_preparation >= ").push_bind(PREPARATION);
    sql.push(" OR deleted_at IS NOT NULL) ORDER BY id LIMIT ").push_bind(limit);
    sql.push(
        ") AS t
         LEFT JOIN thread_search AS head
             ON head.org_id = t.org_id AND head.thread_id = t.id AND head.seq = 0
         CROSS JOIN LATERAL (
             SELECT count(*) FILTER (WHERE s.seq IS NULL) AS missing,
                 count(*) FILTER (WHERE s.digest <> substring(m.digest for 8)) AS stale,
                 count(*) FILTER (WHERE m.seq IS NULL) AS surplus
             FROM (SELECT seq, digest FROM thread_messages
                   WHERE org_id = t.org_id AND thread_id = t.id AND t.deleted_at IS NULL) AS m
             FULL JOIN (SELECT seq, digest FROM thread_search
                        WHERE org_id = t.org_id AND thread_id = t.id AND seq > 0) AS s ON s.seq = m.seq
         ) AS drift
         ORDER BY t.id",
    );
    Ok(sql.build_query_as().fetch_all(db).await?)
}

// The query below names it, so that the partial index serves every plan: the next one comes with a
// migration that makes an index for it.
const _: () = assert!(PREPARATION == 1);

/// Threads whose rows were prepared in an older way, or not at all.
pub(crate) async fn unprepared(
    db: &mut PgConnection,
    limit: i64,
) -> Result<Vec<(OrgId, ThreadId)>> {
    let rows = sqlx::query!(
        r#"SELECT org_id AS "org: OrgId", id AS "id: ThreadId" FROM threads
            WHERE search_preparation < 1 AND deleted_at IS NULL
            ORDER BY id LIMIT $1"#,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.org, row.id)).collect())
}

/// Brings the index to what the thread is; `all` prepares also what is up to date. The thread is held until
/// the transaction ends.
pub(crate) async fn mend(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    all: bool,
) -> Result<()> {
    let Some(head) = super::lock(&mut *db, org, thread).await? else { return Ok(()) };
    if head.deleted_at.is_some() {
        return index::remove_after(db, org, thread, -1).await;
    }
    let mut seq = 0;
    loop {
        let found = outdated(&mut *db, org, thread, seq, all).await?;
        let messages = found.iter().map(|(message, digest)| (message, digest.as_slice()));
        index::put_messages(&mut *db, org, thread, messages).await?;
        match found.last() {
            Some((last, _)) => seq = last.seq,
            None => break,
        }
    }
    sqlx::query!(
        "DELETE FROM thread_search AS s WHERE s.org_id = $1 AND s.thread_id = $2 AND s.seq > 0
            AND NOT EXISTS (SELECT FROM thread_messages AS m
                WHERE m.org_id = s.org_id AND m.thread_id = s.thread_id AND m.seq = s.seq)",
        org.0,
        thread.0,
    )
    .execute(&mut *db)
    .await?;
    index::put_head(&mut *db, &head).await?;
    sqlx::query!(
        "UPDATE threads SET search_preparation = $3 WHERE org_id = $1 AND id = $2 AND search_preparation < $3",
        org.0,
        thread.0,
        PREPARATION,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The next messages, with their digests, of which the index has not this content.
async fn outdated(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    after: i64,
    all: bool,
) -> Result<Vec<(Message, Vec<u8>)>> {
    let rows = sqlx::query!(
        r#"SELECT m.seq AS "seq!", m.id AS "id!", m.role AS "role!: Role",
               CASE WHEN m.blob_bytes IS NULL THEN m.content
                    ELSE (SELECT blob.content FROM thread_blobs AS blob
                          WHERE blob.org_id = $1 AND blob.thread_id = $2 AND blob.seq = m.seq)
               END AS "content!: Json<Raw>",
               m.tool_calls AS "tool_calls: Json<Raw>", m.tool_name, m.created_at AS "created_at!",
               m.digest AS "digest!"
             FROM (SELECT found.*, sum(found.bytes) OVER (ORDER BY found.seq) - found.bytes AS bytes_before
                     FROM (SELECT m.* FROM thread_messages AS m
                             LEFT JOIN thread_search AS s
                               ON s.org_id = m.org_id AND s.thread_id = m.thread_id AND s.seq = m.seq
                            WHERE m.org_id = $1 AND m.thread_id = $2 AND m.seq > $3
                              AND ($4 OR s.digest IS DISTINCT FROM substring(m.digest for 8))
                            ORDER BY m.seq LIMIT $5) AS found) AS m
            WHERE m.bytes_before < $6
            ORDER BY m.seq"#,
        org.0,
        thread.0,
        after,
        all,
        BATCH,
        BATCH_BYTES,
    )
    .fetch_all(db)
    .await?;
    let messages = rows.into_iter().map(|row| {
        let message = Message {
            seq: row.seq,
            id: row.id,
            role: row.role,
            content: row.content,
            content_truncated: None,
            tool_calls: row.tool_calls,
            tool_call_id: None,
            tool_name: row.tool_name,
            created_at: row.created_at,
            usage: None,
        };
        (message, row.digest)
    });
    Ok(messages.collect())
}
