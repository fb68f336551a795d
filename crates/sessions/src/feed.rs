//! What watchers are told, gathered: at most one word a second for each project and kind, through NOTIFY
//! to all servers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use loom_core::{
    Result,
    id::{OrgId, ProjectId},
    sse::{Places, Seat, Seats},
};
use loom_db::{Announcer, Hub, Signal};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::store::intake::{Changes, ChangesByProject};

const PAUSE: Duration = Duration::from_secs(1);
/// Words that a slow watcher may be behind.
const BACKLOG: usize = 1024;
/// Who watches.
const PLACES: Places = Places {
    streams: "streams of sessions",
    gauge: "loom_app_session_watchers",
    most: 2000,
    most_of_one: 50,
    instead: "",
};

/// Something that happened in a project.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) org: OrgId,
    pub(crate) project: ProjectId,
    #[serde(flatten)]
    pub(crate) what: What,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum What {
    Sessions {
        started: i64,
        ended: i64,
        crashed: i64,
    },
    /// A release is below the bar of an alert, or above it again.
    HealthChanged {
        release: String,
        alert: String,
        kind: String,
        firing: bool,
        value: f64,
    },
}

/// What a stream hears.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    Told(Arc<Told>),
    /// Words were lost.
    ReadAgain,
}

#[derive(Clone)]
pub(crate) struct Feed {
    waiting: Arc<Mutex<HashMap<(OrgId, ProjectId), Changes>>>,
    announcer: Announcer,
    heard: broadcast::Sender<Heard>,
    seats: Seats,
    /// Ends the streams, and the tasks.
    pub(crate) leaving: CancellationToken,
}

impl Feed {
    pub(crate) fn new(announcer: Announcer, stop: &CancellationToken) -> Self {
        Self {
            waiting: Arc::default(),
            announcer,
            heard: broadcast::channel(BACKLOG).0,
            seats: Seats::new(PLACES),
            leaving: stop.child_token(),
        }
    }

    /// Begins to tell, and to hear.
    pub(crate) fn start(&self, hub: &Hub, channel: &str) {
        let feed = self.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(PAUSE);
            while feed.leaving.run_until_cancelled(ticks.tick()).await.is_some() {
                feed.flush();
            }
        });
        let heard = self.heard.clone();
        hub.follow(channel, self.leaving.clone(), move |signal| {
            let told = match signal {
                Signal::Said(word) => match serde_json::from_str(&word) {
                    Ok(told) => Heard::Told(Arc::new(told)),
                    // Of another version of the server.
                    Err(_) => return,
                },
                Signal::ReadAgain => Heard::ReadAgain,
            };
            // Nobody may be there.
            let _ = heard.send(told);
        });
    }

    /// To be called after the commit.
    pub(crate) fn changed(&self, changes: ChangesByProject) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, change) in changes {
            let sum = waiting.entry(key).or_default();
            sum.started += change.started;
            sum.ended += change.ended;
            sum.crashed += change.crashed;
        }
    }

    fn flush(&self) {
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for ((org, project), Changes { started, ended, crashed }) in waiting {
            self.say(&Told { org, project, what: What::Sessions { started, ended, crashed } });
        }
    }

    /// To be called after the commit.
    pub(crate) fn say(&self, told: &Told) {
        if let Ok(word) = serde_json::to_string(told) {
            self.announcer.say(word);
        }
    }

    /// # Errors
    /// 429 when there are too many.
    pub(crate) fn sit(&self, who: String) -> Result<(Seat, broadcast::Receiver<Heard>)> {
        Ok((self.seats.sit(who)?, self.heard.subscribe()))
    }
}
