//! The SQL that keeps the index of the search: each write of a thread brings its rows along, in its
//! transaction, so that what is found is what is there.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{OrgId, ThreadId},
};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use crate::{
    message::Message,
    model::ThreadHead,
    search::{
        content,
        lexemes::{self, Prepared},
    },
};

/// Of one statement.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
const BATCH_ROWS: usize = 2_000;
/// After so much text others have their turn: taking it apart takes time.
const YIELD_BYTES: usize = 128 * 1024;
/// Of a digest, to tell one content from another.
const DIGEST_BYTES: usize = 8;

#[derive(Default)]
struct Rows {
    seq: Vec<i64>,
    role: Vec<Option<&'static str>>,
    at: Vec<DateTime<Utc>>,
    digest: Vec<Vec<u8>>,
    tsv: Vec<String>,
    names: Vec<Option<String>>,
    bytes: usize,
}

impl Rows {
    fn push(
        &mut self,
        seq: i64,
        role: Option<&'static str>,
        at: DateTime<Utc>,
        digest: &[u8],
        prepared: Prepared,
    ) {
        self.bytes += prepared.tsv.len();
        self.seq.push(seq);
        self.role.push(role);
        self.at.push(at);
        self.digest.push(digest.iter().take(DIGEST_BYTES).copied().collect());
        self.tsv.push(prepared.tsv);
        self.names.push(prepared.names);
    }

    async fn put(self, db: &mut PgConnection, org: OrgId, thread: ThreadId) -> Result<()> {
        if self.seq.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO thread_search (org_id, thread_id, seq, role, at, digest, tsv, names)
             SELECT $1, $2, seq, role, at, digest, tsv::tsvector, names
             FROM UNNEST($3::bigint[], $4::text[], $5::timestamptz[], $6::bytea[], $7::text[], $8::text[])
                 AS given (seq, role, at, digest, tsv, names)
             ON CONFLICT ON CONSTRAINT thread_search_pkey DO UPDATE
             SET role = excluded.role, at = excluded.at, digest = excluded.digest, tsv = excluded.tsv,
                 names = excluded.names",
            org.0,
            thread.0,
            &self.seq,
            &self.role as &[Option<&str>],
            &self.at,
            &self.digest,
            &self.tsv,
            &self.names as &[Option<String>],
        )
        .execute(db)
        .await?;
        Ok(())
    }
}

/// Puts messages into the index, each with its digest.
pub(crate) async fn put_messages<'a>(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    messages: impl Iterator<Item = (&'a Message, &'a [u8])>,
) -> Result<()> {
    let (mut rows, mut read) = (Rows::default(), 0);
    for (message, digest) in messages {
        let prepared = lexemes::of_message(message);
        rows.push(message.seq, Some(message.role.as_str()), message.created_at, digest, prepared);
        read += message.content.get().len();
        if read >= YIELD_BYTES {
            read = 0;
            tokio::task::yield_now().await;
        }
        if rows.bytes >= BATCH_BYTES || rows.seq.len() >= BATCH_ROWS {
            std::mem::take(&mut rows).put(&mut *db, org, thread).await?;
        }
    }
    rows.put(db, org, thread).await
}

pub(crate) async fn remove_after(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    seq: i64,
) -> Result<()> {
    sqlx::query!(
        "DELETE FROM thread_search WHERE org_id = $1 AND thread_id = $2 AND seq > $3",
        org.0,
        thread.0,
        seq,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What tells whether the row of the thread itself is out of date.
pub(crate) fn head_digest(head: &ThreadHead) -> Vec<u8> {
    let mut hash = Sha256::new();
    for text in content::of_head(head) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hash.finalize().iter().take(DIGEST_BYTES).copied().collect()
}

pub(crate) async fn put_head(db: &mut PgConnection, head: &ThreadHead) -> Result<()> {
    let mut rows = Rows::default();
    rows.push(0, None, head.updated_at, &head_digest(head), lexemes::of_head(head));
    rows.put(db, head.org_id, head.id).await
}

/// Follows a change of the thread itself; `before` is absent when it is new. A deleted one is in no index.
pub(crate) async fn follow(
    db: &mut PgConnection,
    before: Option<&ThreadHead>,
    head: &ThreadHead,
) -> Result<()> {
    if head.deleted_at.is_some() {
        return remove_after(db, head.org_id, head.id, -1).await;
    }
    if before.is_none_or(|before| content::of_head(before) != content::of_head(head)) {
        put_head(&mut *db, head).await?;
    }
    let branches = |head: &ThreadHead| [head.git.branch.clone(), head.git.initial_branch.clone()];
    let now = branches(head);
    if before.is_none_or(|before| branches(before) != now) {
        let branches: Vec<String> = now.into_iter().flatten().collect();
        if !branches.is_empty() {
            add_branches(db, head.org_id, head.id, &branches).await?;
        }
    }
    Ok(())
}

/// Branches of a thread; more are not remembered.
const MAX_BRANCHES: i64 = 1_000;

async fn add_branches(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    branches: &[String],
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO thread_branches (org_id, thread_id, branch)
         SELECT DISTINCT $1::uuid, $2::uuid, branch FROM UNNEST($3::text[]) AS given (branch)
          WHERE (SELECT count(*) FROM (SELECT FROM thread_branches
                 WHERE org_id = $1 AND thread_id = $2 LIMIT $4) AS known) < $4
         ON CONFLICT ON CONSTRAINT thread_branches_pkey DO NOTHING",
        org.0,
        thread.0,
        branches,
        MAX_BRANCHES,
    )
    .execute(db)
    .await?;
    Ok(())
}
