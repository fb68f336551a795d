//! The SQL of messages. Writes of any number of messages are one statement.

use loom_core::{
    Result,
    id::{OrgId, ThreadId},
};
use sqlx::{PgConnection, types::Json};

use crate::{
    diff::StoredMessage,
    message::{Message, PlacedMessage, Role},
    raw::Raw,
};

/// The messages after a place, in order; at most `limit`, when there is one.
pub(crate) async fn after(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    seq: i64,
    limit: Option<i64>,
) -> Result<Vec<Message>> {
    Ok(sqlx::query_as!(
        Message,
        r#"SELECT seq, id, role AS "role: Role", content AS "content: Json<Raw>",
               tool_calls AS "tool_calls: Json<Raw>", tool_call_id, tool_name, created_at,
               usage AS "usage: Json<Raw>"
           FROM thread_messages
           WHERE org_id = $1 AND thread_id = $2 AND seq > $3
           ORDER BY seq
           LIMIT $4"#,
        org.0,
        thread.0,
        seq,
        limit,
    )
    .fetch_all(db)
    .await?)
}

/// What is needed to compare with the thread's messages, without reading their content.
pub(crate) async fn digests(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
) -> Result<Vec<StoredMessage>> {
    Ok(sqlx::query_as!(
        StoredMessage,
        "SELECT seq, id, digest, created_at
         FROM thread_messages
         WHERE org_id = $1 AND thread_id = $2
         ORDER BY seq",
        org.0,
        thread.0,
    )
    .fetch_all(db)
    .await?)
}

/// Which of these ids the thread has already, and where.
///
/// Each id is looked up by itself: with `id = ANY($3)` a plan may read the whole thread by its primary
/// key and filter, which looks cheap where most threads are short.
pub(crate) async fn known(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    ids: &[&str],
) -> Result<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"SELECT given.id AS "id!", stored.seq
           FROM UNNEST($3::text[]) AS given (id)
           CROSS JOIN LATERAL (
               SELECT seq FROM thread_messages
               WHERE org_id = $1 AND thread_id = $2 AND id = given.id
               LIMIT 1
           ) AS stored"#,
        org.0,
        thread.0,
        ids as &[&str],
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.seq)).collect())
}

pub(crate) async fn remove_after(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    seq: i64,
) -> Result<()> {
    sqlx::query!(
        "DELETE FROM thread_messages WHERE org_id = $1 AND thread_id = $2 AND seq > $3",
        org.0,
        thread.0,
        seq,
    )
    .execute(&mut *db)
    .await?;
    super::index::remove_after(db, org, thread, seq).await
}

pub(crate) async fn insert(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    messages: &[PlacedMessage],
) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(messages);
    sqlx::query!(
        "INSERT INTO thread_messages (
             org_id, thread_id, seq, id, role, content, tool_calls, tool_call_id, tool_name, usage, created_at,
             bytes, digest)
         SELECT $1, $2, seq, id, role, content::json, tool_calls::json, tool_call_id, tool_name, usage::json,
             created_at, bytes, digest
         FROM UNNEST(
             $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
             $11::timestamptz[], $12::integer[], $13::bytea[])
             AS given (seq, id, role, content, tool_calls, tool_call_id, tool_name, usage, created_at, bytes,
                 digest)",
        org.0,
        thread.0,
        &columns.seq,
        &columns.id as &[&str],
        &columns.role as &[&str],
        &columns.content as &[&str],
        &columns.tool_calls as &[Option<&str>],
        &columns.tool_call_id as &[Option<&str>],
        &columns.tool_name as &[Option<&str>],
        &columns.usage as &[Option<&str>],
        &columns.created_at,
        &columns.bytes,
        &columns.digest as &[&[u8]],
    )
    .execute(&mut *db)
    .await?;
    super::index::put_messages(db, org, thread, messages.iter().map(PlacedMessage::indexed)).await
}

/// Other content at the same places.
pub(crate) async fn update(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    messages: &[PlacedMessage],
) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(messages);
    sqlx::query!(
        "UPDATE thread_messages AS stored
         SET role = given.role, content = given.content::json, tool_calls = given.tool_calls::json,
             tool_call_id = given.tool_call_id, tool_name = given.tool_name, usage = given.usage::json,
             created_at = given.created_at, bytes = given.bytes, digest = given.digest
         FROM UNNEST(
             $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
             $10::timestamptz[], $11::integer[], $12::bytea[])
             AS given (seq, role, content, tool_calls, tool_call_id, tool_name, usage, created_at, bytes, digest)
         WHERE stored.org_id = $1 AND stored.thread_id = $2 AND stored.seq = given.seq",
        org.0,
        thread.0,
        &columns.seq,
        &columns.role as &[&str],
        &columns.content as &[&str],
        &columns.tool_calls as &[Option<&str>],
        &columns.tool_call_id as &[Option<&str>],
        &columns.tool_name as &[Option<&str>],
        &columns.usage as &[Option<&str>],
        &columns.created_at,
        &columns.bytes,
        &columns.digest as &[&[u8]],
    )
    .execute(&mut *db)
    .await?;
    super::index::put_messages(db, org, thread, messages.iter().map(PlacedMessage::indexed)).await
}

/// Messages turned into one array a column, as UNNEST takes them.
#[derive(Default)]
struct Columns<'a> {
    seq: Vec<i64>,
    id: Vec<&'a str>,
    role: Vec<&'static str>,
    content: Vec<&'a str>,
    tool_calls: Vec<Option<&'a str>>,
    tool_call_id: Vec<Option<&'a str>>,
    tool_name: Vec<Option<&'a str>>,
    usage: Vec<Option<&'a str>>,
    created_at: Vec<chrono::DateTime<chrono::Utc>>,
    bytes: Vec<i32>,
    digest: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    fn of(messages: &'a [PlacedMessage]) -> Self {
        let mut columns = Self::default();
        for PlacedMessage { message, bytes, digest } in messages {
            columns.seq.push(message.seq);
            columns.id.push(&message.id);
            columns.role.push(message.role.as_str());
            columns.content.push(message.content.get());
            columns.tool_calls.push(message.tool_calls.as_ref().map(|calls| calls.get()));
            columns.tool_call_id.push(message.tool_call_id.as_deref());
            columns.tool_name.push(message.tool_name.as_deref());
            columns.usage.push(message.usage.as_ref().map(|usage| usage.get()));
            columns.created_at.push(message.created_at);
            columns.bytes.push(*bytes);
            columns.digest.push(digest);
        }
        columns
    }
}
