//! A cluster that is none: the Kubernetes API as far as weavers use it, with a tiny kubelet that plays
//! pods by script, on a real socket.
//!
//! State is kept as the API server keeps it: every change has a resource version, a watch goes on from one,
//! what is too old is 410. What a pod does is said by its image ([`script`] has the names), or by the test.
//! Everything goes through a [`TcpProxy`], so that the cluster can be slow, cut off or gone.

mod exec;
mod faults;
mod http;
mod kubelet;
mod logs;
mod patch;
pub mod script;
mod select;
mod store;
mod watch;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

pub use faults::{Fault, Recorded};
pub use script::{Script, Step};
pub(crate) use store::Shared;

use crate::{background::Background, chaos::TcpProxy, eventually};
use kubelet::Order;
use store::{Key, Verb};

/// The credential that the kubeconfig has; it must appear nowhere else.
pub const CLUSTER_TOKEN: &str = "sa-token-77d1f0c3b2a94e65";
pub const NAMESPACE: &str = "loom-weavers";

/// A running cluster; it is gone when this is dropped.
pub struct FakeKubernetes {
    pub proxy: TcpProxy,
    pub(crate) shared: Arc<Shared>,
    directory: tempfile::TempDir,
    _background: Background,
}

impl FakeKubernetes {
    /// With the namespace `loom-weavers` and nothing in it.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("there is a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let background = Background::start("kubernetes");
        let shared = Arc::new(Shared::new(background.handle().clone()));
        let namespace = json!({"metadata": {"name": NAMESPACE}, "status": {"phase": "Active"}});
        shared.create(Key::new("namespaces", "", NAMESPACE), namespace).expect("it is new");
        background.spawn(http::run(listener, Arc::clone(&shared)));
        let proxy = TcpProxy::start(addr).expect("there is a free port");
        let directory = tempfile::tempdir().expect("a directory can be made");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": format!("http://{}", proxy.addr())}}],
            "users": [{"name": "fake", "user": {"token": CLUSTER_TOKEN}}],
            "contexts": [{"name": "fake",
                "context": {"cluster": "fake", "user": "fake", "namespace": NAMESPACE}}],
        });
        std::fs::write(directory.path().join("kubeconfig"), config.to_string())
            .expect("it can be written");
        Self { proxy, shared, directory, _background: background }
    }

    /// A kubeconfig file, for `LOOM_SERVER_WEAVER_KUBECONFIG`.
    pub fn kubeconfig(&self) -> PathBuf {
        Path::new(self.directory.path()).join("kubeconfig")
    }

    /// Objects of a kind (as `pods`) in the namespace, by name.
    pub fn objects(&self, plural: &str) -> Vec<Value> {
        self.shared.all(plural, NAMESPACE)
    }

    pub fn pods(&self) -> Vec<Value> {
        self.objects("pods")
    }

    pub fn pod(&self, name: &str) -> Option<Value> {
        self.shared.get(&Key::new("pods", NAMESPACE, name)).map(|pod| (*pod).clone())
    }

    /// The pod, once it is so.
    pub async fn pod_when(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually(async || self.pod(name).filter(|pod| is_so(pod))).await
    }

    /// The pod, once it is in this phase.
    pub async fn pod_in(&self, name: &str, phase: &str) -> Value {
        self.pod_when(name, |pod| pod["status"]["phase"] == phase).await
    }

    /// Puts an object there without asking the API: what another client made.
    pub fn put(&self, plural: &'static str, body: Value) {
        let name = body["metadata"]["name"].as_str().expect("it has a name").to_owned();
        let key = Key::new(store::plural(plural), NAMESPACE, &name);
        self.shared.create(key.clone(), body).expect("it is new");
        if plural == "pods" {
            kubelet::adopt(&self.shared, &key);
        }
    }

    /// Changes an object without asking the API, as the cluster's own parts do.
    pub fn change(&self, plural: &'static str, name: &str, change: impl FnOnce(&mut Value)) {
        let key = Key::new(store::plural(plural), NAMESPACE, name);
        self.shared.change(&key, change).expect("it is there");
    }

    /// Takes an object away at once, as `kubectl delete --force` does.
    pub fn remove(&self, plural: &'static str, name: &str) {
        self.shared.remove(&Key::new(store::plural(plural), NAMESPACE, name));
    }

    /// What pods of this image do.
    pub fn script(&self, image: &str, script: Script) {
        self.shared.scripts.lock().unwrap().insert(image.to_owned(), script);
    }

    /// The next steps of pods take so long each.
    pub fn pace(&self, step: std::time::Duration) {
        *self.shared.pace.lock().unwrap() = step;
    }

    /// Lets a pod that holds go on with its script.
    pub fn go_on(&self, pod: &str) {
        self.order(pod, Order::GoOn);
    }

    /// The container of the pod ends.
    pub fn exit(&self, pod: &str, code: i32) {
        self.order(pod, Order::Step(Step::Exit(code)));
    }

    /// Something happens to the pod, outside of its script.
    pub fn happens(&self, pod: &str, step: Step) {
        self.order(pod, Order::Step(step));
    }

    /// Its node is drained: an eviction, with a deletion of the cluster's own.
    pub fn drain(&self, pod: &str) {
        self.change("pods", pod, |pod| {
            let condition = json!({"type": "DisruptionTarget", "status": "True",
                "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"});
            if let Some(all) = pod["status"]["conditions"].as_array_mut() {
                all.push(condition);
            }
        });
        let _ = http::delete_pod(&self.shared, &Key::new("pods", NAMESPACE, pod), None);
    }

    fn order(&self, pod: &str, order: Order) {
        self.shared.machine(NAMESPACE, pod).expect("the pod is there").order(order);
    }

    /// The main container of the pod says a line.
    pub fn say(&self, pod: &str, line: &str) {
        self.say_at(pod, self.shared.now(), line);
    }

    /// The same with a time.
    pub fn say_at(&self, pod: &str, at: DateTime<Utc>, line: &str) {
        let machine = self.shared.machine(NAMESPACE, pod).expect("the pod is there");
        machine.log(&machine.main).say(at, line);
    }

    /// The log of the pod is rotated: what was said can no longer be read, who follows is cut off.
    pub fn rotate(&self, pod: &str) {
        let machine = self.shared.machine(NAMESPACE, pod).expect("the pod is there");
        machine.log(&machine.main).rotate();
    }

    /// Streams of the pod's log end, as the API server's do now and then.
    pub fn cut_logs(&self, pod: &str) {
        let machine = self.shared.machine(NAMESPACE, pod).expect("the pod is there");
        machine.log(&machine.main).cut();
    }

    /// How many follow the pod's log.
    pub fn followers(&self, pod: &str) -> usize {
        let machine = self.shared.machine(NAMESPACE, pod).expect("the pod is there");
        machine.log(&machine.main).followers()
    }

    /// What was written to the standard input of the pod's terminal.
    pub fn stdin(&self, pod: &str) -> Vec<u8> {
        let machine = self.shared.machine(NAMESPACE, pod).expect("the pod is there");
        machine.stdin.lock().unwrap().clone()
    }

    /// Requests that fit it are answered by the fault.
    pub fn fault(&self, fault: Fault) {
        self.shared.faults.lock().unwrap().push(fault);
    }

    pub fn clear_faults(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// The account may no longer do this (as `create`, `pods`, or `get`, `pods/log`).
    pub fn deny(&self, verb: &str, resource: &str) {
        self.shared.denied.lock().unwrap().insert((verb.to_owned(), resource.to_owned()));
    }

    pub fn allow(&self, verb: &str, resource: &str) {
        self.shared.denied.lock().unwrap().remove(&(verb.to_owned(), resource.to_owned()));
    }

    /// Forgets the changes so far: a watch from before now is 410.
    pub fn compact(&self) {
        self.shared.compact();
    }

    /// All running watches end, without an error.
    pub fn end_watches(&self) {
        self.shared.end_watches();
    }

    /// Each change is sent to watchers twice.
    pub fn repeat_events(&self, on: bool) {
        self.shared.repeat.store(on, std::sync::atomic::Ordering::SeqCst);
    }

    /// Only the v4 subprotocol of exec and attach, as clusters before 1.29 have it.
    pub fn only_v4(&self) {
        self.shared.only_v4.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    /// Unreachable from the moment this returns, until [`Self::back`].
    pub async fn gone(&self) {
        self.proxy.refuse().await;
        self.proxy.cut();
    }

    pub fn back(&self) {
        self.proxy.resume().expect("the port is kept");
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.requests.lock().unwrap().iter().cloned().collect()
    }

    /// How often this was asked (as `create`, `pods`).
    pub fn count(&self, verb: &str, resource: &str) -> usize {
        let requests = self.shared.requests.lock().unwrap();
        requests.iter().filter(|one| one.verb == verb && one.resource == resource).count()
    }
}

/// For a fault that ends by itself.
impl Verb {
    pub(crate) fn of(method: &::http::Method, has_name: bool, watches: bool) -> Self {
        Self(match (method.as_str(), has_name, watches) {
            ("GET", _, true) => "watch",
            ("GET", true, false) => "get",
            ("GET", false, false) => "list",
            ("POST", ..) => "create",
            ("PUT", ..) => "update",
            ("PATCH", ..) => "patch",
            ("DELETE", true, _) => "delete",
            _ => "deletecollection",
        })
    }
}
