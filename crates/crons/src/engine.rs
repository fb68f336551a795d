//! What takes reports, and what looks for those that did not come: the part of the feature that needs no caller.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use loom_core::{
    Clock, Result,
    id::{MonitorId, OrgId, ProjectId},
    port::{EventSink, OrgDirectory, ProjectDirectory},
};
use loom_db::Announcer;
use loom_notify::Notify;
use moka::future::Cache;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    model::Monitor,
    presence::Presence,
    report::{Report, RunKey},
    store,
    sweep::OLD,
    work::{Place, Work},
};

/// What another server says of a monitor is heard at once; this is for when the saying got lost.
const MAX_AGE: Duration = Duration::from_secs(30);
const MOST_KEPT: u64 = 50_000;
/// How a word on the channel begins that is about a monitor that changed.
pub(crate) const CHANGED: &str = "monitor ";

pub(crate) struct Engine {
    pub(crate) pool: PgPool,
    pub(crate) clock: Clock,
    pub(crate) notify: Notify,
    pub(crate) announcer: Announcer,
    pub(crate) events: Arc<dyn EventSink>,
    pub(crate) projects: Arc<dyn ProjectDirectory>,
    pub(crate) orgs: Arc<dyn OrgDirectory>,
    pub(crate) base_url: String,
    pub(crate) presence: Presence,
    /// Monitors by the secret of their ping URL.
    by_ping_key: Cache<Uuid, Arc<Monitor>>,
    /// And by organisation and slug.
    by_slug: Cache<(OrgId, String), Arc<Monitor>>,
    /// Whose a ping key is, by its digest.
    keys: Cache<[u8; 32], (OrgId, Option<ProjectId>)>,
}

fn cache<K, V>() -> Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder().max_capacity(MOST_KEPT).time_to_live(MAX_AGE).build()
}

impl Engine {
    pub(crate) fn new(deps: &crate::Deps, announcer: Announcer, base_url: String) -> Self {
        Self {
            pool: deps.pool.clone(),
            clock: deps.clock.clone(),
            notify: deps.notify.clone(),
            announcer,
            events: Arc::clone(&deps.events),
            projects: Arc::clone(&deps.projects),
            orgs: Arc::clone(&deps.orgs),
            base_url,
            presence: Presence::default(),
            by_ping_key: cache(),
            by_slug: cache(),
            keys: cache(),
        }
    }

    pub(crate) async fn by_ping_key(&self, key: Uuid) -> Result<Option<Arc<Monitor>>> {
        if let Some(monitor) = self.by_ping_key.get(&key).await {
            return Ok(Some(monitor));
        }
        let Some(monitor) = store::monitors::by_ping_key(&self.pool, key).await? else {
            return Ok(None);
        };
        let monitor = Arc::new(monitor);
        self.by_ping_key.insert(key, Arc::clone(&monitor)).await;
        Ok(Some(monitor))
    }

    pub(crate) async fn by_slug(&self, org: OrgId, slug: &str) -> Result<Option<Arc<Monitor>>> {
        let key = (org, slug.to_owned());
        if let Some(monitor) = self.by_slug.get(&key).await {
            return Ok(Some(monitor));
        }
        let mut db = self.pool.acquire().await?;
        let Some(monitor) = store::monitors::find(&mut db, org, slug).await? else {
            return Ok(None);
        };
        let monitor = Arc::new(monitor);
        self.by_slug.insert(key, Arc::clone(&monitor)).await;
        Ok(Some(monitor))
    }

    pub(crate) async fn key(&self, digest: [u8; 32]) -> Result<Option<(OrgId, Option<ProjectId>)>> {
        if let Some(found) = self.keys.get(&digest).await {
            return Ok(Some(found));
        }
        let Some(found) = store::keys::by_digest(&self.pool, &digest).await? else {
            return Ok(None);
        };
        self.keys.insert(digest, found).await;
        Ok(Some(found))
    }

    /// A monitor changed, here or elsewhere; None for all of them, and the keys.
    pub(crate) async fn forget(&self, monitor: Option<MonitorId>) {
        let Some(id) = monitor else {
            self.by_ping_key.invalidate_all();
            self.by_slug.invalidate_all();
            self.keys.invalidate_all();
            return;
        };
        let keys: Vec<_> =
            self.by_ping_key.iter().filter(|(_, m)| m.id == id).map(|(key, _)| *key).collect();
        for key in keys {
            self.by_ping_key.invalidate(&key).await;
        }
        let slugs: Vec<_> =
            self.by_slug.iter().filter(|(_, m)| m.id == id).map(|(key, _)| key).collect();
        for slug in slugs {
            self.by_slug.invalidate(&*slug).await;
        }
    }

    /// After the commit of a change: everybody forgets what they have of it.
    pub(crate) async fn changed(&self, monitor: Option<MonitorId>) {
        self.forget(monitor).await;
        let whose = monitor.map_or_else(|| "all".to_owned(), |id| id.to_string());
        self.announcer.say(format!("{CHANGED}{whose}"));
    }

    /// Writes a batch of reports in one transaction.
    pub(crate) async fn write(&self, reports: &[Report]) -> std::result::Result<(), sqlx::Error> {
        self.write_reports(reports).await.map_err(|error| {
            let passes = error.retry_after_secs().is_some();
            let text = error.cause().unwrap_or_else(|| error.detail().to_owned());
            // What passes is tried again; the rest is split until the fault stands alone.
            if passes { sqlx::Error::Protocol(text) } else { sqlx::Error::Decode(text.into()) }
        })
    }

    async fn write_reports(&self, reports: &[Report]) -> Result<()> {
        // One that is tried again may have been committed, and only the word of it lost.
        let before = reports.iter().map(|report| report.fate.transaction()).max();
        if let Some(before) = before.filter(|before| *before > 0)
            && store::states::is_committed(&self.pool, before).await?
        {
            self.notify.wake();
            return Ok(());
        }
        self.be_there().await?;
        let now = self.clock.now();
        let mut tx = loom_db::begin(&self.pool).await?;
        let transaction = store::states::transaction(&mut tx).await?;
        for report in reports {
            report.fate.write_in(transaction);
        }
        let mut work = Work::new(now);
        let places: HashSet<Place> =
            reports.iter().map(|r| (r.monitor.id, r.environment.clone())).collect();
        let mut places: Vec<Place> = places.into_iter().collect();
        places.sort();
        self.take_hold(&mut tx, &mut work, &places, reports).await?;
        if work.is_any_overdue(reports) {
            work.gaps = store::sweeps::gaps(&mut tx, now - OLD).await?;
        }
        for report in reports {
            work.apply(report);
        }
        let told = work.save(self, &mut tx).await?;
        tx.commit().await?;
        self.notify.wake();
        self.say(&told);
        for report in reports {
            metrics::counter!("loom_cron_checkins_total", "source" => report.source.as_str())
                .increment(1);
        }
        Ok(())
    }

    async fn take_hold(
        &self,
        db: &mut sqlx::PgConnection,
        work: &mut Work,
        places: &[Place],
        reports: &[Report],
    ) -> Result<()> {
        let mut locked = store::states::lock(db, places, false).await?;
        if locked.len() < places.len() {
            let known: HashSet<Place> =
                locked.iter().map(|(id, state)| (*id, state.name.clone())).collect();
            let new: Vec<Place> =
                places.iter().filter(|place| !known.contains(place)).cloned().collect();
            // Whoever reports first of a place says when the next run is due.
            let none: Vec<Option<DateTime<Utc>>> = vec![None; new.len()];
            store::states::make(db, &new, &none, &none).await?;
            locked = store::states::lock(db, places, false).await?;
        }
        let monitors: std::collections::HashMap<MonitorId, &Arc<Monitor>> =
            reports.iter().map(|report| (report.monitor.id, &report.monitor)).collect();
        for (id, state) in locked {
            if let Some(monitor) = monitors.get(&id) {
                work.hold(Arc::clone(monitor), state);
            }
        }
        let mut given = (Vec::new(), Vec::new());
        let mut newest = HashSet::new();
        for report in reports {
            let place = (report.monitor.id, report.environment.clone());
            match report.key {
                RunKey::Given(key) => {
                    given.0.push(place);
                    given.1.push(key);
                }
                RunKey::Newest(_) => {
                    newest.insert(place);
                }
            }
        }
        let newest: Vec<Place> = newest.into_iter().collect();
        let mut runs = store::states::runs_by_key(db, &given.0, &given.1).await?;
        runs.extend(store::states::open_runs(db, &newest).await?);
        for (place, run) in runs {
            if let Some(held) = work.held.get_mut(&place)
                && held.runs.iter().all(|known| known.key != run.key)
            {
                held.runs.push(run);
            }
        }
        Ok(())
    }
}
