//! Files that came late: the issues that lacked them are processed once more.

use loom_core::{Result, port::Project};

use super::files::forms;
use crate::{Crashes, pipeline::requeue};

/// Files that are missing and looked for, the newest wishes first.
const WANTED: i64 = 10_000;

impl Crashes {
    /// Puts the events of all issues into the queue again that lacked a file which is there now; gives how
    /// many.
    pub(crate) async fn reprocess_found(&self, project: &Project) -> Result<u64> {
        let pool = &self.deps.pool;
        let missing = sqlx::query_scalar!(
            "SELECT wanted FROM crash_missing_files WHERE org_id = $1 AND project_id = $2
              GROUP BY wanted ORDER BY max(last_seen) DESC LIMIT $3",
            project.org.0,
            project.id.0,
            WANTED
        )
        .fetch_all(pool)
        .await?;
        let (mut wanted, mut names) = (Vec::new(), Vec::new());
        for file in missing {
            for name in forms(&file) {
                wanted.push(file.clone());
                names.push(name);
            }
        }
        let found = sqlx::query_scalar!(
            r#"SELECT DISTINCT w.wanted AS "wanted!" FROM UNNEST($2::text[], $3::text[]) AS w (wanted, name)
                WHERE EXISTS (SELECT FROM crash_artifact_objects o WHERE o.project_id = $1 AND o.debug_id = w.name)
                   OR EXISTS (SELECT FROM crash_artifact_objects o WHERE o.project_id = $1 AND o.code_id = w.name)
                   OR EXISTS (SELECT FROM crash_artifact_objects o WHERE o.project_id = $1 AND o.url = w.name)"#,
            project.id.0,
            &wanted,
            &names
        )
        .fetch_all(pool)
        .await?;
        if found.is_empty() {
            return Ok(0);
        }
        let events = requeue::lacking(pool, project.org, project.id, &found).await?;
        self.wake_all();
        Ok(events)
    }
}
