//! Events that follow their hash to another issue, or into nothing.

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::Result;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// Events of one statement.
const BATCH: i64 = 2000;
/// What was being processed when its hash moved is stored by then.
const SETTLED: TimeDelta = TimeDelta::minutes(5);

struct Move {
    id: i64,
    org: uuid::Uuid,
    project: uuid::Uuid,
    from: uuid::Uuid,
    to: Option<uuid::Uuid>,
    hash: Vec<u8>,
    created_at: DateTime<Utc>,
}

/// Moves what is to be moved, until all is done or `batches` are; the number of events that were moved.
pub(super) async fn run(
    pool: &PgPool,
    now: DateTime<Utc>,
    batches: usize,
    cancel: &CancellationToken,
) -> Result<u64> {
    let moves = sqlx::query_as!(
        Move,
        r#"SELECT id, org_id AS org, project_id AS project, from_issue AS "from", to_issue AS "to", hash,
                  created_at
             FROM crash_event_moves ORDER BY id LIMIT 1000"#,
    )
    .fetch_all(pool)
    .await?;
    let (mut moved, mut left) = (0, batches);
    for one in moves {
        loop {
            if left == 0 || cancel.is_cancelled() {
                return Ok(moved);
            }
            left -= 1;
            let count = batch(pool, &one).await?;
            moved += count;
            if count < BATCH as u64 {
                break;
            }
        }
        if now - one.created_at > SETTLED {
            sqlx::query!("DELETE FROM crash_event_moves WHERE id = $1", one.id)
                .execute(pool)
                .await?;
        }
    }
    Ok(moved)
}

async fn batch(pool: &PgPool, one: &Move) -> Result<u64> {
    let done = match one.to {
        Some(to) => {
            sqlx::query!(
                "UPDATE crash_events e SET issue_id = $1
                   FROM (SELECT project_id, event_id, received_at FROM crash_events
                          WHERE org_id = $2 AND issue_id = $3 AND hash = $4 LIMIT $5) AS due
                  WHERE e.org_id = $2 AND e.project_id = due.project_id AND e.event_id = due.event_id
                    AND e.received_at = due.received_at AND e.issue_id = $3",
                to,
                one.org,
                one.from,
                one.hash,
                BATCH,
            )
            .execute(pool)
            .await?
        }
        None => {
            sqlx::query!(
                "WITH due AS (
                     SELECT project_id, event_id, received_at FROM crash_events
                      WHERE org_id = $1 AND issue_id = $2 AND hash = $3 LIMIT $4
                 ), raw AS (
                     DELETE FROM crash_raw r USING due
                      WHERE r.org_id = $1 AND r.project_id = due.project_id AND r.event_id = due.event_id
                        AND r.received_at = due.received_at
                 ), files AS (
                     DELETE FROM crash_attachments a USING due
                      WHERE a.org_id = $1 AND a.project_id = due.project_id AND a.event_id = due.event_id
                 ), said AS (
                     DELETE FROM crash_feedback f USING due
                      WHERE f.org_id = $1 AND f.project_id = due.project_id AND f.event_id = due.event_id
                 )
                 DELETE FROM crash_events e USING due
                  WHERE e.org_id = $1 AND e.project_id = $5 AND e.event_id = due.event_id
                    AND e.received_at = due.received_at",
                one.org,
                one.from,
                one.hash,
                BATCH,
                one.project,
            )
            .execute(pool)
            .await?
        }
    };
    Ok(done.rows_affected())
}
