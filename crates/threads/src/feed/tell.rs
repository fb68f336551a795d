//! What servers tell each other: that there are events, and how texts grow. Never inside the transaction
//! of a write, which would make all commits queue up for one lock, and at most twenty times a second.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use loom_db::Signal;

use super::{Feed, delta::Delta};
use crate::CHANNEL;

const PAUSE: Duration = Duration::from_millis(50);
const EVENTS: &str = "events";
const DELTA: &str = "delta ";

/// Says what there is to say.
pub(crate) async fn run(feed: &Feed) {
    loop {
        feed.tell.notified().await;
        let deltas = feed.to_tell.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut words: Vec<String> =
            deltas.iter().filter_map(Delta::to_json).map(|json| format!("{DELTA}{json}")).collect();
        if feed.written.swap(false, Ordering::AcqRel) {
            words.push(EVENTS.to_owned());
        }
        if let Err(error) = notify(feed, &words).await {
            // They look by themselves every few seconds, and a text is there when it is written.
            tracing::debug!(%error, "cannot tell the other servers what happened to threads");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn notify(feed: &Feed, words: &[String]) -> sqlx::Result<()> {
    if words.is_empty() {
        return Ok(());
    }
    sqlx::query!("SELECT pg_notify($1, word) FROM UNNEST($2::text[]) AS word", CHANNEL, words)
        .execute(&feed.pool)
        .await?;
    Ok(())
}

/// Hears what others, and we ourselves, have said.
pub(crate) async fn listen(feed: &Feed) {
    let mut words = feed.hub.subscribe(CHANNEL);
    while let Some(signal) = words.next().await {
        match signal {
            Signal::Said(word) => match word.strip_prefix(DELTA) {
                Some(json) => {
                    if let Ok(delta) = serde_json::from_str(json) {
                        // Nobody may be watching.
                        let _ = feed.deltas.send(Arc::new(delta));
                    }
                }
                None if *word == *EVENTS => feed.look.notify_one(),
                None => {}
            },
            Signal::ReadAgain => feed.look.notify_one(),
        }
    }
}
