//! Which file a project has for what is wanted: asked once an hour, and again after an upload.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use loom_core::{Result, id::ProjectId};
use moka::future::Cache;

use crate::{File, Files, Wanted};

const KEPT: Duration = Duration::from_hours(1);
const MAX_PROJECTS: u64 = 1_000;
/// Answers kept for one project.
const MAX_ANSWERS: usize = 4_096;

type Answers = Arc<Mutex<HashMap<Wanted, Option<File>>>>;

pub(crate) struct Lookup {
    files: Arc<dyn Files>,
    projects: Cache<ProjectId, Answers>,
}

impl Lookup {
    pub(crate) fn new(files: Arc<dyn Files>) -> Self {
        let projects = Cache::builder().max_capacity(MAX_PROJECTS).time_to_live(KEPT).build();
        Self { files, projects }
    }

    pub(crate) async fn find(&self, project: ProjectId, wanted: &Wanted) -> Result<Option<File>> {
        // An answer that was asked for before an upload goes into the map that the upload threw away.
        let answers = self.projects.get_with(project, async { Answers::default() }).await;
        if let Some(known) = locked(&answers).get(wanted) {
            metrics::counter!("loom_symbolication_lookups_total", "answer" => "kept").increment(1);
            return Ok(known.clone());
        }
        let found = self.files.find(project, wanted).await?;
        let answer = if found.is_some() { "found" } else { "missing" };
        metrics::counter!("loom_symbolication_lookups_total", "answer" => answer).increment(1);
        let mut answers = locked(&answers);
        if answers.len() >= MAX_ANSWERS {
            answers.clear();
        }
        answers.insert(wanted.clone(), found.clone());
        Ok(found)
    }

    /// Asks again: the file that was named is no longer where it was.
    pub(crate) async fn find_again(
        &self,
        project: ProjectId,
        wanted: &Wanted,
    ) -> Result<Option<File>> {
        if let Some(answers) = self.projects.get(&project).await {
            locked(&answers).remove(wanted);
        }
        self.find(project, wanted).await
    }

    pub(crate) async fn forget(&self, project: ProjectId) {
        self.projects.invalidate(&project).await;
    }
}

fn locked(answers: &Answers) -> std::sync::MutexGuard<'_, HashMap<Wanted, Option<File>>> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}
