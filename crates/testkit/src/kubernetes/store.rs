//! Objects, their versions, and what became of them.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use ::http::StatusCode;
use chrono::{DateTime, SecondsFormat, Utc};
use loom_core::Clock;
use serde_json::{Value, json};
use tokio::{runtime::Handle, sync::watch};

use super::{
    faults::{Fault, Recorded},
    kubelet::Machine,
    script::Script,
};

/// Group, version, plural, kind.
pub(super) const KINDS: &[(&str, &str, &str, &str)] = &[
    ("", "v1", "pods", "Pod"),
    ("", "v1", "secrets", "Secret"),
    ("", "v1", "events", "Event"),
    ("", "v1", "namespaces", "Namespace"),
    ("", "v1", "nodes", "Node"),
    ("", "v1", "configmaps", "ConfigMap"),
    ("", "v1", "services", "Service"),
    ("", "v1", "serviceaccounts", "ServiceAccount"),
    ("", "v1", "resourcequotas", "ResourceQuota"),
    ("", "v1", "limitranges", "LimitRange"),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    ("coordination.k8s.io", "v1", "leases", "Lease"),
];

/// The name of a kind as the table has it.
pub(super) fn plural(name: &str) -> &'static str {
    let found = KINDS.iter().find(|(_, _, plural, _)| *plural == name);
    found.unwrap_or_else(|| panic!("{name} is not kept here")).2
}

/// What is done with an object, as a role names it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verb(pub(super) &'static str);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) plural: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(plural: &'static str, namespace: &str, name: &str) -> Self {
        Self { plural, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// A refusal, as the API server words it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

pub(super) type Answer<T> = Result<T, Refusal>;

pub(super) fn refusal<T>(
    status: u16,
    reason: &'static str,
    message: impl Into<String>,
) -> Answer<T> {
    let status = StatusCode::from_u16(status).unwrap();
    Err(Refusal { status, reason, message: message.into() })
}

pub(super) fn not_found<T>(key: &Key) -> Answer<T> {
    refusal(404, "NotFound", format!("{} \"{}\" not found", key.plural, key.name))
}

/// One change: what it was, what it is, each in its state of then.
#[derive(Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) before: Option<Arc<Value>>,
    pub(super) after: Option<Arc<Value>>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) version: u64,
    /// The newest change that is forgotten.
    pub(super) floor: u64,
    pub(super) objects: BTreeMap<Key, Arc<Value>>,
    pub(super) history: VecDeque<Change>,
}

const HISTORY: usize = 20_000;
const REQUESTS: usize = 100_000;

pub(crate) struct Shared {
    pub(super) state: Mutex<State>,
    /// The newest version, for those who watch.
    pub(super) newest: watch::Sender<u64>,
    /// Counts how often all watches were ended.
    pub(super) ended: watch::Sender<u64>,
    pub(super) machines: Mutex<HashMap<String, Arc<Machine>>>,
    pub(super) scripts: Mutex<HashMap<String, Script>>,
    pub(super) pace: Mutex<Duration>,
    pub(super) faults: Mutex<Vec<Fault>>,
    pub(super) denied: Mutex<HashSet<(String, String)>>,
    pub(super) requests: Mutex<VecDeque<Recorded>>,
    pub(super) repeat: AtomicBool,
    pub(super) only_v4: AtomicBool,
    pub(super) event_number: AtomicU64,
    pub(super) handle: Handle,
    clock: Mutex<Clock>,
}

impl Shared {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            state: Mutex::new(State { version: 1000, ..State::default() }),
            newest: watch::Sender::new(1000),
            ended: watch::Sender::new(0),
            machines: Mutex::default(),
            scripts: Mutex::default(),
            pace: Mutex::default(),
            faults: Mutex::default(),
            denied: Mutex::default(),
            requests: Mutex::default(),
            repeat: AtomicBool::new(false),
            only_v4: AtomicBool::new(false),
            event_number: AtomicU64::new(0),
            handle,
            clock: Mutex::new(Clock::system()),
        }
    }

    /// Times in the cluster are from now on those of this clock.
    pub(crate) fn set_clock(&self, clock: Clock) {
        *self.clock.lock().unwrap() = clock;
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.clock.lock().unwrap().now()
    }

    /// As objects have their times: in seconds.
    pub(super) fn stamp(&self) -> String {
        self.now().to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    pub(super) fn record(&self, recorded: Recorded) {
        let mut requests = self.requests.lock().unwrap();
        if requests.len() == REQUESTS {
            requests.pop_front();
        }
        requests.push_back(recorded);
    }

    pub(super) fn machine(&self, namespace: &str, pod: &str) -> Option<Arc<Machine>> {
        let pod = self.get(&Key::new("pods", namespace, pod))?;
        let uid = pod["metadata"]["uid"].as_str()?;
        self.machines.lock().unwrap().get(uid).cloned()
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.state.lock().unwrap().objects.get(key).cloned()
    }

    pub(super) fn all(&self, plural: &str, namespace: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        let found = state
            .objects
            .iter()
            .filter(|(key, _)| key.plural == plural && key.namespace == namespace);
        found.map(|(_, body)| (**body).clone()).collect()
    }

    pub(super) fn create(&self, key: Key, mut body: Value) -> Answer<Arc<Value>> {
        let mut state = self.state.lock().unwrap();
        if state.objects.contains_key(&key) {
            let text = format!("{} \"{}\" already exists", key.plural, key.name);
            return refusal(409, "AlreadyExists", text);
        }
        let (group, version, _, kind) =
            KINDS.iter().find(|(_, _, plural, _)| *plural == key.plural).expect("a known kind");
        body["apiVersion"] =
            if group.is_empty() { json!(version) } else { json!(format!("{group}/{version}")) };
        body["kind"] = json!(kind);
        let metadata = &mut body["metadata"];
        if !key.namespace.is_empty() {
            metadata["namespace"] = json!(key.namespace);
        }
        metadata["uid"] = json!(loom_core::id::new_uuid(self.now()).to_string());
        metadata["creationTimestamp"] = json!(self.stamp());
        metadata["generation"] = json!(1);
        Ok(self.write(&mut state, key, Some(body)).expect("it is written"))
    }

    /// # Errors
    /// When it is not there.
    pub(super) fn change(&self, key: &Key, change: impl FnOnce(&mut Value)) -> Answer<Arc<Value>> {
        self.try_change(key, |body| {
            change(body);
            Ok(())
        })
    }

    pub(super) fn try_change(
        &self,
        key: &Key,
        change: impl FnOnce(&mut Value) -> Answer<()>,
    ) -> Answer<Arc<Value>> {
        let mut state = self.state.lock().unwrap();
        let Some(before) = state.objects.get(key).cloned() else { return not_found(key) };
        let mut body = (*before).clone();
        change(&mut body)?;
        // What changes nothing is no change.
        if body == *before {
            return Ok(before);
        }
        Ok(self.write(&mut state, key.clone(), Some(body)).expect("it is written"))
    }

    /// Removes it, and what it owns.
    pub(super) fn remove(&self, key: &Key) {
        let uid = {
            let mut state = self.state.lock().unwrap();
            let Some(body) = state.objects.get(key).cloned() else { return };
            let uid = body["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            self.write(&mut state, key.clone(), None);
            uid
        };
        if let Some(machine) = self.machines.lock().unwrap().remove(&uid) {
            machine.gone();
        }
        let owned: Vec<Key> = {
            let state = self.state.lock().unwrap();
            let owned = state.objects.iter().filter(|(_, body)| {
                body["metadata"]["ownerReferences"]
                    .as_array()
                    .is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == *uid))
            });
            owned.map(|(key, _)| key.clone()).collect()
        };
        for key in owned {
            self.remove(&key);
        }
    }

    fn write(&self, state: &mut State, key: Key, body: Option<Value>) -> Option<Arc<Value>> {
        state.version += 1;
        let version = state.version;
        let before = match &body {
            Some(_) => state.objects.get(&key).cloned(),
            // The last state of what is gone has the version of its going.
            None => state.objects.remove(&key).map(|last| {
                let mut last = (*last).clone();
                last["metadata"]["resourceVersion"] = json!(version.to_string());
                Arc::new(last)
            }),
        };
        let after = body.map(|mut body| {
            body["metadata"]["resourceVersion"] = json!(version.to_string());
            Arc::new(body)
        });
        if let Some(after) = &after {
            state.objects.insert(key.clone(), Arc::clone(after));
        }
        if state.history.len() == HISTORY
            && let Some(oldest) = state.history.pop_front()
        {
            state.floor = oldest.version;
        }
        state.history.push_back(Change { version, key, before, after: after.clone() });
        self.newest.send_replace(version);
        after
    }

    pub(super) fn compact(&self) {
        let mut state = self.state.lock().unwrap();
        // Also what is said next is newer than what anybody has.
        state.version += 1;
        state.floor = state.version;
        state.history.clear();
        let version = state.version;
        drop(state);
        self.newest.send_replace(version);
    }

    pub(super) fn end_watches(&self) {
        self.ended.send_modify(|count| *count += 1);
    }
}
