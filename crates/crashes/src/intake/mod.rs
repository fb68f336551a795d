//! What is taken: read, masked, compressed, and stored by group commit before the answer.

mod payload;
mod store;

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use loom_core::{
    Error, Result,
    group_commit::{Limits, Writer},
    id::EventId,
    port::{Delivery, Taken},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgPool;

use crate::Crashes;

pub(crate) use payload::{compress, decompress};

/// The largest event, as JSON.
pub(crate) const MAX_EVENT_BYTES: usize = 1 << 20;
/// Reading more than this would hold others up who are served by the same thread.
const LARGE: usize = 64 << 10;
/// Smaller differences of clocks are as likely the way here.
const DRIFT: TimeDelta = TimeDelta::hours(1);

/// A row of `crash_raw`, and one of `crash_queue`.
#[derive(Clone)]
pub(crate) struct Intake {
    pub org: uuid::Uuid,
    pub project: uuid::Uuid,
    pub event: uuid::Uuid,
    pub received_at: DateTime<Utc>,
    /// Many share it: a batch that is tried again copies no payload.
    pub payload: Arc<[u8]>,
    pub delivery: Value,
}

/// What surrounded an event, as it is stored beside it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Surrounding {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<uuid::Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdk: Option<String>,
}

impl Surrounding {
    fn of(delivery: &Delivery) -> Self {
        let line = |text: &str| loom_core::text::cut(&text.replace('\0', ""), 500).to_owned();
        Self {
            key: delivery.key.map(|key| key.0),
            sent_at: delivery.sent_at,
            user_agent: delivery.user_agent.as_deref().map(line),
            sdk: delivery.sdk.as_deref().map(line),
        }
    }

    /// What is to be added to times of the sender's clock.
    pub(crate) fn drift(&self, received_at: DateTime<Utc>) -> TimeDelta {
        self.sent_at
            .map(|sent| received_at - sent)
            .filter(|drift| drift.abs() > DRIFT)
            .unwrap_or_default()
    }
}

pub(crate) fn writer(pool: &PgPool, wake: Arc<dyn Fn() + Send + Sync>) -> Writer<Intake> {
    let pool = loom_db::for_writer(pool, 1);
    Writer::start("crash_events", Limits::default(), move |rows: Arc<[Intake]>| {
        let (pool, wake) = (pool.clone(), Arc::clone(&wake));
        async move {
            store::insert(&pool, &rows).await?;
            wake();
            Ok(())
        }
    })
}

impl Crashes {
    /// Resolves when the event is committed.
    pub(crate) async fn take(
        &self,
        delivery: &Delivery,
        id: EventId,
        payload: Bytes,
    ) -> Result<Taken> {
        if payload.len() > MAX_EVENT_BYTES {
            return Ok(Taken::Rejected("the event is larger than 1 MiB".to_owned()));
        }
        let client = delivery.client;
        // One that is hidden by now is not sent to any more.
        let Some(settings) = self.deps.directory.settings(delivery.project.id).await? else {
            return Ok(Taken::Rejected("the project is gone".to_owned()));
        };
        let is_large = payload.len() > LARGE;
        let read = move || payload::read(&payload, id, client, &settings.scrubbing);
        let read = if is_large {
            tokio::task::spawn_blocking(read).await.map_err(Error::internal)?
        } else {
            read()
        };
        let payload: Arc<[u8]> = match read {
            Ok(payload) => payload.into(),
            Err(reason) => return Ok(Taken::Rejected(reason)),
        };
        let delivery_json =
            serde_json::to_value(Surrounding::of(delivery)).map_err(Error::internal)?;
        let row = Intake {
            org: delivery.project.org.0,
            project: delivery.project.id.0,
            event: id.0,
            received_at: delivery.received_at,
            payload,
            delivery: delivery_json,
        };
        self.writer.submit(row).await?;
        Ok(Taken::Stored)
    }
}
