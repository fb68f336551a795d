//! The SQL of logs.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    id::{OrgId, WeaverId},
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use super::line::{Line, pack, unpack};
use crate::model::Status;

/// A chunk that is smaller takes up the next lines.
const SMALL: i32 = 16 * 1024;
/// Of what may be kept, this part is the beginning; the rest is the newest.
const HEAD_PART: i64 = 10;

/// How far a container's log was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) at: DateTime<Utc>,
    /// Of the lines of just that time.
    pub(super) digests: Vec<u64>,
}

pub(super) type Marks = BTreeMap<String, Mark>;

pub(super) struct State {
    pub(super) next_line: i64,
    pub(super) marks: Marks,
}

/// How far the log of a weaver was read; begins it when there is none.
pub(super) async fn state(pool: &PgPool, id: WeaverId) -> Result<State> {
    sqlx::query!(
        "INSERT INTO weaver_log_state (weaver_id)
         SELECT id FROM weavers WHERE id = $1 ON CONFLICT DO NOTHING",
        id.0
    )
    .execute(pool)
    .await?;
    let row =
        sqlx::query!("SELECT next_line, read FROM weaver_log_state WHERE weaver_id = $1", id.0)
            .fetch_optional(pool)
            .await?
            .ok_or_else(|| Error::internal("the weaver is forgotten"))?;
    let marks = serde_json::from_value(row.read).map_err(Error::internal)?;
    Ok(State { next_line: row.next_line, marks })
}

/// Adds lines behind `state`, and keeps the whole within `most` bytes. False: another has written meanwhile.
pub(super) async fn append(
    pool: &PgPool,
    id: WeaverId,
    state: &State,
    lines: &[Line],
    most: i64,
) -> Result<bool> {
    let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return Ok(true) };
    let bytes: usize = lines.iter().map(Line::bytes).sum();
    let bytes = i32::try_from(bytes).map_err(Error::internal)?;
    let count = i32::try_from(lines.len()).map_err(Error::internal)?;
    let marks = serde_json::to_value(&state.marks).map_err(Error::internal)?;
    let mut tx = loom_db::begin(pool).await?;
    let total = sqlx::query_scalar!(
        "UPDATE weaver_log_state SET next_line = next_line + $3, bytes = bytes + $4, read = $5
         WHERE weaver_id = $1 AND next_line = $2 RETURNING bytes",
        id.0,
        state.next_line,
        i64::from(count),
        i64::from(bytes),
        marks
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(total) = total else { return Ok(false) };
    let open = sqlx::query!(
        "SELECT first_line, lines, body FROM weaver_log_chunks
         WHERE weaver_id = $1 AND bytes < $2 ORDER BY first_line DESC LIMIT 1",
        id.0,
        SMALL
    )
    .fetch_optional(&mut *tx)
    .await?;
    let open = open.filter(|open| open.first_line + i64::from(open.lines) == state.next_line);
    if let Some(open) = open {
        let mut all = unpack(&open.body)?;
        all.extend_from_slice(lines);
        sqlx::query!(
            "UPDATE weaver_log_chunks SET lines = lines + $3, last_at = $4, bytes = bytes + $5, body = $6
             WHERE weaver_id = $1 AND first_line = $2",
            id.0,
            open.first_line,
            count,
            last.at,
            bytes,
            pack(&all)?
        )
        .execute(&mut *tx)
        .await?;
    } else {
        sqlx::query!(
            "INSERT INTO weaver_log_chunks (weaver_id, first_line, lines, first_at, last_at, bytes, body)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            id.0,
            state.next_line,
            count,
            first.at,
            last.at,
            bytes,
            pack(lines)?
        )
        .execute(&mut *tx)
        .await?;
    }
    if total > most {
        let head = most / HEAD_PART;
        sqlx::query!(
            r#"WITH gone AS (
                DELETE FROM weaver_log_chunks WHERE weaver_id = $1 AND first_line IN (
                    SELECT first_line FROM (
                        SELECT first_line, sum(bytes) OVER (ORDER BY first_line) AS upto,
                            sum(bytes) OVER (ORDER BY first_line DESC) AS onwards
                        FROM weaver_log_chunks WHERE weaver_id = $1) AS chunk
                    WHERE upto > $2 AND onwards > $3)
                RETURNING lines, bytes)
            UPDATE weaver_log_state SET
                bytes = weaver_log_state.bytes - (SELECT COALESCE(sum(bytes), 0)::bigint FROM gone),
                dropped_lines = dropped_lines + (SELECT COALESCE(sum(lines), 0)::bigint FROM gone)
            WHERE weaver_id = $1"#,
            id.0,
            head,
            most - head
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Nothing more will come.
pub(super) async fn complete(pool: &PgPool, id: WeaverId) -> Result<()> {
    sqlx::query!(
        "INSERT INTO weaver_log_state (weaver_id, complete)
         SELECT id, true FROM weavers WHERE id = $1
         ON CONFLICT (weaver_id) DO UPDATE SET complete = true",
        id.0
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// How a log stands, for who reads it.
pub(super) struct Standing {
    pub(super) next_line: i64,
    pub(super) complete: bool,
    pub(super) status: Status,
    pub(super) over: bool,
    pub(super) reason_code: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) exit_code: Option<i32>,
}

pub(super) async fn standing(pool: &PgPool, org: OrgId, id: WeaverId) -> Result<Option<Standing>> {
    let row = sqlx::query!(
        r#"SELECT weaver.status, weaver.ended_at IS NOT NULL AS "over!", weaver.reason_code, weaver.reason,
            weaver.exit_code, COALESCE(log.next_line, 1) AS "next_line!", COALESCE(log.complete, false) AS "complete!"
         FROM weavers AS weaver LEFT JOIN weaver_log_state AS log ON log.weaver_id = weaver.id
         WHERE weaver.org_id = $1 AND weaver.id = $2"#,
        org.0,
        id.0
    )
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let status = Status::parse(&row.status)
        .ok_or_else(|| Error::internal(format!("a weaver's row says `{}`", row.status)))?;
    Ok(Some(Standing {
        next_line: row.next_line,
        complete: row.complete,
        status,
        over: row.over,
        reason_code: row.reason_code,
        reason: row.reason,
        exit_code: row.exit_code,
    }))
}

/// The chunk that has this line, or the first after it: the number of its first line, and its lines.
pub(super) async fn chunk(
    pool: &PgPool,
    org: OrgId,
    id: WeaverId,
    line: i64,
) -> Result<Option<(i64, Vec<Line>)>> {
    let row = sqlx::query!(
        "SELECT chunk.first_line, chunk.body
         FROM weaver_log_chunks AS chunk JOIN weavers AS weaver ON weaver.id = chunk.weaver_id
         WHERE weaver.org_id = $1 AND chunk.weaver_id = $2 AND chunk.first_line + chunk.lines > $3
            AND chunk.first_line >= COALESCE((SELECT max(first_line) FROM weaver_log_chunks
                WHERE weaver_id = $2 AND first_line <= $3), 0)
         ORDER BY chunk.first_line LIMIT 1",
        org.0,
        id.0,
        line
    )
    .fetch_optional(pool)
    .await?;
    row.map(|row| Ok((row.first_line, unpack(&row.body)?))).transpose()
}
