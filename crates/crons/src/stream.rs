//! What those who watch are told, on whichever server they do.

use std::fmt::Write;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, future::ready};
use loom_core::{
    id::OrgId,
    sse::{self, Leash, Places, Seat},
};
use loom_db::{Signal, Subscription};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{engine::Engine, model::Status, work::Row};

/// How words on the channel begin that are for streams.
const WORD: &str = "stream ";
/// A NOTIFY holds no more than 8,000 bytes.
const LONGEST: usize = 7000;

/// One event of one organisation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    #[serde(rename = "o")]
    org: OrgId,
    #[serde(rename = "e")]
    event: String,
    #[serde(rename = "d")]
    data: Value,
}

impl Told {
    pub(crate) fn about(org: OrgId, event: &str, data: Value) -> Self {
        Self { org, event: event.to_owned(), data }
    }

    pub(crate) fn of(row: &Row) -> Self {
        let event = match row.status {
            Status::InProgress => "checkin.started",
            Status::Ok => "checkin.ok",
            Status::Error => "checkin.error",
            Status::Missed => "monitor.missed",
            Status::Timeout => "monitor.timeout",
            Status::Unknown => "monitor.unknown",
            Status::Log => "checkin.log",
        };
        let data = json!({
            "monitor": row.monitor.slug, "environment": row.place.1, "checkin_id": row.id,
            "status": row.status, "at": row.at.timestamp_millis(), "duration_ms": row.duration_ms,
            "reason": row.reason,
        });
        Self::about(row.monitor.org, event, data)
    }
}

impl Engine {
    /// To be called after the commit: many events in one word.
    pub(crate) fn say(&self, told: &[Told]) {
        let mut word = String::new();
        for one in told {
            let Ok(json) = serde_json::to_string(one) else { continue };
            if !word.is_empty() && word.len() + json.len() > LONGEST {
                self.announcer.say(std::mem::take(&mut word));
            }
            word.push_str(if word.is_empty() { WORD } else { "\n" });
            word.push_str(&json);
        }
        if !word.is_empty() {
            self.announcer.say(word);
        }
    }
}

/// Who watches.
pub(crate) const PLACES: Places = Places {
    streams: "streams of monitors",
    gauge: "loom_cron_watchers",
    most: 2000,
    most_of_one: 50,
    instead: "",
};

/// The events of an organisation, or of one of its monitors, from now on. `init` is the first.
pub(crate) fn events(
    org: OrgId,
    monitor: Option<String>,
    said: Subscription,
    init: &Value,
    seat: Seat,
    leash: Leash,
) -> impl Stream<Item = Bytes> + Send + use<> {
    let heard = said.signals().filter_map(move |signal| {
        ready(match &signal {
            Signal::ReadAgain => {
                Some(piece("reset", &json!({"reason": "events may be missing; read again"})))
            }
            Signal::Said(word) => pieces(word, org, monitor.as_deref()),
        })
    });
    sse::watch(piece("init", init), heard, leash, seat)
}

fn piece(event: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}

/// Those of the events in a word that are wanted, if any are.
fn pieces(word: &str, org: OrgId, monitor: Option<&str>) -> Option<Bytes> {
    let mut text = String::new();
    let lines = word.strip_prefix(WORD)?.lines();
    for told in lines.filter_map(|line| serde_json::from_str::<Told>(line).ok()) {
        let is_of = |slug| told.data.get("monitor").and_then(Value::as_str) == Some(slug);
        if told.org == org && monitor.is_none_or(is_of) {
            // Writing into a string does not fail.
            let _ = write!(text, "event: {}\ndata: {}\n\n", told.event, told.data);
        }
    }
    (!text.is_empty()).then(|| text.into())
}
