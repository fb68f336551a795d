//! What other features are told of releases.

use std::collections::HashMap;

use loom_core::{
    Result,
    port::{Project, ReleaseFacts},
};
use sqlx::PgPool;

use super::{model::MAX_COMMITS, store};

/// Versions of one question.
const MAX_VERSIONS: usize = 1000;
const MAX_DEPLOYS: i64 = 100;

pub(crate) async fn of(
    pool: &PgPool,
    project: &Project,
    versions: &[String],
) -> Result<HashMap<String, ReleaseFacts>> {
    let versions: Vec<String> = versions.iter().take(MAX_VERSIONS).cloned().collect();
    let rows = store::by_versions(pool, project.org, project.id, &versions).await?;
    let issues = store::issues(pool, project.org, project.id, &versions).await?;
    let mut facts = HashMap::new();
    let is_one = versions.len() == 1;
    for row in rows {
        let counts = issues.get(&row.version).copied().unwrap_or_default();
        let (mut deploys, mut commits) = (Vec::new(), Vec::new());
        if is_one {
            let found = store::deploys(pool, project.org, row.id, None, MAX_DEPLOYS).await?;
            deploys = found.into_iter().map(|d| (d.environment, d.finished_at)).collect();
            let limit = i64::try_from(MAX_COMMITS).unwrap_or(i64::MAX);
            let found = store::commits(pool, project.org, row.id, 0, limit).await?;
            commits = found.into_iter().map(|commit| commit.sha).collect();
        }
        let fact = ReleaseFacts {
            first_event: row.first_event,
            last_event: row.last_event,
            released_at: row.released_at,
            events: row.events,
            new_issues: counts.new,
            regressed_issues: counts.regressed,
            resolved_issues: counts.resolved,
            deploys,
            commits,
        };
        facts.insert(row.version, fact);
    }
    Ok(facts)
}
