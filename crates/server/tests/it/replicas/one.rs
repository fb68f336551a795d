//! Whichever server a request comes to, they are one: what is told to any of them holds at all.

use std::collections::BTreeSet;

use loom_core::{Clock, id::ThreadId, id::new_uuid};
use loom_testkit::eventually;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::{Balancer, Cluster, Person, SERVERS};

async fn json(request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Reads until all of these were said.
async fn until(stream: &mut Response, wanted: &[String]) {
    let mut seen = String::new();
    while !wanted.iter().all(|text| seen.contains(text)) {
        let piece = tokio::time::timeout(super::PATIENCE, stream.chunk()).await;
        let piece = piece.unwrap_or_else(|_| panic!("of {wanted:?} there came {seen}"));
        seen.push_str(std::str::from_utf8(&piece.unwrap().unwrap()).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_behind_a_balancer_are_one() {
    let Some(cluster) = Cluster::start(Balancer::Haproxy).await else { return };
    let ada = cluster.admin("ada").await;
    let at: Vec<Person> = (0..SERVERS).map(|n| ada.at(cluster.direct(n))).collect();

    // A key is good everywhere at once, and when it is revoked, nowhere.
    let org = json(ada.get("/auth/me")).await["org_id"].as_str().unwrap().to_owned();
    let keys = format!("/api/orgs/{org}/api-keys");
    let body = json!({"name": "ci", "kind": "personal", "scopes": ["threads:read"]});
    let made = json(at[0].ask(Method::POST, &keys).json(&body)).await;
    let key = made["secret"].as_str().unwrap().to_owned();
    let status = async |n: usize| {
        let holder = Person { key: key.clone(), ..at[n].clone() };
        holder.get("/auth/me").send().await.unwrap().status().as_u16()
    };
    for n in 0..SERVERS {
        assert_eq!(status(n).await, 200, "at {n}");
    }
    let path = format!("{keys}/{}", made["id"].as_str().unwrap());
    assert!(at[1].ask(Method::DELETE, &path).send().await.unwrap().status().is_success());
    for n in 0..SERVERS {
        eventually(async || (status(n).await == 401).then_some(())).await;
    }

    // Who follows one server hears what is written at the others.
    let mut events = ada.get("/api/threads/events").send().await.unwrap();
    assert_eq!(events.status(), 200);
    let mut written = Vec::new();
    for person in &at {
        let id = ThreadId(new_uuid(Clock::system().now()));
        let thread = person.ask(Method::PUT, &format!("/api/threads/{id}"));
        json(thread.json(&json!({"messages": []}))).await;
        let message = json!({"messages": [{"id": "m1", "role": "user", "content": "hello"}]});
        json(ada.ask(Method::POST, &format!("/api/threads/{id}/messages")).json(&message)).await;
        written.push(format!("\"thread_id\":\"{id}\""));
    }
    until(&mut events, &written).await;

    // A limit that one was told holds over all of them together.
    let path = format!("/api/orgs/{org}/llm/limits/organisation/all");
    json(at[2].ask(Method::PUT, &path).json(&json!({"requests_per_minute": 6}))).await;
    let body = json!({"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "Hi"}]});
    let mut let_in = 0;
    for person in &at {
        eventually(async || {
            let asked = person.ask(Method::POST, "/v1/chat/completions").json(&body);
            let answer = asked.send().await.unwrap();
            // Until it has heard of the limit it says nothing of one.
            let knows = answer.headers().contains_key("x-ratelimit-limit-requests");
            let_in += usize::from(answer.status() == 200 && knows);
            (answer.status() == 429).then_some(())
        })
        .await;
    }
    // And one more for each ten seconds that this takes.
    assert!((1..=9).contains(&let_in), "{let_in}");

    // The balancer sends the question for a log anywhere; the answer is that of the server that was meant.
    let list = json(ada.get("/api/admin/replicas")).await;
    let replicas = list["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), SERVERS, "{list}");
    for replica in replicas {
        let path = format!("/api/admin/logs?q=ready&replica={}", replica["id"].as_str().unwrap());
        let lines = json(ada.get(&path)).await;
        let entries = lines["entries"].as_array().unwrap();
        assert!(!entries.is_empty() && entries.iter().all(|e| e["replica"] == replica["name"]));
        let path =
            format!("/api/admin/logs/stream?q=marked&replica={}", replica["id"].as_str().unwrap());
        let mut tail = ada.get(&path).send().await.unwrap();
        let address = replica["address"].as_str().unwrap();
        let marked =
            ada.at(address.to_owned()).get("/auth/me").header("x-request-id", "marked-line");
        marked.send().await.unwrap();
        until(&mut tail, &["marked-line".to_owned()]).await;
    }

    // A job that is due each second runs once for each, whoever takes it.
    let runs = eventually(async || {
        let history = json(ada.get("/api/admin/jobs/session-cleanup/history?limit=100")).await;
        let runs = history["runs"].as_array().unwrap().clone();
        (runs.len() > 5).then_some(runs)
    })
    .await;
    let slots: BTreeSet<&str> = runs.iter().map(|run| run["slot"].as_str().unwrap()).collect();
    assert_eq!(slots.len(), runs.len(), "{runs:?}");
    assert!(runs.iter().all(|run| run["status"] != "failed"), "{runs:?}");
}
