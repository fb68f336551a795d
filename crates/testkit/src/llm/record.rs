//! What arrived at the mock, and how it ended.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;
use tokio::{sync::watch, time::timeout};

use super::PATIENCE;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// From 1.
    pub number: usize,
    pub method: Method,
    /// With the query.
    pub path: String,
    pub headers: HeaderMap,
    /// Exactly the bytes that were sent.
    pub body: Bytes,
    /// When all of the body had been read.
    pub arrived: Instant,
    /// `None` while it is being answered.
    pub end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
pub struct End {
    pub how: Ended,
    pub at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The whole answer was handed to the connection.
    Finished,
    /// The connection was closed from the other side before that.
    ClientGone,
    /// The mock broke the connection, as its script said.
    Broken,
}

impl Recorded {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header's first value as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn ended(&self) -> Option<Ended> {
        self.end.map(|end| end.how)
    }
}

pub(super) struct Log {
    requests: Mutex<Vec<Recorded>>,
    changed: watch::Sender<()>,
}

impl Log {
    pub(super) fn new() -> Self {
        Self { requests: Mutex::default(), changed: watch::Sender::new(()) }
    }

    pub(super) fn all(&self) -> Vec<Recorded> {
        self.requests.lock().unwrap().clone()
    }

    pub(super) fn clear(&self) {
        self.requests.lock().unwrap().clear();
    }

    pub(super) fn arrived(
        self: &Arc<Self>,
        method: Method,
        path: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Open {
        let number = {
            let mut requests = self.requests.lock().unwrap();
            let number = requests.len() + 1;
            let arrived = Instant::now();
            requests.push(Recorded { number, method, path, headers, body, arrived, end: None });
            number
        };
        self.changed.send_replace(());
        Open { log: self.clone(), number }
    }

    pub(super) async fn wait(
        &self,
        n: usize,
        what: &str,
        is_so: impl Fn(&Recorded) -> bool,
    ) -> Recorded {
        assert!(n > 0, "requests are numbered from 1");
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                let found = self.requests.lock().unwrap().get(n - 1).filter(|r| is_so(r)).cloned();
                if let Some(found) = found {
                    return found;
                }
                changed.changed().await.expect("the log outlives this wait");
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| {
            let paths: Vec<_> =
                self.all().into_iter().map(|r| format!("{} {:?}", r.path, r.ended())).collect();
            panic!("request {n} did not {what} within {PATIENCE:?}; so far: {paths:?}")
        })
    }

    fn end(&self, number: usize, how: Ended) {
        if let Some(request) = self.requests.lock().unwrap().get_mut(number - 1) {
            request.end.get_or_insert(End { how, at: Instant::now() });
        }
        self.changed.send_replace(());
    }
}

/// A request that is being answered. Dropped without an end, its client has gone.
pub(super) struct Open {
    log: Arc<Log>,
    pub(super) number: usize,
}

impl Open {
    pub(super) fn end(&self, how: Ended) {
        self.log.end(self.number, how);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.log.end(self.number, Ended::ClientGone);
    }
}
