//! What those who watch are told, on whichever server they do.

use std::{collections::VecDeque, fmt::Write};

use bytes::Bytes;
use futures::{Stream, stream};
use loom_core::{
    id::OrgId,
    sse::{KEEP_ALIVE, Leash, Places, Seat},
};
use loom_db::{Signal, Subscription};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

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

struct Watch {
    org: OrgId,
    monitor: Option<String>,
    said: Subscription,
    ready: VecDeque<Bytes>,
    leash: Leash,

    _seat: Seat,
    next_ping: Instant,
    ended: bool,
}

/// The events of an organisation, or of one of its monitors, from now on. `init` is the first.
pub(crate) fn events(
    org: OrgId,
    monitor: Option<String>,
    said: Subscription,
    init: &Value,
    seat: Seat,
    leash: Leash,
) -> impl Stream<Item = Bytes> + Send + use<> {
    let ready = VecDeque::from([piece("init", init)]);
    let next_ping = Instant::now() + KEEP_ALIVE;
    let watch = Watch { org, monitor, said, ready, leash, _seat: seat, next_ping, ended: false };
    stream::unfold(watch, |mut watch| async move {
        let next = watch.next().await?;
        Some((next, watch))
    })
}

fn piece(event: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            if self.ended {
                return None;
            }
            let waiting = async {
                tokio::select! {
                    signal = self.said.next() => Some(signal),
                    () = sleep_until(self.next_ping) => None,
                }
            };
            match self.leash.unless_ended(waiting).await {
                Err(bye) => {
                    self.ended = true;
                    return Some(Bytes::from_static(bye.event().as_bytes()));
                }
                Ok(None) => {
                    self.next_ping = Instant::now() + KEEP_ALIVE;
                    return Some(Bytes::from_static(b": keep-alive\n\n"));
                }
                Ok(Some(None)) => self.ended = true,
                Ok(Some(Some(signal))) => {
                    // Nothing is given out on an authorisation that is older than this.
                    if let Err(bye) =
                        self.leash.check_again(std::time::Duration::from_secs(1)).await
                    {
                        self.ended = true;
                        return Some(Bytes::from_static(bye.event().as_bytes()));
                    }
                    self.take(&signal);
                }
            }
        }
    }

    fn take(&mut self, signal: &Signal) {
        let reset = || piece("reset", &json!({"reason": "events may be missing; read again"}));
        match signal {
            Signal::ReadAgain => self.ready.push_back(reset()),
            Signal::Said(word) => {
                let Some(lines) = word.strip_prefix(WORD) else { return };
                let mut text = String::new();
                for told in lines.lines().filter_map(|line| serde_json::from_str::<Told>(line).ok())
                {
                    let is_ours = told.org == self.org
                        && self.monitor.as_ref().is_none_or(|slug| {
                            told.data.get("monitor").and_then(Value::as_str) == Some(slug)
                        });
                    if is_ours {
                        // Writing into a string does not fail.
                        let _ = write!(text, "event: {}\ndata: {}\n\n", told.event, told.data);
                    }
                }
                if !text.is_empty() {
                    self.ready.push_back(text.into());
                }
            }
        }
    }
}
