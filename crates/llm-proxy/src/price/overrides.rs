//! The prices that organisations have put in place of the table's, as this server knows them: read at the
//! start and whenever another server says that one has changed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use loom_core::{Result, id::OrgId};
use loom_db::Hub;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Price, of, store, undated};
use crate::hear;

/// What the channel's words about prices begin with; an organisation's id follows.
pub(super) const WORD: &str = "prices";
/// Models that are told of as having no price, at most in this time.
const WARN_EVERY: chrono::TimeDelta = chrono::TimeDelta::hours(1);
const MAX_WARNED: usize = 1000;

type OfOrg = HashMap<String, HashMap<String, Arc<Price>>>;

/// The prices in force.
#[derive(Default)]
pub(crate) struct Overrides {
    orgs: ArcSwap<HashMap<Uuid, Arc<OfOrg>>>,
    /// Two who read one after the other must not store the older last.
    reading: tokio::sync::Mutex<()>,
    warned: Mutex<HashMap<String, DateTime<Utc>>>,
}

impl Overrides {
    /// What a model costs an organisation. Its own price of exactly this name goes before its own of the
    /// undated name, and these before the table's.
    pub(crate) fn of(&self, org: Uuid, provider: &str, model: &str) -> Option<Arc<Price>> {
        let own = || {
            let orgs = self.orgs.load();
            let models = orgs.get(&org)?.get(provider)?;
            models.get(model).or_else(|| models.get(undated(model))).cloned()
        };
        own().or_else(|| of(provider, model))
    }

    /// All of an organisation's own, by provider.
    pub(crate) fn of_org(&self, org: OrgId) -> Option<Arc<OfOrg>> {
        self.orgs.load().get(&org.0).cloned()
    }

    /// Says, once an hour, that a model's tokens have no price.
    pub(crate) fn warn(&self, provider: &str, model: &str, now: DateTime<Utc>) {
        let name = format!("{provider}/{model}");
        {
            let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            if warned.get(&name).is_some_and(|at| now - *at < WARN_EVERY) {
                return;
            }
            if warned.len() >= MAX_WARNED {
                warned.retain(|_, at| now - *at < WARN_EVERY);
            }
            if warned.len() >= MAX_WARNED {
                return;
            }
            warned.insert(name, now);
        }
        tracing::warn!(
            provider,
            model,
            "this model has no price: its requests have tokens and no cost until an organisation sets \
             one under /api/orgs/{{org}}/llm/prices"
        );
    }

    /// Reads all of them, or those of one organisation.
    pub(super) async fn read(&self, pool: &PgPool, org: Option<OrgId>) -> Result<()> {
        let _turn = self.reading.lock().await;
        let rows = store::in_force(pool, org).await?;
        let mut read: HashMap<Uuid, OfOrg> = HashMap::new();
        for row in rows {
            let price = Price::flat(row.rates(), row.web_searches);
            let of_provider = read.entry(row.org_id).or_default().entry(row.provider).or_default();
            of_provider.insert(row.model, Arc::new(price));
        }
        let mut orgs = match org {
            None => HashMap::new(),
            Some(org) => {
                let mut orgs = HashMap::clone(&self.orgs.load());
                orgs.remove(&org.0);
                orgs
            }
        };
        orgs.extend(read.into_iter().map(|(org, prices)| (org, Arc::new(prices))));
        self.orgs.store(Arc::new(orgs));
        Ok(())
    }

    /// Reads, and from then on follows what is said.
    pub(crate) async fn start(self: Arc<Self>, pool: PgPool, hub: &Hub) -> Result<()> {
        let words = hub.subscribe(crate::CHANNEL);
        self.read(&pool, None).await?;
        tokio::spawn(async move {
            hear::follow(words, &pool, WORD, |org| self.read(&pool, org)).await;
        });
        Ok(())
    }
}
