//! Scheduler, kubelet and container runtime in one: it plays pods as their scripts say.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{
    logs::Log,
    script::{Script, Step},
    store::{Key, Shared},
};

const NODE: &str = "fake-node";

/// What a pod is told.
pub(super) enum Order {
    GoOn,
    Step(Step),
    /// Its object is to go.
    Delete,
}

/// What is behind a pod.
pub(super) struct Machine {
    pub(super) key: Key,
    /// The container that is the pod's purpose.
    pub(super) main: String,
    pub(super) stdin: Mutex<Vec<u8>>,
    /// How the main container ended.
    pub(super) over: watch::Sender<Option<i32>>,
    logs: Mutex<HashMap<String, Arc<Log>>>,
    orders: mpsc::UnboundedSender<Order>,
    gone: tokio_util::sync::CancellationToken,
}

impl Machine {
    pub(super) fn log(&self, container: &str) -> Arc<Log> {
        Arc::clone(self.logs.lock().unwrap().entry(container.to_owned()).or_default())
    }

    pub(super) fn order(&self, order: Order) {
        // Who is gone takes no orders.
        let _ = self.orders.send(order);
    }

    /// Its object is gone.
    pub(super) fn gone(&self) {
        self.end(137);
        self.gone.cancel();
    }

    fn end(&self, code: i32) {
        self.over.send_if_modified(|over| {
            let is_first = over.is_none();
            over.get_or_insert(code);
            is_first
        });
        for log in self.logs.lock().unwrap().values() {
            log.end();
        }
    }
}

/// Takes over a pod that was just made.
pub(super) fn adopt(shared: &Arc<Shared>, key: &Key) {
    let Some(pod) = shared.get(key) else { return };
    let main = &pod["spec"]["containers"][0];
    let image = main["image"].as_str().unwrap_or_default();
    let script =
        shared.scripts.lock().unwrap().get(image).cloned().unwrap_or_else(|| Script::of(image));
    let (orders, taken) = mpsc::unbounded_channel();
    let machine = Arc::new(Machine {
        key: key.clone(),
        main: main["name"].as_str().unwrap_or_default().to_owned(),
        stdin: Mutex::default(),
        over: watch::Sender::new(None),
        logs: Mutex::default(),
        orders,
        gone: tokio_util::sync::CancellationToken::new(),
    });
    machine.log(&machine.main);
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    shared.machines.lock().unwrap().insert(uid, Arc::clone(&machine));
    let kubelet = Kubelet { shared: Arc::clone(shared), machine, stubborn: script.stubborn };
    shared.handle.spawn(async move {
        let gone = kubelet.machine.gone.clone();
        tokio::select! {
            () = kubelet.run(script.steps.into(), taken) => {}
            () = gone.cancelled() => {}
        }
    });
}

struct Kubelet {
    shared: Arc<Shared>,
    machine: Arc<Machine>,
    stubborn: bool,
}

impl Kubelet {
    async fn run(&self, mut steps: VecDeque<Step>, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut holds = false;
        loop {
            let order = match orders.try_recv() {
                Ok(order) => Some(order),
                Err(_) if holds || steps.is_empty() => orders.recv().await,
                Err(_) => None,
            };
            match order {
                Some(Order::GoOn) => holds = false,
                Some(Order::Step(step)) => self.step(&step),
                Some(Order::Delete) => return self.take_down(orders).await,
                None => match steps.pop_front() {
                    Some(Step::Hold) => holds = true,
                    Some(Step::Pause(pause)) => tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        Some(order) = orders.recv() => match order {
                            Order::Delete => return self.take_down(orders).await,
                            Order::Step(step) => self.step(&step),
                            Order::GoOn => {}
                        },
                    },
                    Some(step) => {
                        let pace = *self.shared.pace.lock().unwrap();
                        if !pace.is_zero() {
                            tokio::time::sleep(pace).await;
                        }
                        self.step(&step);
                    }
                    None => return,
                },
            }
        }
    }

    /// As the grace period goes: the container ends, the object goes.
    async fn take_down(&self, mut orders: mpsc::UnboundedReceiver<Order>) {
        if self.stubborn {
            while let Some(order) = orders.recv().await {
                match order {
                    Order::GoOn => break,
                    Order::Step(step) => self.step(&step),
                    Order::Delete => {}
                }
            }
        }
        let runs = self.shared.get(&self.machine.key).is_some_and(|pod| {
            pod["status"]["containerStatuses"][0]["state"].get("running").is_some()
        });
        if runs {
            self.step(&Step::Exit(if self.stubborn { 137 } else { 143 }));
        }
        self.shared.remove(&self.machine.key);
    }

    fn step(&self, step: &Step) {
        let now = self.shared.stamp();
        let ended = match step {
            Step::Exit(code) => Some(*code),
            Step::Oom | Step::Deadline | Step::Evict(_) => Some(137),
            _ => None,
        };
        match step {
            Step::Say(line) => {
                self.machine.log(&self.machine.main).say(self.shared.now(), line);
                return;
            }
            Step::Unschedulable(text) => self.event("Warning", "FailedScheduling", text),
            Step::Schedule => self.event("Normal", "Scheduled", "Successfully assigned"),
            Step::Wait(reason, text) => self.event("Warning", reason, text),
            Step::Start => {
                self.event("Normal", "Pulled", "Container image already present on machine");
                self.event("Normal", "Started", "Started container");
            }
            _ => {}
        }
        let changed = self.shared.change(&self.machine.key, |pod| apply(pod, step, &now));
        if let (Ok(_), Some(code)) = (changed, ended) {
            self.machine.end(code);
        }
    }

    fn event(&self, kind: &str, reason: &str, message: &str) {
        let Some(pod) = self.shared.get(&self.machine.key) else { return };
        let number = self.shared.event_number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let now = self.shared.stamp();
        let name = format!("{}.{number:x}", self.machine.key.name);
        let event = json!({
            "metadata": {"name": name},
            "involvedObject": {"kind": "Pod", "namespace": self.machine.key.namespace,
                "name": self.machine.key.name, "uid": pod["metadata"]["uid"]},
            "type": kind, "reason": reason, "message": message, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
        });
        let key = Key::new("events", &self.machine.key.namespace, &name);
        self.shared.create(key, event).expect("the number is new");
    }
}

fn condition(status: &mut Value, kind: &str, is: &str, reason: &str, message: &str, now: &str) {
    let mut condition = json!({"type": kind, "status": is, "lastTransitionTime": now});
    if !reason.is_empty() {
        condition["reason"] = json!(reason);
        condition["message"] = json!(message);
    }
    if status["conditions"].is_null() {
        status["conditions"] = json!([]);
    }
    let all = status["conditions"].as_array_mut().expect("a list");
    all.retain(|old| old["type"] != kind);
    all.push(condition);
}

fn apply(pod: &mut Value, step: &Step, now: &str) {
    let spec = pod["spec"].take();
    let status = &mut pod["status"];
    let node = match step {
        Step::Unschedulable(text) => {
            condition(status, "PodScheduled", "False", "Unschedulable", text, now);
            None
        }
        Step::Schedule => {
            condition(status, "PodScheduled", "True", "", "", now);
            condition(status, "Ready", "False", "ContainersNotReady", "not yet", now);
            status["startTime"] = json!(now);
            status["hostIP"] = json!("10.0.0.1");
            let text = "ContainerCreating";
            status["containerStatuses"] =
                states(&spec, "containers", |_| json!({"waiting": {"reason": text}}));
            if has_init(&spec) {
                status["initContainerStatuses"] =
                    states(&spec, "initContainers", |_| json!({"waiting": {"reason": text}}));
            }
            Some(NODE)
        }
        Step::Wait(reason, text) => {
            status["containerStatuses"] = states(
                &spec,
                "containers",
                |_| json!({"waiting": {"reason": reason, "message": text}}),
            );
            None
        }
        Step::InitExit(code) => {
            status["initContainerStatuses"] =
                states(&spec, "initContainers", |_| terminated(*code, "Error", now, now));
            condition(status, "Ready", "False", "PodFailed", "an init container failed", now);
            status["phase"] = json!("Failed");
            None
        }
        Step::Start => {
            if has_init(&spec) {
                status["initContainerStatuses"] =
                    states(&spec, "initContainers", |_| terminated(0, "Completed", now, now));
            }
            status["containerStatuses"] =
                states(&spec, "containers", |_| json!({"running": {"startedAt": now}}));
            condition(status, "Initialized", "True", "", "", now);
            condition(status, "ContainersReady", "True", "", "", now);
            condition(status, "Ready", "True", "", "", now);
            status["podIP"] = json!("10.244.0.9");
            status["phase"] = json!("Running");
            None
        }
        Step::Exit(code) => {
            let reason = if *code == 0 { "Completed" } else { "Error" };
            end(status, &spec, *code, reason, now);
            None
        }
        Step::Oom => {
            end(status, &spec, 137, "OOMKilled", now);
            None
        }
        Step::Evict(text) => {
            end(status, &spec, 137, "Error", now);
            status["reason"] = json!("Evicted");
            status["message"] = json!(text);
            None
        }
        Step::Deadline => {
            end(status, &spec, 137, "Error", now);
            status["reason"] = json!("DeadlineExceeded");
            status["message"] =
                json!("Pod was active on the node longer than the specified deadline");
            None
        }
        Step::NodeLost => {
            let text = "Node fake-node which was running pod is unresponsive";
            condition(status, "Ready", "False", "NodeLost", text, now);
            status["reason"] = json!("NodeLost");
            status["message"] = json!(text);
            None
        }
        Step::Say(_) | Step::Pause(_) | Step::Hold => None,
    };
    pod["spec"] = spec;
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
}

fn has_init(spec: &Value) -> bool {
    spec["initContainers"].as_array().is_some_and(|all| !all.is_empty())
}

fn end(status: &mut Value, spec: &Value, code: i32, reason: &str, now: &str) {
    let since = status["containerStatuses"][0]["state"]["running"]["startedAt"].clone();
    let since = since.as_str().unwrap_or(now).to_owned();
    status["containerStatuses"] =
        states(spec, "containers", |_| terminated(code, reason, &since, now));
    let why = if code == 0 { "PodCompleted" } else { "PodFailed" };
    condition(status, "ContainersReady", "False", why, "", now);
    condition(status, "Ready", "False", why, "", now);
    status["phase"] = json!(if code == 0 { "Succeeded" } else { "Failed" });
}

fn terminated(code: i32, reason: &str, since: &str, now: &str) -> Value {
    json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": since,
        "finishedAt": now, "containerID": "fake://1"}})
}

fn states(spec: &Value, which: &str, state: impl Fn(&Value) -> Value) -> Value {
    let containers = spec[which].as_array().into_iter().flatten();
    let all = containers.map(|container| {
        let state = state(container);
        let is_running = state.get("running").is_some();
        json!({
            "name": container["name"], "image": container["image"], "imageID": "",
            "state": state, "lastState": {}, "restartCount": 0,
            "ready": is_running || state["terminated"]["exitCode"] == 0, "started": is_running,
        })
    });
    Value::Array(all.collect())
}
