//! Streams of changes.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use futures::stream;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{select::Selector, store::Shared};

pub(super) struct Watch {
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    pub(super) api_version: String,
    /// None: of all namespaces.
    pub(super) namespace: Option<String>,
    pub(super) selector: Selector,
    /// None: all that is there first.
    pub(super) from: Option<u64>,
    pub(super) bookmarks: bool,
    /// `sendInitialEvents`: what is there, then a bookmark that says so.
    pub(super) initial: bool,
    pub(super) timeout: Duration,
}

struct Running {
    watch: Watch,
    shared: Arc<Shared>,
    newest: watch::Receiver<u64>,
    ends: watch::Receiver<u64>,
    ended: u64,
    deadline: Instant,
    at: u64,
    text: String,
    over: bool,
}

impl Watch {
    pub(super) fn response(self, shared: Arc<Shared>) -> Response {
        let ended = *shared.ended.borrow();
        let mut running = Running {
            newest: shared.newest.subscribe(),
            ends: shared.ended.subscribe(),
            ended,
            deadline: Instant::now() + self.timeout,
            at: self.from.unwrap_or_default(),
            text: String::new(),
            over: false,
            watch: self,
            shared,
        };
        running.begin();
        let stream = stream::unfold(running, |mut running| async move {
            let text = running.next().await?;
            Some((Ok::<_, Infallible>(text), running))
        });
        let mut response = Response::new(Body::from_stream(stream));
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        response
    }

    fn is_of(&self, plural: &str, namespace: &str) -> bool {
        self.plural == plural && self.namespace.as_ref().is_none_or(|one| one == namespace)
    }

    fn bookmark(&self, text: &mut String, at: u64, ends_initial: bool) {
        let mut metadata = json!({"resourceVersion": at.to_string()});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": self.kind, "apiVersion": self.api_version, "metadata": metadata,
                "spec": {"containers": []}});
        line(text, "BOOKMARK", &object);
    }
}

impl Running {
    fn begin(&mut self) {
        if self.watch.from.is_some() && !self.watch.initial {
            return;
        }
        let state = self.shared.state.lock().unwrap();
        self.at = state.version;
        for (key, body) in &state.objects {
            if self.watch.is_of(key.plural, &key.namespace) && self.watch.selector.fits(body) {
                line(&mut self.text, "ADDED", body);
            }
        }
        if self.watch.initial {
            self.watch.bookmark(&mut self.text, self.at, true);
        }
    }

    async fn next(&mut self) -> Option<String> {
        loop {
            if !self.text.is_empty() {
                return Some(std::mem::take(&mut self.text));
            }
            if self.over {
                return None;
            }
            self.newest.borrow_and_update();
            self.gather();
            if !self.text.is_empty() || self.over {
                continue;
            }
            let ended = self.ended;
            tokio::select! {
                more = self.newest.changed() => more.ok()?,
                _ = self.ends.wait_for(|count| *count != ended) => return None,
                () = tokio::time::sleep_until(self.deadline) => {
                    self.over = true;
                    if self.watch.bookmarks {
                        self.watch.bookmark(&mut self.text, self.at, false);
                    }
                }
            }
        }
    }

    /// What changed since.
    fn gather(&mut self) {
        let state = self.shared.state.lock().unwrap();
        if self.at < state.floor {
            let message = format!("too old resource version: {} ({})", self.at, state.floor);
            let error = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                "status": "Failure", "code": 410, "reason": "Expired", "message": message});
            line(&mut self.text, "ERROR", &error);
            self.over = true;
            return;
        }
        let from = state.history.partition_point(|change| change.version <= self.at);
        let repeat = self.shared.repeat.load(std::sync::atomic::Ordering::SeqCst);
        for change in state.history.iter().skip(from) {
            if !self.watch.is_of(change.key.plural, &change.key.namespace) {
                continue;
            }
            // What no longer fits is gone for who watches, what begins to fit is new.
            let fits = |body: &Option<Arc<Value>>| {
                body.as_deref().filter(|body| self.watch.selector.fits(body)).is_some()
            };
            let (kind, body) = match (fits(&change.before), fits(&change.after)) {
                (false, true) => ("ADDED", &change.after),
                (true, true) => ("MODIFIED", &change.after),
                (true, false) if change.after.is_some() => ("DELETED", &change.after),
                (true, false) => ("DELETED", &change.before),
                (false, false) => continue,
            };
            for _ in 0..=usize::from(repeat) {
                line(&mut self.text, kind, body.as_deref().unwrap_or(&Value::Null));
            }
        }
        self.at = state.version;
    }
}

fn line(text: &mut String, kind: &str, object: &Value) {
    text.push_str(&json!({"type": kind, "object": object}).to_string());
    text.push('\n');
}
