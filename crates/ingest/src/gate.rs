//! What holds for all that applications send, whichever way it comes in: one count of items, one memory
//! for bodies.

use std::sync::Arc;

use axum::body::Body;
use chrono::{DateTime, Utc};
use http::HeaderMap;
use loom_core::{
    Error, Result,
    id::OrgId,
    port::{BoxFuture, DsnKey, HeldBody, IntakeGate, Reported},
};

use crate::{
    Config,
    body::{Incoming, Memory},
    item::Category,
    limits::{Limits, Reached},
    measures,
};

/// Cheap to clone; a server has one.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    org_per_minute: u32,
    memory: Memory,
}

impl Gate {
    pub fn new(config: &Config) -> Self {
        Self(Arc::new(Inner {
            limits: Limits::default(),
            org_per_minute: config.org_items_per_minute,
            memory: Memory::new(config.memory_bytes, config.envelope_bytes),
        }))
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.0.memory
    }

    pub(crate) fn take(
        &self,
        org: OrgId,
        key: Option<&DsnKey>,
        category: Category,
        now: DateTime<Utc>,
    ) -> Result<(), Reached> {
        self.0.limits.take(org, key, self.0.org_per_minute, category, now)
    }
}

impl IntakeGate for Gate {
    fn count(
        &self,
        org: OrgId,
        key: Option<&DsnKey>,
        what: Reported,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let category = match what {
            Reported::Event => Category::Error,
            Reported::Session => Category::Session,
        };
        self.take(org, key, category, now).map_err(|reached| {
            measures::item(category, "rate_limited");
            Error::from(reached)
        })
    }

    fn read<'a>(
        &'a self,
        org: OrgId,
        headers: &'a HeaderMap,
        body: Body,
        limit: usize,
    ) -> BoxFuture<'a, Result<HeldBody>> {
        Box::pin(async move {
            let incoming = Incoming::new(body, headers, limit, self.memory(), Some(org))?;
            let share = incoming.share();
            Ok(HeldBody { bytes: incoming.whole().await?, share })
        })
    }
}
