//! Errors of our own become events: a task reads them from the buffer, which is bounded and never waits, and
//! hands them over as any application would.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::DateTime;
use loom_core::{
    Result,
    id::{EventId, INTERNAL_ORG},
    port::{Delivery, EventSink, ProjectDirectory},
};
use metrics::counter;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};
use tracing::{Instrument as _, Level};
use uuid::Uuid;

use crate::{Logs, model::LogEntry};

/// The project that errors of the server belong to.
const PROJECT: &str = "loom-server";
/// Around what storing an event does: an error in there is none that is to be stored.
const SPAN: &str = "self_monitoring";
/// The target of what [`std::panic`] has to say.
const PANICS: &str = "loom_server::panic";
/// Lines looked at together, and the pause between.
const PIECE: usize = 256;
const PAUSE: Duration = Duration::from_millis(200);
/// So many events at once, and one more each second: an error that makes others ends here.
const BURST: f64 = 60.0;
const PER_SECOND: f64 = 1.0;
/// How often an event that cannot be stored is tried again, and how long the first pause is.
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Where errors go, and as what.
#[derive(Clone)]
pub struct Reporting {
    pub events: Arc<dyn EventSink>,
    pub projects: Arc<dyn ProjectDirectory>,
    pub release: String,
    pub environment: &'static str,
}

impl Logs {
    /// Hands errors over from now on, those since the start of the process first.
    pub fn report(&self, to: Reporting) {
        let (logs, stop) = (self.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let reporting =
                logs.keep_reporting(&to).instrument(tracing::error_span!("self_monitoring"));
            stop.run_until_cancelled(reporting).await;
        });
    }

    async fn keep_reporting(&self, to: &Reporting) {
        let mut newest = self.buffer.watch();
        let (mut place, mut budget) = (0, Budget::new());
        loop {
            let piece = self.buffer.after(place, PIECE);
            place = piece.upto;
            for line in piece.lines.iter().filter(|line| line.level == Level::ERROR) {
                let Ok(entry) = serde_json::from_str::<LogEntry>(&line.json) else { continue };
                if entry
                    .span
                    .as_deref()
                    .is_some_and(|spans| spans.split(':').any(|span| span == SPAN))
                {
                    continue;
                }
                if !budget.take() {
                    lost("limit");
                } else if !hand_over(self, to, &entry).await {
                    lost("storage");
                }
            }
            if place >= *newest.borrow_and_update() && newest.changed().await.is_err() {
                return;
            }
            sleep(PAUSE).await;
        }
    }
}

fn lost(reason: &'static str) {
    counter!("loom_self_monitoring_dropped_total", "reason" => reason).increment(1);
}

async fn hand_over(logs: &Logs, to: &Reporting, entry: &LogEntry) -> bool {
    let mut pause = FIRST_PAUSE;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep(pause).await;
            pause *= 2;
        }
        match try_hand_over(logs, to, entry).await {
            Ok(()) => return true,
            Err(error) => tracing::debug!(%error, "an error of our own could not be stored"),
        }
    }
    false
}

async fn try_hand_over(logs: &Logs, to: &Reporting, entry: &LogEntry) -> Result<()> {
    let Some(project) = to.projects.find(INTERNAL_ORG, PROJECT).await? else { return Ok(()) };
    let received_at = logs.clock.now();
    let delivery = Delivery {
        project,
        key: None,
        received_at,
        sent_at: None,
        client: None,
        user_agent: None,
        sdk: Some(format!("loom.server/{}", env!("CARGO_PKG_VERSION"))),
    };
    let id = id_of(entry);
    let payload = event(to, entry, id).to_string();
    to.events.event(&delivery, id, Bytes::from(payload)).await?;
    Ok(())
}

/// The same for the same line, so that one that was stored before its answer was lost is so once.
fn id_of(entry: &LogEntry) -> EventId {
    let digest = Sha256::digest(format!("{} {}", entry.replica, entry.id));
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    EventId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// The line in the form of an event.
fn event(to: &Reporting, entry: &LogEntry, id: EventId) -> Value {
    let text = |name: &str| entry.fields.get(name).and_then(Value::as_str);
    let mut tags = Map::new();
    tags.insert("target".to_owned(), json!(entry.target));
    for name in ["route", "method", "status", "job"] {
        if let Some(value) = entry.fields.get(name) {
            tags.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(request) = &entry.request_id {
        tags.insert("request_id".to_owned(), json!(request));
    }
    let at = DateTime::parse_from_rfc3339(&entry.timestamp);
    let is_panic = entry.target == PANICS;
    let mut extra = entry.fields.clone();
    let backtrace = extra.remove("backtrace");
    let backtrace = backtrace.as_ref().and_then(Value::as_str).unwrap_or_default();
    let exception = if is_panic {
        Some(json!({
            "type": "panic",
            "value": text("panic").unwrap_or(&entry.message),
            "mechanism": { "type": "panic", "handled": false },
            "stacktrace": { "frames": frames(backtrace) },
        }))
    } else {
        let kind = text("code").unwrap_or(&entry.message);
        let error = text("cause").or_else(|| text("error"));
        error.map(|error| json!({ "type": kind, "value": error }))
    };
    json!({
        "event_id": Uuid::simple(id.0).to_string(),
        "timestamp": at.map_or(0.0, |at| at.timestamp_micros() as f64 / 1e6),
        "level": if is_panic { "fatal" } else { "error" },
        "platform": "rust",
        "logger": entry.target,
        "server_name": entry.replica,
        "release": to.release,
        "environment": to.environment,
        "transaction": text("method").zip(text("route")).map(|(method, route)| format!("{method} {route}")),
        "tags": tags,
        "extra": extra,
        "logentry": exception.is_none().then(|| json!({ "formatted": entry.message })),
        "exception": exception.map(|exception| json!({ "values": [exception] })),
    })
}

/// The frames of a backtrace as the standard library writes it, oldest call first.
fn frames(backtrace: &str) -> Vec<Value> {
    #[derive(Default, serde::Serialize)]
    struct Frame<'a> {
        function: &'a str,
        in_app: bool,
        filename: Option<&'a str>,
        lineno: Option<u32>,
        colno: Option<u32>,
    }
    let mut frames: Vec<Frame<'_>> = Vec::new();
    for line in backtrace.lines().map(str::trim) {
        if let Some(place) = line.strip_prefix("at ") {
            let mut parts = place.rsplitn(3, ':');
            let (column, number, file) = (parts.next(), parts.next(), parts.next());
            if let (Some(frame), Some(_)) = (frames.last_mut(), file) {
                frame.filename = file;
                frame.lineno = number.and_then(|number| number.parse().ok());
                frame.colno = column.and_then(|column| column.parse().ok());
            }
        } else if let Some((number, function)) = line.split_once(": ")
            && number.parse::<u32>().is_ok()
        {
            let in_app = function.trim_start_matches('<').starts_with("loom_");
            frames.push(Frame { function, in_app, ..Frame::default() });
        }
    }
    // What panicking itself does stands before the place that panicked.
    let inside = |frame: &Frame<'_>| {
        let of_panicking = ["rust_begin_unwind", "core::panicking::panic_fmt"];
        of_panicking.iter().any(|name| frame.function.contains(name))
    };
    if let Some(last) = frames.iter().rposition(inside) {
        frames.drain(..=last);
    }
    frames.truncate(100);
    frames.reverse();
    frames.iter().filter_map(|frame| serde_json::to_value(frame).ok()).collect()
}

/// How many events there may still be.
struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn new() -> Self {
        Self { left: BURST, at: Instant::now() }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        self.left = (self.left + (now - self.at).as_secs_f64() * PER_SECOND).min(BURST);
        self.at = now;
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backtrace_is_read_from_the_place_that_panicked() {
        let text = "   0: std::backtrace::Backtrace::create\n             at /rustc/abc/library/std/src/backtrace.rs:331:13\n   1: __rustc::rust_begin_unwind\n   2: core::panicking::panic_fmt\n   3: loom_threads::http::put\n             at ./crates/threads/src/http.rs:12:5\n   4: tokio::runtime::task::raw::poll\n";
        let frames = frames(text);
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[1]["function"], "loom_threads::http::put");
        assert_eq!(frames[1]["lineno"], 12);
        assert_eq!(frames[1]["in_app"], true);
        assert_eq!(frames[0]["in_app"], false);
    }

    #[test]
    fn an_error_that_makes_others_ends() {
        let mut budget = Budget::new();
        let taken = (0..10_000).filter(|_| budget.take()).count();
        assert!((60..70).contains(&taken), "{taken}");
    }
}
