//! What other features ask of projects and events, in SQL.

use std::{sync::Arc, time::Duration};

use loom_core::{
    Result,
    id::{EventId, IssueId, OrgId, ProjectId, ProjectKeyId},
    port::{DsnKey, Project, RateLimit, TracedEvent},
};
use sqlx::PgPool;

use crate::{grouping::Rules, scrub};

/// What processing needs of a project.
pub(crate) struct ProjectSettings {
    pub rules: Rules,
    pub scrubbing: scrub::Settings,
}

const OF_TRACE: i64 = 100;

pub(super) async fn by_key(pool: &PgPool, key: &str) -> Result<Option<DsnKey>> {
    let found = sqlx::query!(
        "SELECT k.id, k.enabled, k.limit_count, k.limit_window_secs,
                p.id AS project_id, p.number, p.org_id, p.slug, p.name, p.allowed_origins
           FROM crash_project_keys k
           JOIN crash_projects p ON p.org_id = k.org_id AND p.id = k.project_id
          WHERE k.public_key = $1 AND p.deleted_at IS NULL",
        key
    )
    .fetch_optional(pool)
    .await?;
    Ok(found.map(|found| DsnKey {
        id: ProjectKeyId(found.id),
        project: Arc::new(Project {
            id: ProjectId(found.project_id),
            number: found.number,
            org: OrgId(found.org_id),
            slug: found.slug,
            name: found.name,
            allowed_origins: found.allowed_origins,
        }),
        enabled: found.enabled,
        limit: limit(found.limit_count, found.limit_window_secs),
    }))
}

fn limit(count: Option<i32>, window_secs: Option<i32>) -> Option<RateLimit> {
    Some(RateLimit {
        count: u32::try_from(count?).ok()?,
        window: Duration::from_secs(u64::try_from(window_secs?).ok()?),
    })
}

pub(super) async fn find(pool: &PgPool, org: OrgId, name: &str) -> Result<Option<Project>> {
    let found = sqlx::query!(
        "SELECT id, number, slug, name, allowed_origins FROM crash_projects
          WHERE org_id = $1 AND deleted_at IS NULL AND (id = $2 OR number = $3 OR slug = $4)",
        org.0,
        name.parse::<uuid::Uuid>().ok(),
        name.parse::<i64>().ok(),
        name
    )
    .fetch_optional(pool)
    .await?;
    Ok(found.map(|found| Project {
        id: ProjectId(found.id),
        number: found.number,
        org,
        slug: found.slug,
        name: found.name,
        allowed_origins: found.allowed_origins,
    }))
}

pub(super) async fn settings(pool: &PgPool, id: ProjectId) -> Result<Option<ProjectSettings>> {
    let found = sqlx::query!(
        "SELECT grouping_rules, scrubbing FROM crash_projects WHERE id = $1 AND deleted_at IS NULL",
        id.0
    )
    .fetch_optional(pool)
    .await?;
    Ok(found.map(|found| ProjectSettings {
        // They were checked when they were set.
        rules: Rules::parse(&found.grouping_rules).unwrap_or_default(),
        scrubbing: scrub::Settings::parse(&found.scrubbing).unwrap_or_default(),
    }))
}

pub(super) async fn of_trace(
    pool: &PgPool,
    org: OrgId,
    trace_id: &str,
) -> Result<Vec<TracedEvent>> {
    let found = sqlx::query!(
        "SELECT e.project_id, e.event_id, e.issue_id, e.title, e.at, i.number, p.short_prefix
           FROM crash_events e
           JOIN crash_issues i ON i.id = e.issue_id
           JOIN crash_projects p ON p.org_id = e.org_id AND p.id = e.project_id
          WHERE e.org_id = $1 AND e.trace_id = $2 AND p.deleted_at IS NULL
          ORDER BY e.received_at DESC, e.event_id DESC
          LIMIT $3",
        org.0,
        trace_id,
        OF_TRACE
    )
    .fetch_all(pool)
    .await?;
    let events = found.into_iter().map(|found| TracedEvent {
        project: ProjectId(found.project_id),
        event: EventId(found.event_id),
        issue: IssueId(found.issue_id),
        short_id: format!("{}-{}", found.short_prefix, found.number),
        title: found.title,
        at: found.at,
    });
    Ok(events.collect())
}
