//! One event, from its stored form to what is attached to an issue. Touches no table.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use loom_core::text;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::claim::Claimed;
use crate::{
    Crashes,
    directory::ProjectSettings,
    event::{self, Event, Frame, Image, Level, MissingFile},
    grouping::{self, Grouping},
    intake::{Surrounding, compress, decompress},
    symbols, users,
};

const MAX_TITLE: usize = 300;
const MAX_CULPRIT: usize = 300;
const MAX_VALUE: usize = 1000;
const MAX_TAGS: usize = 60;
const MAX_KEY: usize = 64;
const MAX_TAG: usize = 200;
const MAX_USER: usize = 200;
const MAX_MISSING: usize = 50;
const MAX_WANTED: usize = 500;
const MAX_WORD: usize = 250;

/// What processing found out (`crash_events.processed`): to be laid over the raw event.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Processed {
    /// The frames of each exception, in the order of the event.
    pub exceptions: Vec<Vec<Frame>>,
    /// The frames of each thread.
    pub threads: Vec<Vec<Frame>>,
    /// What else is known of each exception, laid over what came: the class that a mapping tells.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub heads: Vec<Option<event::Head>>,
    /// Members that stand in place of those of the payload: what a minidump says.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub instead: serde_json::Map<String, serde_json::Value>,
    pub images: Vec<Image>,
    /// Files that would have given symbols, had they been there.
    pub missing_files: Vec<MissingFile>,
    /// What was wrong with what was sent.
    pub faults: Vec<String>,
    /// What was grouped by, and how: `{algorithm, components}`.
    pub grouping: serde_json::Value,
}

impl Processed {
    /// As it is stored.
    ///
    /// # Errors
    /// When it is none of ours.
    pub(crate) fn read(stored: &[u8]) -> Result<Self, String> {
        let json = decompress(stored).map_err(|error| error.to_string())?;
        serde_json::from_slice(&json).map_err(|error| error.to_string())
    }
}

/// A row of `crash_events`, and what else of the event counts.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub claimed: Claimed,
    pub at: DateTime<Utc>,
    pub level: Level,
    pub hash: [u8; 16],
    pub components: serde_json::Value,
    pub title: String,
    pub culprit: Option<String>,
    pub kind: Option<String>,
    pub value: Option<String>,
    pub release: Option<String>,
    pub dist: Option<String>,
    pub environment: Option<String>,
    pub platform: Option<String>,
    pub transaction: Option<String>,
    pub user: Option<String>,
    pub user_hash: Option<u64>,
    pub trace_id: Option<String>,
    pub session_id: Option<String>,
    pub thread: Option<Uuid>,
    pub tags: BTreeMap<String, String>,
    pub unhandled: bool,
    /// Files that were missing.
    pub missing: BTreeSet<String>,
    pub processed: Vec<u8>,
}

/// # Errors
/// Why the event cannot be processed, now or ever.
pub(super) fn parse(
    claimed: &Claimed,
    payload: &[u8],
    delivery: serde_json::Value,
) -> Result<Event, String> {
    let json = decompress(payload).map_err(|error| format!("cannot be decompressed: {error}"))?;
    let around: Surrounding = serde_json::from_value(delivery).unwrap_or_default();
    let drift = around.drift(claimed.received_at);
    event::parse(&json, claimed.project, claimed.received_at, drift)
}

/// # Errors
/// Why the event cannot be processed.
pub(super) async fn prepare(
    crashes: &Crashes,
    settings: &ProjectSettings,
    claimed: Claimed,
    event: Event,
) -> Result<Prepared, String> {
    let (mut event, instead) = crashes.walk_minidump(&claimed, event, &settings.scrubbing).await?;
    symbols::symbolicate(crashes, &mut event).await;
    grouping::mark(&mut event, &settings.rules);
    let grouping = grouping::group(&event, &settings.rules);
    finish(claimed, event, grouping, instead)
}

fn finish(
    claimed: Claimed,
    event: Event,
    grouping: Grouping,
    instead: serde_json::Map<String, serde_json::Value>,
) -> Result<Prepared, String> {
    let unhandled =
        event.exceptions.iter().any(|exception| exception.mechanism.handled == Some(false));
    let user = event.user.as_ref().and_then(event::User::label).map(|user| short(&user, MAX_USER));
    let mut tags = BTreeMap::new();
    for (key, value) in &event.tags {
        if tags.len() >= MAX_TAGS {
            break;
        }
        tags.entry(short(key, MAX_KEY)).or_insert_with(|| short(value, MAX_TAG));
    }
    let missing = missing(&event);
    let heads: Vec<_> = event.exceptions.iter().map(|exception| exception.head.clone()).collect();
    let processed = Processed {
        heads: if heads.iter().any(Option::is_some) { heads } else { Vec::new() },
        instead,
        exceptions: event.exceptions.into_iter().map(|exception| exception.frames).collect(),
        threads: event.threads.into_iter().map(|thread| thread.frames).collect(),
        images: event.images,
        missing_files: event.missing_files,
        faults: event.faults,
        grouping: serde_json::json!({
            "algorithm": grouping::ALGORITHM,
            "components": grouping.components,
        }),
    };
    let processed = serde_json::to_vec(&processed)
        .map_err(|error| error.to_string())
        .and_then(|json| compress(&json).map_err(|error| error.to_string()))?;
    let word = |text: Option<String>| {
        text.map(|text| short(&text, MAX_WORD)).filter(|text| !text.is_empty())
    };
    let title = match short(&grouping.title, MAX_TITLE) {
        title if title.is_empty() => "(no message)".to_owned(),
        title => title,
    };
    Ok(Prepared {
        at: event.at,
        level: event.level,
        hash: grouping.hash,
        components: grouping.components,
        title,
        culprit: grouping.culprit.map(|text| short(&text, MAX_CULPRIT)),
        kind: grouping.kind.map(|text| short(&text, MAX_TITLE)),
        value: grouping.value.map(|text| short(&text, MAX_VALUE)),
        release: word(event.release),
        dist: word(event.dist),
        environment: word(event.environment),
        platform: word(event.platform),
        transaction: word(event.transaction),
        user_hash: user.as_deref().map(users::hash),
        user,
        trace_id: word(event.trace_id),
        session_id: word(event.session_id),
        thread: event.thread,
        tags,
        unhandled,
        missing,
        processed,
        claimed,
    })
}

/// By the names that an upload is found by.
fn missing(event: &Event) -> BTreeSet<String> {
    let names =
        event.missing_files.iter().flat_map(|file| [&file.debug_id, &file.code_id, &file.url]);
    names.flatten().take(MAX_MISSING).map(|name| short(name, MAX_WANTED)).collect()
}

/// As the database takes it.
fn short(text: &str, most: usize) -> String {
    if text.contains('\0') {
        text::cut(&text.replace('\0', ""), most).to_owned()
    } else {
        text::cut(text, most).to_owned()
    }
}
