//! A log as events: what is kept, then what comes, then how it ended.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use chrono::SecondsFormat;
use futures::{Stream, stream};
use loom_core::{
    Result,
    id::{OrgId, WeaverId},
    sse::{KEEP_ALIVE, Leash},
};
use serde_json::json;
use tokio::{
    sync::broadcast,
    time::{Instant, sleep},
};

use super::{
    Logs,
    store::{self, Standing},
};
use loom_core::sse::Seat;

/// Who reads on a server that does not follow looks again after so long.
const LOOK: Duration = Duration::from_secs(1);

/// What is asked for.
pub(super) struct Wanted {
    pub(super) org: OrgId,
    pub(super) id: WeaverId,
    /// The first line.
    pub(super) from: i64,
    /// The client has seen lines before it: what is missing is told.
    pub(super) resumes: bool,
    pub(super) timestamps: bool,
    pub(super) follow: bool,
}

struct Reading {
    logs: Logs,
    wanted: Wanted,
    next: i64,
    /// Lines were sent, or seen before: a gap is one.
    seen: bool,
    ready: VecDeque<Bytes>,
    said: broadcast::Receiver<WeaverId>,
    leash: Leash,
    next_ping: Instant,
    ended: bool,
    _seat: Seat,
}

pub(super) fn events(
    logs: Logs,
    wanted: Wanted,
    leash: Leash,
    seat: Seat,
) -> impl Stream<Item = Bytes> + Send + use<> {
    let reading = Reading {
        next: wanted.from,
        seen: wanted.resumes,
        ready: VecDeque::new(),
        said: logs.said.subscribe(),
        leash,
        next_ping: Instant::now() + KEEP_ALIVE,
        ended: false,
        _seat: seat,
        wanted,
        logs,
    };
    stream::unfold(reading, |mut reading| async move {
        let next = reading.next().await?;
        Some((next, reading))
    })
}

impl Reading {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(piece);
            }
            if self.ended {
                return None;
            }
            // Nothing is given out on an authorisation that is older than this.
            if let Err(bye) = self.leash.check_again(Duration::from_secs(10)).await {
                self.ended = true;
                return Some(Bytes::from_static(bye.event().as_bytes()));
            }
            match self.read().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "a log cannot be read just now; its reader waits");
                }
            }
            if self.ended || !self.ready.is_empty() {
                continue;
            }
            let (id, said) = (self.wanted.id, &mut self.said);
            let waiting = async {
                let told = async {
                    loop {
                        match said.recv().await {
                            Ok(other) if other != id => {}
                            _ => return,
                        }
                    }
                };
                tokio::select! {
                    () = told => {}
                    () = sleep(LOOK) => {}
                }
            };
            if let Err(bye) = self.leash.unless_ended(waiting).await {
                self.ended = true;
                return Some(Bytes::from_static(bye.event().as_bytes()));
            }
            if Instant::now() >= self.next_ping {
                self.next_ping = Instant::now() + KEEP_ALIVE;
                return Some(Bytes::from_static(b": keep-alive\n\n"));
            }
        }
    }

    /// Is there something to send now?
    async fn read(&mut self) -> Result<bool> {
        let (org, id) = (self.wanted.org, self.wanted.id);
        // Read first: whatever was written before it said that it was all is found then.
        let Some(standing) = store::standing(&self.logs.pool, org, id).await? else {
            self.ended = true;
            return Ok(false);
        };
        if self.next < standing.next_line
            && let Some((first, lines)) = store::chunk(&self.logs.pool, org, id, self.next).await?
        {
            if first > self.next && self.seen {
                let dropped = first - self.next;
                let data = json!({"dropped": dropped});
                self.ready.push_back(Bytes::from(format!("event: gap\ndata: {data}\n\n")));
            }
            for (number, line) in (first..).zip(lines) {
                if number < self.next {
                    continue;
                }
                let mut data =
                    json!({"line": number, "container": line.container, "text": line.text});
                if let (true, Some(data)) = (self.wanted.timestamps, data.as_object_mut()) {
                    let at = line.at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                    data.insert("at".to_owned(), json!(at));
                }
                let piece = format!("event: line\nid: {number}\ndata: {data}\n\n");
                self.ready.push_back(Bytes::from(piece));
                self.next = number + 1;
            }
            self.seen = true;
            self.next_ping = Instant::now() + KEEP_ALIVE;
            return Ok(!self.ready.is_empty());
        }
        if standing.complete || standing.over || !self.wanted.follow {
            self.ready.push_back(end(&standing));
            self.ended = true;
        }
        Ok(self.ended)
    }
}

fn end(standing: &Standing) -> Bytes {
    let data = json!({
        "status": standing.status, "exit_code": standing.exit_code,
        "reason_code": standing.reason_code, "reason": standing.reason,
        "complete": standing.complete || standing.over,
    });
    Bytes::from(format!("event: end\ndata: {data}\n\n"))
}
