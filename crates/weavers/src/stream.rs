//! What those who watch are told, on whichever server they do.

use std::collections::VecDeque;

use bytes::Bytes;
use chrono::SecondsFormat;
use futures::{Stream, stream};
use loom_core::{
    id::{OrgId, UserId, WeaverId},
    sse::{KEEP_ALIVE, Leash, Places, Seat},
    text,
};
use loom_db::{READ_AGAIN, Signal, Subscription};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use utoipa::ToSchema;

use crate::{
    Weavers,
    access::Access,
    model::{Row, Status},
};

/// How words on the channel begin that are for streams.
pub(crate) const WORD: &str = "stream ";
/// Of a reason; a NOTIFY holds no more than 8,000 bytes.
const REASON: usize = 2000;

/// How a weaver now is, for who watches.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = WeaverChange)]
pub(crate) struct Told {
    pub(crate) id: WeaverId,
    org_id: OrgId,
    owner_user_id: Option<UserId>,
    /// Counts the changes of this weaver.
    version: i64,
    pub(crate) status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason_code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

impl Told {
    fn of(row: &Row) -> Self {
        let reason = row.reason.as_deref().map(|reason| text::cut(reason, REASON).to_owned());
        Self {
            id: row.id,
            org_id: row.org_id,
            owner_user_id: row.owner_id,
            version: row.version,
            status: row.status,
            reason_code: row.reason_code.clone(),
            reason,
            exit_code: row.exit_code,
            expires_at: Some(row.expires_at.to_rfc3339_opts(SecondsFormat::Millis, true)),
        }
    }
}

impl Weavers {
    /// Tells those who watch, or wait for it, on all servers, how a row now is. To be called after the commit.
    pub(crate) fn announce(&self, row: &Row) {
        if let Ok(json) = serde_json::to_string(&Told::of(row)) {
            self.announcer.say(format!("{WORD}{json}"));
        }
    }
}

/// Who watches, weavers or their logs.
pub(crate) const PLACES: Places = Places {
    streams: "streams of weavers",
    gauge: "loom_weaver_watchers",
    most: 2000,
    most_of_one: 50,
    instead: "",
};

struct Watch {
    access: Access,
    weaver: Option<WeaverId>,
    said: Subscription,
    ready: VecDeque<Bytes>,
    leash: Leash,
    _seat: Seat,
    next_ping: Instant,
    ended: bool,
}

/// What happens from now on to the weavers that somebody may see, or to one of them. `init` is the first.
pub(crate) fn events(
    access: Access,
    weaver: Option<WeaverId>,
    said: Subscription,
    init: &Value,
    seat: Seat,
    leash: Leash,
) -> impl Stream<Item = Bytes> + Send + use<> {
    let ready = VecDeque::from([piece("init", init)]);
    let next_ping = Instant::now() + KEEP_ALIVE;
    let watch = Watch { access, weaver, said, ready, leash, _seat: seat, next_ping, ended: false };
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
            Signal::Said(word) if &**word == READ_AGAIN => self.ready.push_back(reset()),
            Signal::Said(word) => {
                let Some(told) = told(word) else { return };
                let is_wanted = self.weaver.is_none_or(|weaver| weaver == told.id);
                if is_wanted && self.access.sees(told.org_id, told.owner_user_id, told.id) {
                    let data = serde_json::to_value(&told).unwrap_or_default();
                    self.ready.push_back(piece("weaver", &data));
                }
            }
        }
    }
}

/// What a word on the channel says of a weaver, if it is such a one.
pub(crate) fn told(word: &str) -> Option<Told> {
    serde_json::from_str(word.strip_prefix(WORD)?).ok()
}
