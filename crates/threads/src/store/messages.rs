//! The SQL of messages. Writes of any number of messages are one statement.

use std::{borrow::Cow, ops::Range};

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{OrgId, ThreadId},
};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, types::Json};
use utoipa::ToSchema;

use crate::{
    diff::StoredMessage,
    message::{ContentTruncated, Message, PlacedMessage, Role, hex},
    raw::Raw,
};

/// How large contents are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outputs {
    /// With all of them.
    #[default]
    Full,
    /// The beginning, and `content_truncated`.
    Preview,
}

/// The messages after a place, in order; at most `limit`, when there is one.
pub(crate) async fn after(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    seq: i64,
    limit: Option<i64>,
    outputs: Outputs,
) -> Result<Vec<Message>> {
    between(db, org, thread, seq..i64::MAX, limit, outputs).await
}

/// The messages after the start of `places` and up to its end, in order.
pub(crate) async fn between(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    places: Range<i64>,
    limit: Option<i64>,
    outputs: Outputs,
) -> Result<Vec<Message>> {
    let rows = sqlx::query!(
        r#"SELECT seq, id, role AS "role: Role",
               CASE WHEN blob_bytes IS NULL OR $5 THEN content
                    ELSE (SELECT blob.content FROM thread_blobs AS blob
                          WHERE blob.org_id = $1 AND blob.thread_id = $2 AND blob.seq = message.seq)
               END AS "content!: Json<Raw>",
               CASE WHEN $5 THEN blob_bytes END AS blob_bytes,
               CASE WHEN $5 AND blob_bytes IS NOT NULL THEN digest END AS digest,
               tool_calls AS "tool_calls: Json<Raw>", tool_call_id, tool_name, created_at,
               usage AS "usage: Json<Raw>"
           FROM thread_messages AS message
           WHERE org_id = $1 AND thread_id = $2 AND seq > $3 AND seq <= $6
           ORDER BY seq
           LIMIT $4"#,
        org.0,
        thread.0,
        places.start,
        limit,
        outputs == Outputs::Preview,
        places.end,
    )
    .fetch_all(db)
    .await?;
    let messages = rows.into_iter().map(|row| Message {
        seq: row.seq,
        id: row.id,
        role: row.role,
        content: row.content,
        content_truncated: row.blob_bytes.zip(row.digest).map(|(bytes, digest)| ContentTruncated {
            bytes: i64::from(bytes),
            digest: hex(&digest),
        }),
        tool_calls: row.tool_calls,
        tool_call_id: row.tool_call_id,
        tool_name: row.tool_name,
        created_at: row.created_at,
        usage: row.usage,
    });
    Ok(messages.collect())
}

/// Where the messages are that were written after a version of the thread: the first, the last, and how
/// many.
pub(crate) async fn since_version(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    version: i64,
) -> Result<Option<(i64, i64)>> {
    let range = sqlx::query!(
        "SELECT min(seq) AS first, max(seq) AS last FROM thread_messages
         WHERE org_id = $1 AND thread_id = $2 AND version > $3",
        org.0,
        thread.0,
        version,
    )
    .fetch_one(db)
    .await?;
    Ok(range.first.zip(range.last))
}

/// A message by its client's id, and the version that wrote it.
pub(crate) async fn by_id(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    id: &str,
) -> Result<Option<StoredText>> {
    Ok(sqlx::query_as!(
        StoredText,
        r#"SELECT seq, role AS "role: Role", version, bytes, sent_bytes, created_at,
               CASE WHEN blob_bytes IS NULL THEN content
                    ELSE (SELECT blob.content FROM thread_blobs AS blob
                          WHERE blob.org_id = $1 AND blob.thread_id = $2 AND blob.seq = message.seq)
               END AS "content!: Json<Raw>"
           FROM thread_messages AS message
           WHERE org_id = $1 AND thread_id = $2 AND id = $3"#,
        org.0,
        thread.0,
        id,
    )
    .fetch_optional(db)
    .await?)
}

/// A message as one who goes on writing it needs it.
pub(crate) struct StoredText {
    pub(crate) seq: i64,
    pub(crate) role: Role,
    pub(crate) version: Option<i64>,
    pub(crate) bytes: i32,
    pub(crate) sent_bytes: Option<i32>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) content: Json<Raw>,
}

/// Notes how far a masked text is in what its writer sent; each [`update`] forgets it.
pub(crate) async fn set_sent_bytes(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    seq: i64,
    sent_bytes: i32,
) -> Result<()> {
    sqlx::query!(
        "UPDATE thread_messages SET sent_bytes = $4 WHERE org_id = $1 AND thread_id = $2 AND seq = $3",
        org.0,
        thread.0,
        seq,
        sent_bytes,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What is needed to compare with the thread's messages, without reading their content.
pub(crate) async fn digests(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
) -> Result<Vec<StoredMessage>> {
    Ok(sqlx::query_as!(
        StoredMessage,
        "SELECT seq, id, digest, bytes, created_at
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
    version: i64,
    messages: &[PlacedMessage],
) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(messages);
    sqlx::query!(
        "INSERT INTO thread_messages (
             org_id, thread_id, seq, id, role, content, tool_calls, tool_call_id, tool_name, usage, created_at,
             bytes, digest, blob_bytes, version)
         SELECT $1, $2, seq, id, role, content::json, tool_calls::json, tool_call_id, tool_name, usage::json,
             created_at, bytes, digest, blob_bytes, $15
         FROM UNNEST(
             $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
             $11::timestamptz[], $12::integer[], $13::bytea[], $14::integer[])
             AS given (seq, id, role, content, tool_calls, tool_call_id, tool_name, usage, created_at, bytes,
                 digest, blob_bytes)",
        org.0,
        thread.0,
        &columns.seq,
        &columns.id as &[&str],
        &columns.role as &[&str],
        &columns.content as &[Cow<'_, str>],
        &columns.tool_calls as &[Option<&str>],
        &columns.tool_call_id as &[Option<&str>],
        &columns.tool_name as &[Option<&str>],
        &columns.usage as &[Option<&str>],
        &columns.created_at,
        &columns.bytes,
        &columns.digest as &[&[u8]],
        &columns.blob_bytes as &[Option<i32>],
        version,
    )
    .execute(&mut *db)
    .await?;
    insert_blobs(&mut *db, org, thread, &columns).await?;
    super::index::put_messages(db, org, thread, messages.iter().map(PlacedMessage::indexed)).await
}

/// Other content at the same places.
pub(crate) async fn update(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    version: i64,
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
             created_at = given.created_at, bytes = given.bytes, digest = given.digest,
             blob_bytes = given.blob_bytes, sent_bytes = NULL, version = $14
         FROM UNNEST(
             $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
             $10::timestamptz[], $11::integer[], $12::bytea[], $13::integer[])
             AS given (seq, role, content, tool_calls, tool_call_id, tool_name, usage, created_at, bytes, digest,
                 blob_bytes)
         WHERE stored.org_id = $1 AND stored.thread_id = $2 AND stored.seq = given.seq",
        org.0,
        thread.0,
        &columns.seq,
        &columns.role as &[&str],
        &columns.content as &[Cow<'_, str>],
        &columns.tool_calls as &[Option<&str>],
        &columns.tool_call_id as &[Option<&str>],
        &columns.tool_name as &[Option<&str>],
        &columns.usage as &[Option<&str>],
        &columns.created_at,
        &columns.bytes,
        &columns.digest as &[&[u8]],
        &columns.blob_bytes as &[Option<i32>],
        version,
    )
    .execute(&mut *db)
    .await?;
    if columns.blob_bytes.iter().any(Option::is_none) {
        // One that was large may be no more.
        sqlx::query!(
            "DELETE FROM thread_blobs WHERE org_id = $1 AND thread_id = $2 AND seq = ANY($3)",
            org.0,
            thread.0,
            &columns.seq,
        )
        .execute(&mut *db)
        .await?;
    }
    insert_blobs(&mut *db, org, thread, &columns).await?;
    super::index::put_messages(db, org, thread, messages.iter().map(PlacedMessage::indexed)).await
}

/// Writes the contents that have their place beside the messages.
async fn insert_blobs(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    columns: &Columns<'_>,
) -> Result<()> {
    if columns.blobs.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO thread_blobs AS blob (org_id, thread_id, seq, content)
         SELECT $1, $2, seq, content::json FROM UNNEST($3::bigint[], $4::text[]) AS given (seq, content)
         ON CONFLICT ON CONSTRAINT thread_blobs_pkey DO UPDATE SET content = excluded.content",
        org.0,
        thread.0,
        &columns.blob_seq,
        &columns.blobs as &[&str],
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Messages turned into one array a column, as UNNEST takes them.
#[derive(Default)]
struct Columns<'a> {
    seq: Vec<i64>,
    id: Vec<&'a str>,
    role: Vec<&'static str>,
    content: Vec<Cow<'a, str>>,
    tool_calls: Vec<Option<&'a str>>,
    tool_call_id: Vec<Option<&'a str>>,
    tool_name: Vec<Option<&'a str>>,
    usage: Vec<Option<&'a str>>,
    created_at: Vec<DateTime<Utc>>,
    bytes: Vec<i32>,
    digest: Vec<&'a [u8]>,
    blob_bytes: Vec<Option<i32>>,
    blob_seq: Vec<i64>,
    blobs: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(messages: &'a [PlacedMessage]) -> Self {
        let mut columns = Self::default();
        for placed in messages {
            let PlacedMessage { message, bytes, digest } = placed;
            let content = message.content.get();
            match placed.preview() {
                None => {
                    columns.content.push(Cow::Borrowed(content));
                    columns.blob_bytes.push(None);
                }
                Some(preview) => {
                    columns.content.push(Cow::Owned(preview.get().to_owned()));
                    columns.blob_bytes.push(i32::try_from(content.len()).ok());
                    columns.blob_seq.push(message.seq);
                    columns.blobs.push(content);
                }
            }
            columns.seq.push(message.seq);
            columns.id.push(&message.id);
            columns.role.push(message.role.as_str());
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
