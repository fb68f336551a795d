//! Those who wait to hear what became of their event: by this server, or by what another says.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use loom_core::id::{EventId, IssueId, ProjectId};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::{Outcome, Place};

/// What became of an event.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Became {
    pub issue_id: IssueId,
    pub short_id: String,
    pub is_new_issue: bool,
    pub is_regression: bool,
}

#[derive(Default)]
pub(crate) struct Waiting(Mutex<HashMap<Place, Vec<oneshot::Sender<Became>>>>);

#[derive(Deserialize)]
struct Told {
    event: String,
    project_id: ProjectId,
    event_id: EventId,
    #[serde(flatten)]
    became: Became,
}

/// One who waits. When it is dropped, also because its client went away, it has left.
pub(crate) struct Waits<'a> {
    all: &'a Waiting,
    place: Place,
    pub(crate) became: oneshot::Receiver<Became>,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.became.close();
        self.all.leave(self.place);
    }
}

impl Waiting {
    /// To be called before the event is taken: it may be done at once.
    pub(crate) fn wait(&self, place: Place) -> Waits<'_> {
        let (done, became) = oneshot::channel();
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those who have left make room.
        let those = lines.entry(place).or_default();
        those.retain(|done| !done.is_closed());
        those.push(done);
        drop(lines);
        Waits { all: self, place, became }
    }

    fn leave(&self, place: Place) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(those) = all.get_mut(&place) {
            those.retain(|done| !done.is_closed());
            if those.is_empty() {
                all.remove(&place);
            }
        }
    }

    fn end(&self, place: Place, became: &Became) {
        let those = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&place);
        for done in those.into_iter().flatten() {
            let _ = done.send(became.clone());
        }
    }

    pub(super) fn resolve(&self, outcome: &Outcome) {
        let became = Became {
            issue_id: outcome.issue,
            short_id: outcome.short_id.clone(),
            is_new_issue: outcome.is_new_issue,
            is_regression: outcome.is_regression,
        };
        self.end((outcome.project, outcome.event), &became);
    }

    /// What another server tells those who watch.
    pub(super) fn hear(&self, told: &str) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return;
        }
        if let Ok(told) = serde_json::from_str::<Told>(told)
            && matches!(told.event.as_str(), "crash.new" | "issue.new" | "issue.regressed")
        {
            self.end((told.project_id, told.event_id), &told.became);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn who_leaves_early_leaves_nothing_behind() {
        let waiting = Waiting::default();
        let place = (ProjectId(Uuid::nil()), EventId(Uuid::nil()));
        let mut one = waiting.wait(place);
        let other = waiting.wait(place);
        drop(other);
        let issue_id = IssueId(Uuid::nil());
        let became = Became {
            issue_id,
            short_id: "P-1".to_owned(),
            is_new_issue: true,
            is_regression: false,
        };
        waiting.end(place, &became);
        assert_eq!(one.became.try_recv().unwrap().issue_id, issue_id);
        drop(waiting.wait(place));
        assert!(waiting.0.lock().unwrap().is_empty());
    }
}
