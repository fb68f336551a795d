//! The one who watches: takes the lease, watches pods, and sees to each weaver that something happened to.

use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use futures::{FutureExt as _, Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Event as ClusterEvent, Pod};
use kube::runtime::{
    WatchStreamExt as _,
    watcher::{self, watcher},
};
use loom_core::{Error, Result, id::WeaverId};
use loom_db::Signal;
use tokio::task::JoinSet;

use crate::{
    CHANNEL, Weavers,
    cluster::Cluster,
    pod::{INSTALLATION, seen},
    store::{self, lease},
};

/// How often the lease is prolonged, and asked for by those who do not have it.
const RENEW: Duration = Duration::from_secs(3);
/// Who could not prolong it for so long stops before another begins.
const GIVE_UP: Duration = Duration::from_secs(7);
const TICK: Duration = Duration::from_millis(500);
/// All rows and all pods are gone through, whatever was missed.
const RESYNC: TimeDelta = TimeDelta::seconds(60);
/// Weavers that are seen to at the same time.
const AT_ONCE: usize = 32;
/// A pod of ours without any row is left alone so long: a database that is behind may yet know it.
pub(super) const STRAY: TimeDelta = TimeDelta::minutes(5);
/// After a failure a weaver is seen to again, from so much on, doubled each time.
const FIRST_PAUSE: i64 = 1;
const LONGEST_PAUSE: i64 = 30;
/// What is said when the lease is free.
pub(crate) const FREE: &str = "lease";
/// How a word on the channel begins that is about a weaver to see to.
pub(crate) const ROW: &str = "row ";

/// What the one who watches knows of the cluster.
pub(crate) struct Lead {
    pub(crate) cluster: Cluster,
    pub(crate) term: i64,
    pods: Mutex<HashMap<WeaverId, Arc<Pod>>>,
    /// As they were when they were removed: who did it, or how they ended, may stand there only.
    removed: Mutex<HashMap<WeaverId, Arc<Pod>>>,
}

impl Lead {
    /// The last that was seen of a pod that is gone.
    pub(crate) fn last_seen(&self, id: WeaverId) -> Option<Arc<Pod>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn was_removed(&self, id: WeaverId, mut pod: Pod) {
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Default::default());
        pod.metadata.deletion_timestamp.get_or_insert(now);
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::new(pod));
    }

    pub(crate) fn pod(&self, id: WeaverId) -> Option<Arc<Pod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// What a request has shown, which the watch may be behind of, or ahead: a pod that the watch saw go stays
    /// gone.
    pub(crate) fn saw(&self, id: WeaverId, pod: Option<Arc<Pod>>) {
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        let pod = pod.filter(|pod| {
            removed.get(&id).is_none_or(|removed| removed.metadata.uid != pod.metadata.uid)
        });
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        match pod {
            Some(pod) => pods.insert(id, pod),
            None => pods.remove(&id),
        };
    }

    fn forget_removed(&self, live: &[crate::model::Row]) {
        let live: HashSet<WeaverId> = live.iter().map(|row| row.id).collect();
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        removed.retain(|id, _| live.contains(id));
    }

    fn all(&self) -> HashMap<WeaverId, Arc<Pod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, pods: HashMap<WeaverId, Arc<Pod>>) {
        *self.pods.lock().unwrap_or_else(PoisonError::into_inner) = pods;
    }
}

/// What is to be seen to, and when.
#[derive(Default)]
struct Work {
    queue: HashSet<WeaverId>,
    running: HashSet<WeaverId>,
    later: HashMap<WeaverId, DateTime<Utc>>,
    failures: HashMap<WeaverId, u32>,
    /// Pods whose weaver nobody knows, and since when.
    strays: HashMap<WeaverId, DateTime<Utc>>,
    /// The pods of a list that is coming in.
    listing: HashMap<WeaverId, Arc<Pod>>,
    /// There was a complete list: what is not in it is not there.
    listed: bool,
    next_resync: Option<DateTime<Utc>>,
}

impl Weavers {
    /// Until the server goes: leads whenever nobody else does.
    pub(crate) async fn keep(self, cluster: Cluster) {
        let mut said = self.deps.hub.subscribe(CHANNEL);
        while !self.closing.is_cancelled() {
            let term = lease::take(&self.deps.pool, &self.installation, &self.holder).await;
            match term {
                Ok(Some(term)) => {
                    tracing::debug!(term, "watching the cluster");
                    let lead = Arc::new(Lead {
                        cluster: cluster.clone(),
                        term,
                        pods: Mutex::default(),
                        removed: Mutex::default(),
                    });
                    tokio::select! {
                        () = self.closing.cancelled() => {}
                        () = self.prolong(term) => tracing::warn!(term, "no longer watching the cluster"),
                        () = self.work(&lead) => {}
                    }
                    self.no_longer_leads();
                    continue;
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "cannot ask who watches the cluster"),
            }
            let freed = async {
                while let Some(signal) = said.next().await {
                    if matches!(&signal, Signal::Said(word) if &**word == FREE) {
                        return;
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = self.closing.cancelled() => {}
                () = freed => {}
                () = tokio::time::sleep(RENEW) => {}
            }
        }
    }

    /// Until the lease is lost.
    async fn prolong(&self, term: i64) {
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(RENEW).await;
            let taken = lease::take(&self.deps.pool, &self.installation, &self.holder);
            match tokio::time::timeout(RENEW, taken).await {
                Ok(Ok(Some(now))) if now == term => last = Instant::now(),
                Ok(Ok(_)) => return,
                Ok(Err(_)) | Err(_) if last.elapsed() > GIVE_UP => return,
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    async fn work(&self, lead: &Arc<Lead>) {
        let mut said = self.deps.hub.subscribe(CHANNEL);
        let of_ours =
            watcher::Config::default().labels(&format!("{INSTALLATION}={}", self.installation));
        let pods = watcher(lead.cluster.pods(), of_ours).default_backoff();
        let of_pods = watcher::Config::default().fields("involvedObject.kind=Pod");
        let events = watcher(lead.cluster.events(), of_pods).default_backoff();
        let (mut pods, mut events) = (pin!(pods), pin!(events));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tasks = JoinSet::new();
        let mut work = Work::default();
        loop {
            tokio::select! {
                event = next(&mut pods) => self.saw_pod(lead, &mut work, event).await,
                event = next(&mut events) => self.saw_event(lead, event).await,
                signal = said.next() => match signal {
                    Some(Signal::Said(word)) => {
                        let id: Option<WeaverId> = word.strip_prefix(ROW).and_then(|id| id.parse().ok());
                        work.queue.extend(id);
                    }
                    Some(Signal::ReadAgain) => work.next_resync = None,
                    None => return,
                },
                () = self.inbox.bell.notified() => work.queue.extend(self.inbox.take()),
                Some(done) = tasks.join_next() => {
                    if let Ok((id, outcome)) = done {
                        self.saw_to(&mut work, id, outcome);
                    }
                }
                _ = tick.tick() => self.tick(lead, &mut work).await,
            }
            let free = AT_ONCE.saturating_sub(work.running.len());
            let ready: Vec<_> = work
                .queue
                .iter()
                .filter(|id| !work.running.contains(id))
                .copied()
                .take(free)
                .collect();
            for id in ready {
                work.queue.remove(&id);
                work.running.insert(id);
                let (weavers, lead) = (self.clone(), Arc::clone(lead));
                let stray = work.strays.get(&id).copied();
                tasks.spawn(async move {
                    let seen_to = AssertUnwindSafe(weavers.see_to(&lead, id, stray)).catch_unwind();
                    let panicked = |_| Err(Error::internal("a fault of ours: it panicked"));
                    (id, seen_to.await.unwrap_or_else(panicked))
                });
            }
        }
    }

    async fn saw_pod(
        &self,
        lead: &Arc<Lead>,
        work: &mut Work,
        event: Result<watcher::Event<Pod>, watcher::Error>,
    ) {
        match event {
            Ok(watcher::Event::Apply(pod)) => {
                let Some(id) = seen::weaver_of(&pod) else { return };
                let known = lead.pod(id).and_then(|known| known.metadata.resource_version.clone());
                if known.is_none() || known != pod.metadata.resource_version {
                    lead.saw(id, Some(Arc::new(slim(pod))));
                    work.queue.insert(id);
                }
            }
            Ok(watcher::Event::Delete(pod)) => {
                let Some(id) = seen::weaver_of(&pod) else { return };
                // One of the same name that came after it stays known.
                if lead.pod(id).is_none_or(|known| known.metadata.uid == pod.metadata.uid) {
                    lead.was_removed(id, slim(pod));
                    lead.saw(id, None);
                }
                work.queue.insert(id);
            }
            Ok(watcher::Event::Init) => work.listing.clear(),
            Ok(watcher::Event::InitApply(pod)) => {
                if let Some(id) = seen::weaver_of(&pod) {
                    work.listing.insert(id, Arc::new(slim(pod)));
                }
            }
            Ok(watcher::Event::InitDone) => {
                lead.replace(std::mem::take(&mut work.listing));
                work.listed = true;
                work.next_resync = None;
                self.resync(lead, work).await;
            }
            Err(error) => {
                tracing::debug!(%error, "the watch of pods was cut; it goes on");
            }
        }
    }

    async fn tick(&self, lead: &Arc<Lead>, work: &mut Work) {
        let now = self.deps.clock.now();
        work.later.retain(|id, at| {
            let due = *at <= now;
            if due {
                work.queue.insert(*id);
            }
            !due
        });
        if work.listed && work.next_resync.is_none_or(|at| at <= now) {
            self.resync(lead, work).await;
        }
    }

    /// All rows that are not over, and all pods.
    async fn resync(&self, lead: &Arc<Lead>, work: &mut Work) {
        let now = self.deps.clock.now();
        let rows = match store::live(&self.deps.pool, &self.installation).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::debug!(%error, "cannot read the weavers; trying again");
                work.next_resync = Some(now + TimeDelta::seconds(2));
                return;
            }
        };
        work.next_resync = Some(now + RESYNC);
        lead.forget_removed(&rows);
        self.count(&rows);
        let pods = lead.all();
        let mut strays: HashSet<WeaverId> = pods.keys().copied().collect();
        for row in &rows {
            strays.remove(&row.id);
            // What is as it should be costs nothing more than this.
            let pod = pods.get(&row.id).map(Arc::as_ref);
            let rests = pod.is_some() && act_is_idle(&super::decide::decide(row, pod, now));
            if rests {
                self.follow(row);
            } else {
                work.queue.insert(row.id);
            }
        }
        work.strays.retain(|id, _| strays.contains(id));
        work.queue.extend(strays);
    }

    fn saw_to(&self, work: &mut Work, id: WeaverId, outcome: Result<Next>) {
        work.running.remove(&id);
        let now = self.deps.clock.now();
        match outcome {
            Ok(next) => {
                work.failures.remove(&id);
                if !matches!(next, Next::Stray) {
                    work.strays.remove(&id);
                }
                match next {
                    Next::Nothing => {
                        work.later.remove(&id);
                    }
                    Next::At(at) => {
                        work.later.insert(id, at);
                    }
                    Next::Stray => {
                        let since = *work.strays.entry(id).or_insert(now);
                        work.later.insert(id, (since + STRAY).max(now + TimeDelta::seconds(5)));
                    }
                }
            }
            Err(error) => {
                let failures = work.failures.entry(id).or_default();
                let pause = (FIRST_PAUSE << (*failures).min(5)).min(LONGEST_PAUSE);
                *failures += 1;
                tracing::debug!(%error, weaver = %id, "cannot see to a weaver; trying again");
                work.later.insert(id, now + TimeDelta::seconds(pause));
            }
        }
    }
}

/// What is left to do for a weaver.
pub(crate) enum Next {
    Nothing,
    At(DateTime<Utc>),
    /// Nobody knows the weaver of this pod.
    Stray,
}

fn act_is_idle(actions: &[super::decide::Action]) -> bool {
    matches!(actions, [super::decide::Action::LookAgain(_)])
}

/// A watch never ends by itself.
async fn next<T>(stream: &mut (impl Stream<Item = T> + Unpin)) -> T {
    match stream.next().await {
        Some(item) => item,
        None => std::future::pending().await,
    }
}

/// Without what nobody here looks at, which is most of it.
fn slim(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    if let Some(spec) = &mut pod.spec {
        let node_name = spec.node_name.take();
        *spec = k8s_openapi::api::core::v1::PodSpec { node_name, ..Default::default() };
    }
    pod
}

impl Weavers {
    async fn saw_event(
        &self,
        lead: &Lead,
        event: Result<watcher::Event<ClusterEvent>, watcher::Error>,
    ) {
        use watcher::Event::{Apply, InitApply};
        let Ok(Apply(event) | InitApply(event)) = event else { return };
        if let Err(error) = self.note(lead, &event).await {
            tracing::debug!(%error, "cannot note what the cluster says of a weaver");
        }
    }
}
