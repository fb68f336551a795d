//! What those who watch are told, on whichever server they do.

use bytes::Bytes;
use chrono::SecondsFormat;
use futures::{Stream, StreamExt as _, future::ready};
use loom_core::{
    id::{OrgId, UserId, WeaverId},
    sse::{self, Leash, Places, Seat},
    text,
};
use loom_db::{Signal, Subscription};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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

/// What happens from now on to the weavers that somebody may see, or to one of them. `init` is the first.
pub(crate) fn events(
    access: Access,
    weaver: Option<WeaverId>,
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
            Signal::Said(word) => told(word)
                .filter(|told| {
                    weaver.is_none_or(|weaver| weaver == told.id)
                        && access.sees(told.org_id, told.owner_user_id, told.id)
                })
                .map(|told| piece("weaver", &serde_json::to_value(&told).unwrap_or_default())),
        })
    });
    sse::watch(piece("init", init), heard, leash, seat)
}

fn piece(event: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}

/// What a word on the channel says of a weaver, if it is such a one.
pub(crate) fn told(word: &str) -> Option<Told> {
    serde_json::from_str(word.strip_prefix(WORD)?).ok()
}
