//! A client that keeps threads as an agent would: local first, a queue on disk, pushed when there is a
//! server to push to. It proves the protocol of docs/threads.md from the client's side.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use reqwest::{Client, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What is still to be told to the server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Pending {
    Append { thread: String, message: Value },
    Title { thread: String, title: String },
    Delete { thread: String },
}

impl Pending {
    fn thread(&self) -> &str {
        match self {
            Self::Append { thread, .. } | Self::Title { thread, .. } | Self::Delete { thread } => {
                thread
            }
        }
    }
}

/// A thread as this client knows it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Local {
    pub title: Option<String>,
    /// What the server has, in its order.
    pub messages: Vec<Value>,
    pub version: i64,
    pub last_seq: i64,
}

#[derive(Default, Deserialize, Serialize)]
struct State {
    threads: BTreeMap<String, Local>,
    queue: VecDeque<Pending>,
    next: u64,
}

/// Why a push stopped. What was not told is still in the queue.
#[derive(Debug)]
pub enum Stopped {
    /// No answer, or one of 5xx or 429: to be tried again.
    Unreachable(String),
    /// The server will never take it.
    Refused(StatusCode, String),
}

pub struct SyncClient {
    name: String,
    base: String,
    key: String,
    http: Client,
    file: PathBuf,
    state: State,
}

impl SyncClient {
    /// Goes on with what is in the folder.
    pub fn open(name: &str, base: &str, key: &str, dir: &Path) -> Self {
        let file = dir.join(format!("{name}.json"));
        let state = fs::read(&file).map_or_else(
            |_| State::default(),
            |bytes| serde_json::from_slice(&bytes).expect("the state is what was written"),
        );
        let http = Client::builder()
            .no_proxy()
            .timeout(std::time::Duration::from_secs(5))
            .build()
            .unwrap();
        Self {
            name: name.to_owned(),
            base: base.to_owned(),
            key: key.to_owned(),
            http,
            file,
            state,
        }
    }

    /// Asks elsewhere from now on.
    pub fn moved_to(&mut self, base: &str) {
        base.clone_into(&mut self.base);
    }

    /// Says something in a thread: on disk when this returns, on the server when it was pushed.
    pub fn say(&mut self, thread: &str, text: &str) -> String {
        self.state.next += 1;
        let id = format!("{}-{}", self.name, self.state.next);
        let message = json!({"id": id, "role": "user", "content": text});
        self.state.queue.push_back(Pending::Append { thread: thread.to_owned(), message });
        self.save();
        id
    }

    pub fn rename(&mut self, thread: &str, title: &str) {
        let (thread, title) = (thread.to_owned(), title.to_owned());
        self.state.queue.push_back(Pending::Title { thread, title });
        self.save();
    }

    pub fn delete(&mut self, thread: &str) {
        self.state.queue.push_back(Pending::Delete { thread: thread.to_owned() });
        self.save();
    }

    pub fn waiting(&self) -> usize {
        self.state.queue.len()
    }

    pub fn thread(&self, id: &str) -> Option<&Local> {
        self.state.threads.get(id)
    }

    /// Tells the server all that waits, in order. What it tells twice (the answer was lost) counts once.
    pub async fn push(&mut self) -> Result<(), Stopped> {
        while let Some(first) = self.state.queue.front().cloned() {
            match &first {
                Pending::Append { thread, .. } => self.push_messages(&thread.clone()).await?,
                Pending::Title { thread, title } => {
                    let body = json!({"title": title});
                    let answer = self.send(Method::PATCH, &path(thread), None, Some(&body)).await?;
                    self.note(thread, &answer.expect_one_of(&[200])?);
                    self.state.queue.pop_front();
                }
                Pending::Delete { thread } => {
                    let answer = self.send(Method::DELETE, &path(thread), None, None).await?;
                    answer.expect_one_of(&[204, 404])?;
                    self.state.threads.remove(thread);
                    self.state.queue.pop_front();
                }
            }
            self.save();
        }
        Ok(())
    }

    /// All messages at the queue's head that are of one thread, in one request.
    async fn push_messages(&mut self, thread: &str) -> Result<(), Stopped> {
        let batch: Vec<Value> = self
            .state
            .queue
            .iter()
            .take_while(|pending| pending.thread() == thread)
            .map_while(|pending| match pending {
                Pending::Append { message, .. } => Some(message.clone()),
                Pending::Title { .. } | Pending::Delete { .. } => None,
            })
            .collect();
        if !self.state.threads.contains_key(thread) {
            let new = json!({"messages": []});
            let create = Some(("if-none-match", "*".to_owned()));
            let answer = self.send(Method::PUT, &path(thread), create, Some(&new)).await?;
            // 412: there is one already, by another machine or by us, whose answer was lost.
            answer.expect_one_of(&[201, 412])?;
            self.pull(thread).await?;
        }
        loop {
            let known = self.state.threads.get(thread).map_or(0, |local| local.last_seq);
            let body = json!({"messages": batch, "expected_last_seq": known});
            let to = format!("{}/messages", path(thread));
            let answer = self.send(Method::POST, &to, None, Some(&body)).await?;
            if answer.status == StatusCode::CONFLICT {
                // Somebody else was faster: what they said comes before.
                self.pull(thread).await?;
                continue;
            }
            answer.expect_one_of(&[200])?;
            break;
        }
        for _ in &batch {
            self.state.queue.pop_front();
        }
        self.pull(thread).await
    }

    /// Reads what is new.
    pub async fn pull(&mut self, thread: &str) -> Result<(), Stopped> {
        let known = self.state.threads.get(thread).map_or(0, |local| local.last_seq);
        let from = format!("{}?messages_after={known}", path(thread));
        let answer = self.send(Method::GET, &from, None, None).await?;
        if answer.status == StatusCode::NOT_FOUND {
            self.state.threads.remove(thread);
            self.save();
            return Ok(());
        }
        let body = answer.expect_one_of(&[200])?;
        self.note(thread, &body);
        let local = self.state.threads.entry(thread.to_owned()).or_default();
        let seen: HashSet<String> =
            local.messages.iter().map(|message| message["id"].to_string()).collect();
        for message in body["messages"].as_array().into_iter().flatten() {
            if !seen.contains(&message["id"].to_string()) {
                local.messages.push(message.clone());
            }
            local.last_seq = local.last_seq.max(message["seq"].as_i64().unwrap_or_default());
        }
        self.save();
        Ok(())
    }

    fn note(&mut self, thread: &str, body: &Value) {
        let local = self.state.threads.entry(thread.to_owned()).or_default();
        local.version = body["version"].as_i64().unwrap_or(local.version);
        local.title = body["title"].as_str().map(str::to_owned);
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        header: Option<(&str, String)>,
        body: Option<&Value>,
    ) -> Result<Answered, Stopped> {
        let unreachable = |error: reqwest::Error| Stopped::Unreachable(error.to_string());
        let mut request =
            self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Stopped::Unreachable(text));
        }
        Ok(Answered { status, text })
    }

    /// Whole or not at all: a crash in between leaves the state before.
    fn save(&self) {
        let next = self.file.with_extension("new");
        fs::write(&next, serde_json::to_vec(&self.state).unwrap()).unwrap();
        fs::rename(next, &self.file).unwrap();
    }
}

struct Answered {
    status: StatusCode,
    text: String,
}

impl Answered {
    fn expect_one_of(self, statuses: &[u16]) -> Result<Value, Stopped> {
        if statuses.contains(&self.status.as_u16()) {
            Ok(serde_json::from_str(&self.text).unwrap_or_default())
        } else {
            Err(Stopped::Refused(self.status, self.text))
        }
    }
}

fn path(thread: &str) -> String {
    format!("/api/threads/{thread}")
}
