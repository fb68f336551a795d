//! Which file a project has for what is wanted: asked once an hour, and again after an upload.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use loom_core::{Result, id::ProjectId};

use crate::{File, Files, Wanted};

const KEPT: Duration = Duration::from_hours(1);
const MAX_PROJECTS: usize = 1_000;
/// Answers kept for one project.
const MAX_ANSWERS: usize = 4_096;

pub(crate) struct Lookup {
    files: Arc<dyn Files>,
    projects: Mutex<HashMap<ProjectId, Known>>,
}

/// What is known of a project's files.
struct Known {
    since: Instant,
    answers: Answers,
}

type Answers = Arc<Mutex<HashMap<Wanted, Option<File>>>>;

impl Lookup {
    pub(crate) fn new(files: Arc<dyn Files>) -> Self {
        Self { files, projects: Mutex::default() }
    }

    pub(crate) async fn find(&self, project: ProjectId, wanted: &Wanted) -> Result<Option<File>> {
        // An answer that was asked for before an upload goes into the map that the upload threw away.
        let answers = self.answers(project);
        if let Some(known) = locked(&answers).get(wanted) {
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
        locked(&self.answers(project)).remove(wanted);
        self.find(project, wanted).await
    }

    pub(crate) fn forget(&self, project: ProjectId) {
        locked(&self.projects).remove(&project);
    }

    pub(crate) fn forget_all(&self) {
        locked(&self.projects).clear();
    }

    fn answers(&self, project: ProjectId) -> Answers {
        let mut projects = locked(&self.projects);
        if projects.len() >= MAX_PROJECTS {
            projects.retain(|_, known| known.since.elapsed() < KEPT);
        }
        if projects.len() >= MAX_PROJECTS {
            projects.clear();
        }
        let fresh = || Known { since: Instant::now(), answers: Answers::default() };
        let known = projects.entry(project).or_insert_with(fresh);
        if known.since.elapsed() >= KEPT {
            *known = fresh();
        }
        known.answers.clone()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
