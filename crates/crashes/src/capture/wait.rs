//! Waiting for what becomes of an event, for a while.

use std::time::Duration;

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{EventId, IssueId, ProjectId},
};
use sqlx::PgPool;
use tokio::time::{Instant, timeout_at};

use crate::{
    Crashes,
    pipeline::{Became, Place, Waits},
};

/// Longer than a short queue takes.
const LONGEST: Duration = Duration::from_secs(10);
/// Whoever was not told looks: another server may have processed it, or it was there before.
const FIRST_LOOK: Duration = Duration::from_millis(250);

impl Crashes {
    /// None: it is stored, and still to be processed.
    pub(super) async fn await_grouping(
        &self,
        place: Place,
        received_at: DateTime<Utc>,
        may_repeat: bool,
        mut waits: Waits<'_>,
    ) -> Result<Option<Became>> {
        let end = Instant::now() + LONGEST;
        let mut pause = FIRST_LOOK;
        loop {
            let look = (Instant::now() + pause).min(end);
            if let Ok(Ok(mut became)) = timeout_at(look, &mut waits.became).await {
                // What is heard may be about the same event when it came before.
                let made = became.is_new_issue || became.is_regression;
                if made && may_repeat && !is_first(&self.deps.pool, place, received_at).await? {
                    (became.is_new_issue, became.is_regression) = (false, false);
                }
                return Ok(Some(became));
            }
            if let Some(became) = stored(&self.deps.pool, place, received_at).await? {
                return Ok(Some(became));
            }
            if Instant::now() >= end || self.deps.stop.is_cancelled() {
                return Ok(None);
            }
            pause *= 2;
        }
    }
}

/// Is it what came at this time that counts as the event?
async fn is_first(
    pool: &PgPool,
    (project, event): Place,
    received_at: DateTime<Utc>,
) -> Result<bool> {
    let first = sqlx::query_scalar!(
        "SELECT received_at FROM crash_event_ids WHERE project_id = $1 AND event_id = $2",
        project.0,
        event.0
    )
    .fetch_optional(pool)
    .await?;
    Ok(first.is_none_or(|first| micros(first) == micros(received_at)))
}

/// Where an event is that was processed already. A repeat of one that came before has not made an issue.
async fn stored(
    pool: &PgPool,
    (project, event): (ProjectId, EventId),
    received_at: DateTime<Utc>,
) -> Result<Option<Became>> {
    let found = sqlx::query!(
        "SELECT e.issue_id, i.number, p.short_prefix, i.event_count, d.received_at
           FROM crash_event_ids d
           JOIN crash_events e
             ON e.project_id = d.project_id AND e.event_id = d.event_id AND e.received_at = d.received_at
           JOIN crash_issues i ON i.id = e.issue_id
           JOIN crash_projects p ON p.org_id = i.org_id AND p.id = i.project_id
          WHERE d.project_id = $1 AND d.event_id = $2",
        project.0,
        event.0
    )
    .fetch_optional(pool)
    .await?;
    Ok(found.map(|found| Became {
        issue_id: IssueId(found.issue_id),
        short_id: format!("{}-{}", found.short_prefix, found.number),
        is_new_issue: found.event_count == 1 && micros(found.received_at) == micros(received_at),
        is_regression: false,
    }))
}

/// What the database keeps of a time.
fn micros(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros()
}
