//! What SDKs say that they did not send: counted by project, day, category and reason.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, NaiveDate, Utc};
use loom_core::{
    Result,
    group_commit::{Limits, Writer},
    id::{OrgId, ProjectId},
    port::Delivery,
};
use serde::Deserialize;
use sqlx::PgPool;

use crate::store;

/// Kinds in one report.
const MOST: usize = 100;
/// Of one kind in one report; what is above is not meant seriously.
const MOST_LOST: u64 = 1_000_000_000;

const CATEGORIES: &[&str] = &[
    "default",
    "error",
    "transaction",
    "monitor",
    "span",
    "log_item",
    "log_byte",
    "security",
    "attachment",
    "session",
    "profile",
    "profile_chunk",
    "profile_chunk_ui",
    "replay",
    "feedback",
    "trace_metric",
    "trace_metric_byte",
    "metric_bucket",
    "internal",
];

const REASONS: &[&str] = &[
    "backpressure",
    "before_send",
    "buffer_overflow",
    "cache_overflow",
    "event_processor",
    "ignored",
    "insufficient_data",
    "internal_sdk_error",
    "invalid",
    "network_error",
    "no_parent_span",
    "queue_overflow",
    "ratelimit_backoff",
    "sample_rate",
    "send_error",
    "too_big",
];

const OTHER: &str = "other";

/// What was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report(pub(crate) Vec<Lost>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) category: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) quantity: i64,
}

/// Reads a report. Words that are not known become `other`: senders are not ours, and each word is a row.
pub(crate) fn parse(payload: &[u8]) -> Option<Report> {
    #[derive(Deserialize)]
    struct Payload {
        #[serde(default)]
        discarded_events: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        reason: String,
        #[serde(default)]
        category: String,
        #[serde(default)]
        quantity: f64,
    }
    if payload.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let payload: Payload = serde_json::from_slice(payload).ok()?;
    let known = |words: &[&'static str], word: &str| {
        words.iter().copied().find(|known| *known == word).unwrap_or(OTHER)
    };
    let lost = payload.discarded_events.iter().take(MOST).filter_map(|entry| {
        let quantity = if entry.quantity >= 1.0 { entry.quantity } else { return None };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
        let quantity = (quantity as u64).min(MOST_LOST);
        Some(Lost {
            category: known(CATEGORIES, &entry.category),
            reason: known(REASONS, &entry.reason),
            quantity: i64::try_from(quantity).unwrap_or(i64::MAX),
        })
    });
    Some(Report(lost.collect()))
}

/// A row to add to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) project: ProjectId,
    pub(crate) day: NaiveDate,
    pub(crate) category: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) org: OrgId,
}

/// What one report adds.
type Sums = Arc<Vec<(Row, i64)>>;

/// Adds reports up, and writes them together.
#[derive(Clone)]
pub(crate) struct Reports(Writer<Sums>);

impl Reports {
    pub(crate) fn start(pool: PgPool) -> Self {
        let write = move |batch: Arc<[Sums]>| {
            let pool = pool.clone();
            async move {
                // In the order of the key, as all who add do.
                let mut sums = BTreeMap::<Row, i64>::new();
                for (row, quantity) in batch.iter().flat_map(|rows| rows.iter()) {
                    let sum = sums.entry(*row).or_default();
                    *sum = sum.saturating_add(*quantity);
                }
                match store::add_reports(&pool, &sums).await {
                    // Its project was deleted while it was on its way.
                    Err(sqlx::Error::Database(error))
                        if batch.len() == 1 && error.is_foreign_key_violation() =>
                    {
                        Ok(())
                    }
                    written => written,
                }
            }
        };
        Self(Writer::start("client_reports", Limits { queue: 4096, ..Limits::default() }, write))
    }

    /// Resolves when it is counted. Should the database go away just after it has committed, the batch is
    /// counted twice: these are estimates of clients that were in trouble.
    pub(crate) async fn add(&self, delivery: &Delivery, report: Report) -> Result<()> {
        if report.0.is_empty() {
            return Ok(());
        }
        let day = day(delivery.received_at);
        let (org, project) = (delivery.project.org, delivery.project.id);
        let row = |lost: Lost| {
            let Lost { category, reason, quantity } = lost;
            (Row { project, day, category, reason, org }, quantity)
        };
        self.0.submit(Arc::new(report.0.into_iter().map(row).collect())).await
    }

    pub(crate) async fn close(&self) {
        self.0.close().await;
    }
}

fn day(at: DateTime<Utc>) -> NaiveDate {
    at.date_naive()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_with_words_and_numbers_in_bounds() {
        let report = parse(
            br#"{"timestamp":1.5,"discarded_events":[
                {"reason":"queue_overflow","category":"error","quantity":23},
                {"reason":"made up","category":"stars","quantity":1e300},
                {"reason":"sample_rate","category":"transaction","quantity":0},
                {"reason":"sample_rate","category":"transaction","quantity":-4}
            ]}"#,
        );
        let lost = |category, reason, quantity| Lost { category, reason, quantity };
        let expected =
            vec![lost("error", "queue_overflow", 23), lost("other", "other", 1_000_000_000)];
        assert_eq!(report, Some(Report(expected)));
        assert_eq!(parse(b"{}"), Some(Report(Vec::new())));
        assert_eq!(parse(b"[]"), None);
        assert_eq!(parse(br#"{"discarded_events":7}"#), None);
    }
}
