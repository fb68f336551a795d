//! The servers are restarted one after the other under load: no request fails, and who follows a stream is
//! sent away with a word when to come again, and misses nothing. `LOOM_CHAOS=long` goes on for two minutes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use loom_core::{Clock, id::ThreadId, id::new_uuid};
use loom_testkit::{chaos::is_long, eventually};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::interval};

use super::{Balancer, Cluster, Person, SERVERS};

/// So many requests have one of each kind; each message is told to all who follow its author.
const ROUND: usize = 100;

struct Form {
    requests_per_second: u64,
    people: usize,
    streams: usize,
    lasts: Duration,
}

impl Form {
    fn of_this_run() -> Self {
        if is_long() {
            let lasts = Duration::from_secs(120);
            Self { requests_per_second: 200, people: 5, streams: 200, lasts }
        } else {
            // Each server once.
            Self { requests_per_second: 40, people: 2, streams: 20, lasts: Duration::ZERO }
        }
    }
}

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    sent: AtomicUsize,
    answered: AtomicUsize,
    failures: Mutex<Vec<String>>,
    /// Streams that ended with a word, and were begun anew.
    resumed: AtomicUsize,
    stop: AtomicBool,
}

impl Seen {
    fn failed(&self, what: String) {
        self.failures.lock().unwrap().push(what);
    }
}

/// One person with a thread.
struct Author {
    person: Person,
    thread: ThreadId,
    /// Messages that were acknowledged.
    appended: AtomicUsize,
}

impl Author {
    async fn request(&self, n: usize, seen: &Seen) {
        seen.sent.fetch_add(1, Ordering::Relaxed);
        let thread = self.thread;
        let (kind, request, end) = match n % ROUND {
            0 => {
                let message = json!({"id": format!("m{n}"), "role": "user", "content": "word"});
                let path = format!("/api/threads/{thread}/messages");
                let request = self.person.ask(Method::POST, &path);
                ("append", request.json(&json!({"messages": [message]})), "}")
            }
            1..=15 => {
                let body = json!({"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "Hi"}]});
                ("chat", self.person.ask(Method::POST, "/v1/chat/completions").json(&body), "}")
            }
            16..=20 => {
                let body = json!({"model": "mock-paced-20", "stream": true,
                    "messages": [{"role": "user", "content": "Hi"}]});
                let request = self.person.ask(Method::POST, "/v1/chat/completions").json(&body);
                ("reply, streamed", request, "data: [DONE]\n\n")
            }
            21..=60 => ("thread", self.person.get(&format!("/api/threads/{thread}")), "}"),
            61..=90 => ("threads", self.person.get("/api/threads?limit=5"), "}"),
            // Routes under /auth have a limit for each network, which all of these are of.
            _ => ("me", self.person.get("/auth/me"), "}"),
        };
        let answer = async {
            let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
            let status = answer.status();
            let text = answer.text().await.map_err(|error| format!("{status}, then {error:?}"))?;
            if status == 200 && text.ends_with(end) {
                Ok(())
            } else {
                Err(format!("{status}: {text}"))
            }
        };
        match answer.await {
            Ok(()) => {
                seen.answered.fetch_add(1, Ordering::Relaxed);
                if kind == "append" {
                    self.appended.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => seen.failed(format!("{kind} {n}: {error}")),
        }
    }
}

/// Follows what one person writes, over all restarts.
struct Follower {
    author: Arc<Author>,
    /// The places of the messages it was told of, and how often.
    told: BTreeMap<i64, usize>,
    last_id: Option<String>,
}

impl Follower {
    async fn open(&self) -> Result<Response, String> {
        let mut request = self.author.person.get("/api/threads/events");
        if let Some(id) = &self.last_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.map_err(|error| format!("no stream: {error:?}"))?;
        if response.status() == 200 {
            return Ok(response);
        }
        Err(format!(
            "no stream: {}: {}",
            response.status(),
            response.text().await.unwrap_or_default()
        ))
    }

    /// Reads until the stream ends, and tells whether it ended well; None when all was told.
    async fn read(
        &mut self,
        response: &mut Response,
        seen: &Seen,
    ) -> Option<Result<Duration, String>> {
        let (mut text, mut retry, mut reason) = (String::new(), None, None);
        loop {
            while let Some((block, rest)) = text.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
                if let Some(id) = field("id: ") {
                    self.last_id = Some(id.to_owned());
                }
                retry = field("retry: ").and_then(|millis| millis.parse().ok()).or(retry);
                let data =
                    field("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok());
                match (field("event: "), data) {
                    (Some("message"), Some(data))
                        if data["thread_id"] == self.author.thread.to_string() =>
                    {
                        *self.told.entry(data["to_seq"].as_i64().unwrap()).or_default() += 1;
                    }
                    (Some("bye"), Some(data)) => {
                        reason = data["reason"].as_str().map(str::to_owned);
                    }
                    _ => {}
                }
                text = rest.to_owned();
            }
            if self.knows_all(seen) {
                return None;
            }
            match tokio::time::timeout(Duration::from_millis(200), response.chunk()).await {
                Err(_) => {}
                Ok(Ok(Some(piece))) => text.push_str(std::str::from_utf8(&piece).unwrap()),
                Ok(end) => {
                    return Some(match (end, reason.as_deref(), retry) {
                        (Ok(None), Some("shutdown"), Some(millis)) => {
                            Ok(Duration::from_millis(millis))
                        }
                        end => Err(format!("a stream ended with {end:?}")),
                    });
                }
            }
        }
    }

    fn knows_all(&self, seen: &Seen) -> bool {
        seen.stop.load(Ordering::SeqCst)
            && self.told.len() >= self.author.appended.load(Ordering::SeqCst)
    }

    async fn follow(mut self, mut response: Response, seen: Arc<Seen>) -> Self {
        while let Some(end) = self.read(&mut response, &seen).await {
            let again = match end {
                Ok(retry) => {
                    // It says when to come.
                    tokio::time::sleep(retry).await;
                    self.open().await
                }
                Err(error) => Err(error),
            };
            match again {
                Ok(again) => response = again,
                Err(error) => {
                    seen.failed(error);
                    break;
                }
            }
            seen.resumed.fetch_add(1, Ordering::Relaxed);
        }
        self
    }
}

async fn roll(balancer: Balancer) {
    let Some(mut cluster) = Cluster::start(balancer).await else { return };
    let form = Form::of_this_run();
    let seen = Arc::new(Seen::default());
    let mut authors = Vec::new();
    for n in 0..form.people {
        let person = cluster.admin(&format!("ada{n}")).await;
        let thread = ThreadId(new_uuid(Clock::system().now()));
        let made = person.ask(Method::PUT, &format!("/api/threads/{thread}"));
        let made = made.json(&json!({"messages": []})).send().await.unwrap();
        assert_eq!(made.status(), 201);
        authors.push(Arc::new(Author { person, thread, appended: AtomicUsize::new(0) }));
    }
    let mut followers = JoinSet::new();
    for n in 0..form.streams {
        let author = Arc::clone(&authors[n % authors.len()]);
        let follower = Follower { author, told: BTreeMap::new(), last_id: None };
        let response = follower.open().await.unwrap();
        followers.spawn(follower.follow(response, Arc::clone(&seen)));
    }
    let load = {
        let (seen, authors) = (Arc::clone(&seen), authors.clone());
        tokio::spawn(async move {
            let mut tick = interval(Duration::from_secs(1) / form.requests_per_second as u32);
            let mut requests = JoinSet::new();
            for n in 0.. {
                tick.tick().await;
                if seen.stop.load(Ordering::SeqCst) {
                    break;
                }
                let (author, seen) =
                    (Arc::clone(&authors[n / ROUND % authors.len()]), Arc::clone(&seen));
                requests.spawn(async move { author.request(n, &seen).await });
                while requests.try_join_next().is_some() {}
            }
            requests.join_all().await;
        })
    };
    let answered = async |more: usize| {
        let enough = seen.answered.load(Ordering::Relaxed) + more;
        eventually(async || (seen.answered.load(Ordering::Relaxed) >= enough).then_some(())).await;
    };
    let (began, mut restarts) = (Instant::now(), 0);
    answered(40).await;
    while restarts < SERVERS || began.elapsed() < form.lasts {
        cluster.restart(restarts % SERVERS).await;
        restarts += 1;
        // With the new one in its place.
        answered(40).await;
    }
    seen.stop.store(true, Ordering::SeqCst);
    load.await.unwrap();
    let followers = tokio::time::timeout(super::PATIENCE, followers.join_all()).await.unwrap();
    println!(
        "{restarts} restarts in {:?}: {} requests, {} answered, {} streams, {} times resumed",
        began.elapsed(),
        seen.sent.load(Ordering::Relaxed),
        seen.answered.load(Ordering::Relaxed),
        followers.len(),
        seen.resumed.load(Ordering::Relaxed),
    );
    let failures = std::mem::take(&mut *seen.failures.lock().unwrap());
    assert!(
        failures.is_empty(),
        "{} failed: {:#?}",
        failures.len(),
        &failures[..failures.len().min(20)]
    );
    assert!(
        seen.resumed.load(Ordering::Relaxed) >= followers.len(),
        "each was sent on at least once"
    );
    for follower in followers {
        let appended = i64::try_from(follower.author.appended.load(Ordering::SeqCst)).unwrap();
        let all: BTreeMap<i64, usize> = (1..=appended).map(|place| (place, 1)).collect();
        assert_eq!(follower.told, all, "each message once");
    }
    assert!(cluster.balancer.terminate(super::PATIENCE).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_a_rolling_restart_behind_haproxy_fails_no_request_and_loses_no_event() {
    roll(Balancer::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_a_rolling_restart_behind_nginx_fails_no_request_and_loses_no_event() {
    roll(Balancer::Nginx).await;
}
