//! Limits and budgets: who may ask for how much. Requests are let in against shares that this replica
//! holds in memory; PostgreSQL has the truth, and gives out the shares (see migration 014).

mod estimate;
mod gauge;
mod headers;
pub(crate) mod http;
mod lease;
mod model;
mod reservation;
mod store;
mod weavers;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use loom_core::{
    Clock, Result,
    id::{ApiKeyId, OrgId, WeaverId, new_uuid},
    port::{KeyBudgets, WeaverDirectory},
};
use loom_db::{Hub, Signal, Subscription};
use sqlx::PgPool;
use uuid::Uuid;

pub(crate) use estimate::{input_estimate, max_output};
#[cfg(test)]
pub(crate) use headers::Surface;
pub(crate) use headers::{of_native, tell_refusal};
pub(crate) use model::bare;
pub(crate) use reservation::{Need, Reservation};

use crate::{hear, ledger::Row, price::Overrides};
use gauge::{Gauge, Key, Kind, Measure};
use store::{Charge, LimitRow};

/// Budgets of keys that are kept in memory.
const MAX_KEYS: usize = 100_000;
const WAIT: Duration = Duration::from_secs(5);
/// What the channel's words about limits begin with; an organisation's id follows.
const WORD: &str = "limits";
/// What the word begins with that asks others for what is free of their shares; who asks and the
/// organisation follow.
const SHARES: &str = "shares";

/// All limits of this installation; cheap to clone.
#[derive(Clone)]
pub(crate) struct Limits(Arc<Inner>);

pub(crate) struct Inner {
    pool: PgPool,
    /// For shares alone: in the queue for the shared connections they would wait behind everything.
    own: PgPool,
    clock: Clock,
    /// Of this process, among those that hold shares.
    id: Uuid,
    name: String,
    orgs: RwLock<HashMap<Uuid, Arc<[Limit]>>>,
    /// What was read earlier is not installed later.
    reading: tokio::sync::Mutex<()>,
    /// All gauges that are in use, so that a limit that changes keeps what it has.
    gauges: Mutex<HashMap<Key, Arc<Gauge>>>,
    key_budgets: Arc<dyn KeyBudgets>,
    prices: Arc<Overrides>,
    keys: RwLock<KnownKeys>,
    directory: Arc<dyn WeaverDirectory>,
    weavers: RwLock<HashMap<(Uuid, Uuid), weavers::Known>>,
    /// Until when the shares are ours, in microseconds since 1970.
    lease_until: AtomicI64,
    /// It is not known what we hold: the last word from the database was lost.
    doubtful: AtomicBool,
    /// Servers that hold shares, as last heard.
    replicas: AtomicI64,
    /// Nothing answered just now; not asked again for a moment.
    away: Mutex<Option<std::time::Instant>>,
    measures: headers::Measures,
}

impl std::ops::Deref for Limits {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// The budgets of the API keys that were used, and how often they were forgotten: what was read before is
/// not kept after.
#[derive(Default)]
struct KnownKeys {
    budgets: HashMap<Uuid, Option<Arc<Gauge>>>,
    forgotten: u64,
}

/// One limit, ready to be asked.
pub(crate) struct Limit {
    kind: Kind,
    subject: Arc<str>,
    gauges: Vec<Arc<Gauge>>,
    refuse_unpriced: bool,
}

impl Limits {
    pub(crate) fn new(
        pool: PgPool,
        clock: Clock,
        name: String,
        key_budgets: Arc<dyn KeyBudgets>,
        directory: Arc<dyn WeaverDirectory>,
        prices: Arc<Overrides>,
    ) -> Self {
        let id = new_uuid(clock.now());
        let options = pool.connect_options().as_ref().clone();
        let own = pool.options().clone().max_connections(2).connect_lazy_with(options);
        Self(Arc::new(Inner {
            pool,
            own,
            clock,
            id,
            prices,
            name,
            orgs: RwLock::default(),
            reading: tokio::sync::Mutex::default(),
            gauges: Mutex::default(),
            key_budgets,
            keys: RwLock::default(),
            directory,
            weavers: RwLock::default(),
            lease_until: AtomicI64::new(0),
            doubtful: AtomicBool::new(false),
            // Until the database says otherwise, not alone.
            replicas: AtomicI64::new(2),
            away: Mutex::default(),
            measures: headers::Measures::default(),
        }))
    }

    /// Reads the limits, and follows what the replicas tell each other of them and of API keys.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(crate) async fn start(&self, hub: &Hub, keys: Subscription) -> Result<()> {
        let (heard, asked) = (hub.subscribe(crate::CHANNEL), hub.subscribe(crate::CHANNEL));
        self.read(None).await?;
        tokio::spawn(self.clone().listen(heard));
        tokio::spawn(self.clone().give_when_asked(asked));
        tokio::spawn(self.clone().follow_keys(keys));
        tokio::spawn(self.clone().keep_leases());
        Ok(())
    }

    async fn listen(self, heard: Subscription) {
        hear::follow(heard, &self.pool, WORD, |org| self.read(org.map(|org| org.0))).await;
    }

    /// Gives back what is free of the shares that another server asks for.
    async fn give_when_asked(self, mut heard: Subscription) {
        while let Some(signal) = heard.next().await {
            let Signal::Said(word) = signal else { continue };
            let mut words = word.split(' ');
            let (Some(SHARES), Some(asker), Some(org)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            if asker != self.id.to_string() {
                let org = org.parse::<Uuid>().ok();
                self.give_back_free(|gauge| (Some(gauge.key.org) == org).then_some(0)).await;
            }
        }
    }

    async fn follow_keys(self, mut heard: Subscription) {
        while heard.next().await.is_some() {
            let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
            keys.budgets.clear();
            keys.forgotten += 1;
        }
    }

    /// Reads the limits of one organisation, or all.
    pub(crate) async fn read(&self, org: Option<Uuid>) -> Result<()> {
        {
            let _one_at_a_time = self.reading.lock().await;
            let rows = store::all(&self.pool, org).await?;
            self.install(org, &rows);
        }
        // A share of a limit that has become smaller may be more than the whole now is.
        let lowered = |gauge: &Gauge| std::mem::take(&mut gauge.plain().lowered).then_some(0);
        self.give_back_free(lowered).await;
        Ok(())
    }

    fn install(&self, org: Option<Uuid>, rows: &[LimitRow]) {
        let mut limits: HashMap<Uuid, Vec<Limit>> = HashMap::new();
        for row in rows {
            if let Some(limit) = self.limit(row) {
                limits.entry(row.org_id).or_default().push(limit);
            }
        }
        let read: HashMap<Uuid, Arc<[Limit]>> =
            limits.into_iter().map(|(org, limits)| (org, limits.into())).collect();
        let kept: std::collections::HashSet<&Key> = read
            .values()
            .flat_map(|limits| limits.iter())
            .flat_map(|limit| limit.gauges.iter().map(|gauge| &gauge.key))
            .collect();
        let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        gauges.retain(|key, _| {
            matches!(key.kind, Kind::KeyBudget | Kind::WeaverBudget)
                || org.is_some_and(|org| org != key.org)
                || kept.contains(key)
        });
        drop((gauges, kept));
        let mut orgs = self.orgs.write().unwrap_or_else(PoisonError::into_inner);
        match org {
            None => *orgs = read,
            Some(org) => {
                orgs.remove(&org);
                orgs.extend(read);
            }
        }
    }

    fn limit(&self, row: &LimitRow) -> Option<Limit> {
        let kind = Kind::parse(&row.kind)?;
        let subject: Arc<str> = row.subject.as_str().into();
        let caps = row.caps();
        let gauges = Measure::ALL.into_iter().filter_map(|measure| {
            let subject = Arc::clone(&subject);
            let key = Key { org: row.org_id, kind, subject, measure };
            Some(self.gauge(key, caps.cap(measure)?))
        });
        let gauges = gauges.collect();
        Some(Limit { kind, subject, gauges, refuse_unpriced: row.refuse_unpriced })
    }

    /// The gauge of this key, with its state if it is in use.
    fn gauge(&self, key: Key, cap: i64) -> Arc<Gauge> {
        let now = self.clock.now();
        let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let gauge =
            gauges.entry(key.clone()).or_insert_with(|| Arc::new(Gauge::new(key, cap, now)));
        gauge.set_cap(cap);
        Arc::clone(gauge)
    }

    fn of(&self, org: Uuid) -> Option<Arc<[Limit]>> {
        self.orgs.read().unwrap_or_else(PoisonError::into_inner).get(&org).cloned()
    }

    /// The budget that an API key was made with; read once, and again after keys have changed.
    async fn budget_of(&self, key: Uuid) -> Result<Option<Arc<Gauge>>> {
        let forgotten = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = keys.budgets.get(&key) {
                return Ok(known.clone());
            }
            keys.forgotten
        };
        let read = tokio::time::timeout(WAIT, self.key_budgets.monthly_nanousd(ApiKeyId(key)));
        let budget = read.await.unwrap_or_else(|_| Err(lease::away()))?;
        let gauge = budget.map(|cap| self.gauge(key_budget(key), cap));
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.budgets.len() >= MAX_KEYS {
            keys.budgets.clear();
        }
        if keys.forgotten == forgotten {
            keys.budgets.insert(key, gauge.clone());
        }
        Ok(gauge)
    }

    /// All gauges that a row counts against, and whether one of its limits refuses models without a price.
    async fn gauges_of(&self, row: &Row) -> Result<(Vec<Arc<Gauge>>, bool)> {
        let mut gauges = Vec::new();
        let mut strict = false;
        if let Some(limits) = self.of(row.org_id) {
            for limit in limits.iter() {
                if model::concerns(limit.kind, &limit.subject, row) {
                    gauges.extend(limit.gauges.iter().cloned());
                    strict |= limit.refuse_unpriced;
                }
            }
        }
        if let Some(key) = row.api_key_id {
            gauges.extend(self.budget_of(key).await?);
        }
        if let Some(weaver) = row.weaver_id {
            let known = self.weaver(OrgId(row.org_id), WeaverId(weaver)).await?;
            gauges.extend(known.and_then(|known| known.budget));
        }
        Ok((gauges, strict))
    }

    /// What rows cost, by the budgets that they count against.
    pub(crate) fn charges(&self, rows: &[Row]) -> Vec<Charge> {
        let mut sums: std::collections::BTreeMap<(Key, DateTime<Utc>), i64> = Default::default();
        for row in rows {
            let Some(cost) = row.cost_nanousd.filter(|cost| *cost > 0) else { continue };
            let mut add = |key: &Key| {
                let window = key.measure.window(row.started_at);
                let sum = sums.entry((key.clone(), window)).or_default();
                *sum = sum.saturating_add(cost);
            };
            for limit in self.of(row.org_id).iter().flat_map(|limits| limits.iter()) {
                let budgets = limit.gauges.iter().filter(|gauge| gauge.key.measure.is_budget());
                let mut budgets = budgets.peekable();
                if budgets.peek().is_some() && model::concerns(limit.kind, &limit.subject, row) {
                    budgets.for_each(|gauge| add(&gauge.key));
                }
            }
            if let Some(key) = row.api_key_id {
                let known = self.keys.read().unwrap_or_else(PoisonError::into_inner);
                // Of a key that is not known just now, the database knows whether its budget is kept.
                if known.budgets.get(&key).is_none_or(Option::is_some) {
                    add(&key_budget(key));
                }
            }
            if let Some(key) = row.weaver_id.and_then(|id| self.weaver_charged(row.org_id, id)) {
                add(&key);
            }
        }
        let charge = |((key, window), nanousd)| Charge { key, window, nanousd };
        sums.into_iter().map(charge).collect()
    }

    /// Stores rows, and in the same transaction adds what they cost to the budgets.
    pub(crate) async fn store(&self, pool: &PgPool, rows: &[Row]) -> Result<(), sqlx::Error> {
        if self.charges(rows).is_empty() && rows.iter().all(|row| row.weaver_id.is_none()) {
            return crate::store::insert_requests(pool, rows).await;
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let from = rows.iter().map(|row| row.started_at).min().unwrap_or_default();
        let to = rows.iter().map(|row| row.started_at).max().unwrap_or_default();
        let mut tx = loom_db::begin(pool).await?;
        let stored = store::stored(&mut tx, &ids, from, to).await?;
        let rows: Vec<Row> = rows.iter().filter(|row| !stored.contains(&row.id)).cloned().collect();
        if !rows.is_empty() {
            crate::store::insert_requests(&mut *tx, &rows).await?;
            crate::spend::add(&mut tx, &rows).await?;
            store::charge(&mut tx, self.id, &self.charges(&rows)).await?;
        }
        tx.commit().await
    }

    pub(crate) async fn put(
        &self,
        org: OrgId,
        kind: Kind,
        subject: &str,
        caps: &model::Caps,
    ) -> Result<bool> {
        let now = self.clock.now();
        let mut tx = loom_db::begin(&self.pool).await?;
        let there = store::count(&mut tx, org).await?;
        let new = store::put(&mut tx, org, kind, subject, caps, now).await?;
        if new && there >= http::MAX_LIMITS {
            return Err(http::too_many());
        }
        let kept = Measure::ALL.into_iter().filter(|measure| caps.cap(*measure).is_some());
        let kept: Vec<String> = kept.map(|measure| measure.name().to_owned()).collect();
        store::forget_uses(&mut tx, org, kind, subject, &kept).await?;
        store::say(&mut *tx, &format!("{WORD} {org}")).await?;
        tx.commit().await?;
        self.read(Some(org.0)).await?;
        // What was spent before is counted now, while nobody waits for an answer of a model.
        let limits = self.of(org.0);
        for limit in limits.iter().flat_map(|limits| limits.iter()) {
            if (limit.kind, &*limit.subject) == (kind, subject) {
                for gauge in limit.gauges.iter().filter(|gauge| gauge.key.measure.is_budget()) {
                    let (key, window) = (&gauge.key, gauge.key.measure.window(now));
                    let end = key.measure.window_end(now);
                    store::open_window(&self.pool, key, window, end).await?;
                }
            }
        }
        Ok(new)
    }

    pub(crate) async fn delete(&self, org: OrgId, kind: Kind, subject: &str) -> Result<bool> {
        let mut tx = loom_db::begin(&self.pool).await?;
        let gone = store::delete(&mut tx, org, kind, subject).await?;
        store::forget_uses(&mut tx, org, kind, subject, &[]).await?;
        store::say(&mut *tx, &format!("{WORD} {org}")).await?;
        tx.commit().await?;
        self.read(Some(org.0)).await?;
        Ok(gone)
    }

    /// Deletes what is kept of budgets whose time is over.
    pub(crate) async fn clean_up(&self, now: DateTime<Utc>) -> Result<u64> {
        store::forget_windows(&self.pool, now).await
    }
}

fn key_budget(key: Uuid) -> Key {
    let subject = key.to_string().into();
    Key { org: Uuid::nil(), kind: Kind::KeyBudget, subject, measure: Measure::Month }
}
