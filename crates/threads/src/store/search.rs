//! The SQL of the search. Who may see a thread, and every filter, is in the statement that finds it:
//! what one may not see takes no place among the candidates and is counted nowhere.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use http::StatusCode;
use loom_core::{
    Error, Principal, Result,
    id::{OrgId, ThreadId},
    principal::OrgRole,
};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

use crate::{
    list::Filter,
    message::Role,
    model::ThreadHead,
    raw::Raw,
    search::{MAX_CANDIDATES, content},
};

/// Begins a search: one moment for all that it reads, a time limit for each statement, and each planned
/// for what is asked, because a rare word and one that is everywhere want other plans.
pub(crate) async fn begin(db: &mut PgConnection, millis: u64) -> Result<()> {
    db.execute(AssertSqlSafe(format!(
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
         SET LOCAL statement_timeout = {millis};
         SET LOCAL plan_cache_mode = force_custom_plan"
    )))
    .await?;
    Ok(())
}

/// Of an error that says that a statement took too long.
pub(crate) const TIMEOUT_CODE: &str = "search_timeout";

/// A statement that was stopped for its time is told as such.
fn in_time(error: sqlx::Error) -> Error {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    if code.as_deref() != Some("57014") {
        return error.into();
    }
    let advice = "the search took longer than two seconds; add a rarer word, or a filter such as `repo`, `owner` \
                  or `updated_after`";
    Error::new(StatusCode::SERVICE_UNAVAILABLE, TIMEOUT_CODE, advice)
        .retry_after(Duration::from_secs(1))
        .because(error)
}

/// A row that answers the query, with what the list of hits needs of its thread.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Candidate {
    pub(crate) thread_id: Uuid,
    pub(crate) seq: i64,
    pub(crate) role: Option<Role>,
    pub(crate) rank: f32,
    pub(crate) last_activity_at: DateTime<Utc>,
    pub(crate) repo: Option<String>,
    pub(crate) branch: Option<String>,
    pub(crate) state: String,
    pub(crate) owner_user_id: Option<Uuid>,
}

const THREAD_COLUMNS: &str = "t.last_activity_at, t.repo, t.branch, t.state, t.owner_user_id";

/// Gives the statements from here on this long; see [`give_up`].
pub(crate) async fn try_for(db: &mut PgConnection, millis: u64) -> Result<()> {
    db.execute(AssertSqlSafe(format!("SAVEPOINT attempt; SET LOCAL statement_timeout = {millis}")))
        .await?;
    Ok(())
}

/// After a statement since [`try_for`] took too long: as if it had not been asked.
pub(crate) async fn give_up(db: &mut PgConnection) -> Result<()> {
    db.execute("ROLLBACK TO SAVEPOINT attempt").await?;
    Ok(())
}

/// A time in which some rows of the index are, counted from a time backwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// Not in it.
    pub(crate) before: DateTime<Utc>,
    pub(crate) from: DateTime<Utc>,
}

/// The last stretch of about so many rows before a time; none when there is nothing before it.
pub(crate) async fn stretch(
    db: &mut PgConnection,
    org: OrgId,
    before: DateTime<Utc>,
    rows: i64,
) -> Result<Option<Stretch>> {
    let from = sqlx::query_scalar!(
        r#"SELECT min(at) FROM (SELECT at FROM thread_search WHERE org_id = $1 AND at < $2
                                ORDER BY at DESC LIMIT $3) AS newest"#,
        org.0,
        before,
        rows,
    )
    .fetch_one(db)
    .await
    .map_err(in_time)?;
    Ok(from.map(|from| Stretch { before, from }))
}

/// The newest rows that match and that the principal may see, at most [`MAX_CANDIDATES`]; of a stretch of
/// time, or of all.
pub(crate) async fn candidates(
    db: &mut PgConnection,
    principal: &Principal,
    tsquery: &str,
    filter: &Filter,
    role: Option<Role>,
    stretch: Option<Stretch>,
) -> Result<Vec<Candidate>> {
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT thread_id, seq, role, last_activity_at, repo, branch, state, owner_user_id,
             ts_rank_cd('{0.15, 0.35, 0.6, 1}', tsv, ",
    );
    sql.push_bind(tsquery)
        .push("::text::tsquery, 33) AS rank FROM (SELECT s.thread_id, s.seq, s.role, s.tsv, ");
    sql.push(THREAD_COLUMNS);
    sql.push(
        " FROM thread_search AS s JOIN threads AS t ON t.org_id = s.org_id AND t.id = s.thread_id
          WHERE s.org_id = ",
    );
    sql.push_bind(principal.org).push(" AND s.tsv @@ ").push_bind(tsquery).push("::text::tsquery");
    if let Some(role) = role {
        sql.push(" AND s.role = ").push_bind(role);
    }
    if let Some(Stretch { before, from }) = stretch {
        sql.push(" AND s.at < ").push_bind(before).push(" AND s.at >= ").push_bind(from);
    }
    push_visible(&mut sql, principal);
    super::list::push_filter(&mut sql, principal.org, filter);
    sql.push(" ORDER BY s.at DESC LIMIT ").push_bind(MAX_CANDIDATES).push(") AS newest");
    sql.build_query_as().persistent(false).fetch_all(db).await.map_err(in_time)
}

/// Is there anything that matches and that the principal may see?
pub(crate) async fn is_said(
    db: &mut PgConnection,
    principal: &Principal,
    tsquery: &str,
    filter: &Filter,
) -> Result<bool> {
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT EXISTS (SELECT FROM thread_search AS s
             JOIN threads AS t ON t.org_id = s.org_id AND t.id = s.thread_id WHERE s.org_id = ",
    );
    sql.push_bind(principal.org).push(" AND s.tsv @@ ").push_bind(tsquery).push("::text::tsquery");
    push_visible(&mut sql, principal);
    super::list::push_filter(&mut sql, principal.org, filter);
    sql.push(")");
    sql.build_query_scalar().persistent(false).fetch_one(db).await.map_err(in_time)
}

/// The threads that made, began at or stood at a commit with these first digits.
pub(crate) async fn by_commit(
    db: &mut PgConnection,
    principal: &Principal,
    commit: &str,
    filter: &Filter,
) -> Result<Vec<(String, Candidate)>> {
    #[derive(sqlx::FromRow)]
    struct Row {
        sha: String,
        #[sqlx(flatten)]
        candidate: Candidate,
    }
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT DISTINCT ON (t.last_activity_at, t.id) c.sha, c.thread_id, 0::bigint AS seq,
             NULL::text AS role, 1::real AS rank, ",
    );
    sql.push(THREAD_COLUMNS);
    sql.push(
        " FROM thread_commits AS c JOIN threads AS t ON t.org_id = c.org_id AND t.id = c.thread_id
          WHERE c.org_id = ",
    );
    sql.push_bind(principal.org).push(" AND c.sha >= ").push_bind(commit);
    sql.push(" AND c.sha < ").push_bind(format!("{commit}g"));
    push_visible(&mut sql, principal);
    super::list::push_filter(&mut sql, principal.org, filter);
    sql.push(" ORDER BY t.last_activity_at DESC, t.id DESC, c.sha LIMIT ")
        .push_bind(MAX_CANDIDATES);
    let rows: Vec<Row> =
        sql.build_query_as().persistent(false).fetch_all(db).await.map_err(in_time)?;
    Ok(rows.into_iter().map(|row| (row.sha, row.candidate)).collect())
}

/// Names that are like the word, of threads that the principal may see; the likest rows first.
pub(crate) async fn similar_names(
    db: &mut PgConnection,
    principal: &Principal,
    word: &str,
    filter: &Filter,
    millis: u64,
) -> Result<Vec<String>> {
    // A wrong letter takes three or four of the groups of three that a word has, about one for each letter.
    // What is asked of a long word is asked of far fewer rows.
    let threshold = match word.chars().count() {
        ..6 => 0.3,
        6..8 => 0.4,
        _ => 0.5,
    };
    db.execute(AssertSqlSafe(format!(
        "SET LOCAL statement_timeout = {millis}; SET LOCAL pg_trgm.word_similarity_threshold = {threshold}"
    )))
    .await?;
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT s.names FROM thread_search AS s
         JOIN threads AS t ON t.org_id = s.org_id AND t.id = s.thread_id
         WHERE s.names IS NOT NULL AND s.org_id = ",
    );
    sql.push_bind(principal.org).push(" AND ").push_bind(word).push(" <% s.names");
    push_visible(&mut sql, principal);
    super::list::push_filter(&mut sql, principal.org, filter);
    sql.push(" ORDER BY ").push_bind(word).push(" <<-> s.names, s.at DESC LIMIT 50");
    sql.build_query_scalar().persistent(false).fetch_all(db).await.map_err(in_time)
}

/// As [`loom_core::authorize::Ownership::visible_to`], for threads of the principal's organisation.
fn push_visible(sql: &mut QueryBuilder<Postgres>, principal: &Principal) {
    sql.push(" AND t.deleted_at IS NULL AND (t.visibility <> 'private'");
    if let Some(user) = principal.user_id() {
        sql.push(" OR t.owner_user_id = ").push_bind(user);
    }
    if principal.user_id().is_none() || principal.role >= OrgRole::Admin {
        sql.push(" OR t.owner_user_id IS NULL");
    }
    sql.push(")");
}

/// Threads by id. Who may see them was asked when they were found, in the same transaction.
pub(crate) async fn heads(
    db: &mut PgConnection,
    org: OrgId,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, ThreadHead>> {
    let mut sql = QueryBuilder::<Postgres>::new("SELECT ");
    sql.push(super::list::COLUMNS).push(" FROM threads WHERE org_id = ").push_bind(org);
    sql.push(" AND id = ANY(").push_bind(ids).push(")");
    let heads: Vec<ThreadHead> = sql.build_query_as().fetch_all(db).await.map_err(in_time)?;
    Ok(heads.into_iter().map(|head| (head.id.0, head)).collect())
}

/// The texts of messages, by thread and place.
pub(crate) async fn texts(
    db: &mut PgConnection,
    org: OrgId,
    places: &[(Uuid, i64)],
) -> Result<HashMap<(Uuid, i64), String>> {
    let (threads, seqs): (Vec<Uuid>, Vec<i64>) = places.iter().copied().unzip();
    let mut rows = sqlx::query!(
        r#"SELECT m.thread_id AS "thread_id: ThreadId", m.seq,
               CASE WHEN m.blob_bytes IS NULL THEN m.content
                    ELSE (SELECT blob.content FROM thread_blobs AS blob
                          WHERE blob.org_id = $1 AND blob.thread_id = m.thread_id AND blob.seq = m.seq)
               END AS "content!: Json<Raw>",
               m.tool_calls AS "tool_calls: Json<Raw>", m.tool_name
           FROM UNNEST($2::uuid[], $3::bigint[]) AS given (thread_id, seq)
           JOIN thread_messages AS m
             ON m.org_id = $1 AND m.thread_id = given.thread_id AND m.seq = given.seq"#,
        org.0,
        &threads,
        &seqs,
    )
    .fetch(db);
    let text = |content: &Raw, calls: Option<&Json<Raw>>, name: Option<&str>| {
        content::of_message(content, calls.map(|calls| &calls.0), name)
    };
    let mut texts = HashMap::new();
    // One at a time: a content may be of megabytes, of which the text that is searched is kept.
    while let Some(row) = rows.try_next().await.map_err(in_time)? {
        let text = text(&row.content, row.tool_calls.as_ref(), row.tool_name.as_deref());
        texts.insert((row.thread_id.0, row.seq), text);
    }
    Ok(texts)
}
