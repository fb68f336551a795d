//! Sessions from SDKs, and from events that say that theirs has crashed.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    port::{BoxFuture, Delivery, SessionSink, Taken},
};
use metrics::counter;

use crate::{
    Sessions,
    session::{Class, Session, id_of, is_sampled},
    store::intake::Item,
    wire,
};

impl Sessions {
    /// Writes an update, or leaves it out of the share that is kept. True: it is kept.
    pub(crate) async fn take(&self, session: Session) -> Result<bool> {
        let is_kept =
            session.class == Class::Crashed || is_sampled(session.sid, self.config.sample_rate);
        if !is_kept {
            counter!("loom_app_session_updates_total", "outcome" => "sampled_out").increment(1);
            return Ok(false);
        }
        self.writer.submit(Item::Update(session)).await?;
        counter!("loom_app_session_updates_total", "outcome" => "stored").increment(1);
        Ok(true)
    }

    /// What one that is kept stands for.
    pub(crate) fn weight(&self) -> f64 {
        1.0 / self.config.sample_rate
    }
}

fn rejected(reason: String) -> Taken {
    counter!("loom_app_session_updates_total", "outcome" => "rejected").increment(1);
    Taken::Rejected(reason)
}

impl SessionSink for Sessions {
    fn session<'a>(
        &'a self,
        delivery: &'a Delivery,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(async move {
            match wire::session(delivery, &payload, &self.deps.salt, self.weight()) {
                Ok(session) => self.take(session).await.map(|_| Taken::Stored),
                Err(reason) => Ok(rejected(reason)),
            }
        })
    }

    fn aggregates<'a>(
        &'a self,
        delivery: &'a Delivery,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(async move {
            let sessions = match wire::aggregates(delivery, &payload, &self.deps.salt) {
                Ok(sessions) => sessions,
                Err(reason) => return Ok(rejected(reason)),
            };
            if sessions.is_empty() {
                return Ok(Taken::Stored);
            }
            // What tells two processes apart that count the same, as far as anything does.
            let sent_at = delivery.sent_at.map(|at| at.timestamp_micros()).unwrap_or_default();
            let client = delivery.client.map(|ip| ip.to_string()).unwrap_or_default();
            let hash = id_of(&[b"counted", &payload, &sent_at.to_be_bytes(), client.as_bytes()]);
            let item = Item::Counted {
                project: delivery.project.id,
                hash,
                received_at: delivery.received_at,
                sessions,
            };
            self.writer.submit(item).await?;
            counter!("loom_app_session_updates_total", "outcome" => "stored").increment(1);
            Ok(Taken::Stored)
        })
    }

    fn crashed<'a>(
        &'a self,
        delivery: &'a Delivery,
        session: &'a str,
        release: &'a str,
        environment: &'a str,
        at: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(async move {
            let parsed = (|| {
                let at = wire::began(at, delivery.received_at)?;
                Ok((wire::session_id(session)?, wire::release(release)?, at))
            })();
            let (sid, release, at) = match parsed {
                Ok(parsed) => parsed,
                Err(reason) => return Ok(rejected(reason)),
            };
            let session = Session {
                org: delivery.project.org,
                project: delivery.project.id,
                sid,
                started: at,
                // When it crashed is not when it began.
                guessed: true,
                release,
                environment: wire::environment(Some(environment)),
                class: Class::Crashed,
                ended: true,
                errors: 1,
                duration_ms: None,
                user: None,
                count: 1,
                weight: self.weight(),
                updated_at: delivery.received_at,
            };
            self.take(session).await.map(|_| Taken::Stored)
        })
    }
}
