//! Who watches issues: what any server says on the channel goes to the watchers of all servers.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, future::ready, stream};
use loom_core::{
    id::{OrgId, ProjectId},
    sse::{self, Leash, Places, Seat, Seats},
};
use loom_db::Signal;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::Crashes;

/// What words on the channel begin with that are for watchers.
const WORD: &str = "stream ";
/// Who watches.
const PLACES: Places = Places {
    streams: "streams of crashes",
    gauge: "loom_crash_watchers",
    most: 2000,
    most_of_one: 50,
    instead: ", or follow all projects with GET /api/crash/stream",
};
/// A watcher that falls behind by more is told that it lags.
const BACKLOG: usize = 1024;

/// Something that watchers are told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    #[serde(rename = "org_id")]
    pub(crate) org: OrgId,
    #[serde(rename = "project_id")]
    pub(crate) project: ProjectId,
    /// `crash.new`, `issue.new`, `issue.regressed`, `issue.resolved`…
    pub(crate) event: String,
    /// The issue it is about and what else there is to say.
    #[serde(flatten)]
    pub(crate) data: Map<String, Value>,
}

impl Told {
    /// `data` is an object.
    pub(crate) fn new(org: OrgId, project: ProjectId, event: &str, data: Value) -> Self {
        let data = match data {
            Value::Object(data) => data,
            _ => Map::new(),
        };
        Self { org, project, event: event.to_owned(), data }
    }

    fn shown(&self) -> Value {
        let mut data = self.data.clone();
        data.insert("project_id".to_owned(), Value::String(self.project.to_string()));
        Value::Object(data)
    }
}

#[derive(Clone, Debug)]
enum Heard {
    Told(Arc<Told>),
    /// Words may have been missed.
    Reset,
}

/// The watchers of this server.
pub(crate) struct Watchers {
    pub(crate) seats: Seats,
    heard: broadcast::Sender<Heard>,
    /// Ends all streams.
    pub(crate) leaving: CancellationToken,
}

impl Watchers {
    pub(crate) fn new(stop: &CancellationToken) -> Self {
        let heard = broadcast::channel(BACKLOG).0;
        Self { seats: Seats::new(PLACES), heard, leaving: stop.child_token() }
    }
}

impl Crashes {
    /// Tells the watchers of all servers; to be called after the commit.
    pub(crate) fn tell_watchers(&self, told: &Told) {
        if let Ok(json) = serde_json::to_string(told) {
            self.announcer.say(format!("{WORD}{json}"));
        }
    }

    /// Passes on what is said on the channel, until the hub stops.
    pub(crate) fn follow_stream(&self) {
        let heard = self.watchers.heard.clone();
        let stop = self.deps.stop.clone();
        self.deps.hub.follow(crate::CHANNEL, stop, move |signal| {
            let told = match signal {
                Signal::ReadAgain => Some(Heard::Reset),
                Signal::Said(word) => word
                    .strip_prefix(WORD)
                    .and_then(|json| serde_json::from_str(json).ok())
                    .map(|told| Heard::Told(Arc::new(told))),
            };
            if let Some(told) = told {
                // Nobody watches: nobody is told.
                let _ = heard.send(told);
            }
        });
    }
}

/// What watchers are told of.
pub(crate) const EVENTS: [&str; 11] = [
    "crash.new",
    "issue.new",
    "issue.regressed",
    "issue.resolved",
    "issue.unresolved",
    "issue.ignored",
    "issue.assigned",
    "issue.priority",
    "issue.merged",
    "issue.unmerged",
    "issue.deleted",
];

/// What a stream is about.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) org: OrgId,
    /// None: all of the organisation.
    pub(crate) project: Option<ProjectId>,
    /// None: all that there are.
    pub(crate) events: Option<Vec<&'static str>>,
}

/// Listens from now on: to be called before what is there already is read.
pub(crate) fn listen(crashes: &Crashes) -> Listening {
    Listening(crashes.watchers.heard.subscribe())
}

/// What is said from some moment on.
pub(crate) struct Listening(broadcast::Receiver<Heard>);

/// The stream: `init` first, then what is told.
pub(crate) fn events(
    scope: Scope,
    listening: Listening,
    init: &Value,
    seat: Seat,
    leash: Leash,
) -> impl Stream<Item = Bytes> + Send + use<> {
    let begin = Bytes::from(format!("event: init\ndata: {init}\n\n"));
    let heard = stream::unfold((listening.0, scope), |(mut heard, scope)| async move {
        let piece = match heard.recv().await {
            Ok(Heard::Told(told)) if scope.has(&told) => {
                format!("event: {}\ndata: {}\n\n", told.event, told.shown())
            }
            Ok(Heard::Told(_)) => String::new(),
            Ok(Heard::Reset) => "event: reset\ndata: {}\n\n".to_owned(),
            Err(broadcast::error::RecvError::Lagged(skipped)) => {
                format!("event: lagged\ndata: {{\"skipped\":{skipped}}}\n\n")
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        Some((Bytes::from(piece), (heard, scope)))
    });
    sse::watch(begin, heard.filter(|piece| ready(!piece.is_empty())), leash, seat)
}

impl Scope {
    fn has(&self, told: &Told) -> bool {
        told.org == self.org
            && self.project.is_none_or(|project| project == told.project)
            && self.events.as_ref().is_none_or(|events| events.contains(&told.event.as_str()))
    }
}
