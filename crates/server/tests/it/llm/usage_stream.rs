//! Usage followed live: who hears of which requests, on whichever server, and how often.

use std::time::{Duration, Instant};

use futures::future::join_all;
use loom_core::principal::OrgRole;
use loom_testkit::{Caller, TestApp};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{GPT, Op, ask};
use crate::log_events::Events;

const PATH: &str = "/api/llm/usage/stream";

async fn watch(caller: &Caller) -> Events {
    let mut events = Events::at(caller, PATH, None).await;
    assert_eq!(next(&mut events).await, ("ready".to_owned(), json!({})));
    events
}

async fn next(events: &mut Events) -> (String, Value) {
    let event = events.next().await.expect("the stream goes on");
    (event.kind, event.data)
}

async fn hears(events: &mut Events) {
    assert_eq!(next(events).await, ("usage".to_owned(), json!({})));
}

async fn hear_nothing(all: impl Iterator<Item = &mut Events>) {
    let silent = all.map(|events| timeout(Duration::from_millis(1500), events.next()));
    for heard in join_all(silent).await {
        assert!(heard.is_err(), "{heard:?}");
    }
}

#[tokio::test]
async fn requests_are_heard_of_on_every_server_by_those_who_see_them() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let (ada, member) = (app.user("a@example.com").await, app.user("b@example.com").await);
    let stranger = app.user("c@example.com").await;
    let team =
        ada.post("/api/orgs", &json!({"slug": "team", "name": "Team"})).await.expect(201).json();
    let org = team["id"].as_str().unwrap();
    app.join(member.id, org.parse().unwrap(), OrgRole::Member).await;
    let (owner, here) = (ada.with("x-loom-org", org), member.with("x-loom-org", org));
    let new = json!({"name": "robot", "kind": "service", "scopes": ["llm:use"]});
    let made = owner.post(&format!("/api/orgs/{org}/api-keys"), &new).await.expect(201).json();
    let robot = app.anonymous().with_key(made["secret"].as_str().unwrap());

    let mut owners = [watch(&owner).await, watch(&owner.at(&replica)).await];
    let mut members = [watch(&here).await, watch(&here.at(&replica)).await];
    let mut robots = watch(&robot.at(&replica)).await;
    let mut strangers =
        [watch(&stranger).await, watch(&stranger.at(&replica)).await, watch(&ada).await];

    ask(&owner, Op::Chat, GPT).await.expect(200);
    for events in &mut owners {
        hears(events).await;
    }
    ask(&here.at(&replica), Op::Chat, GPT).await.expect(200);
    for events in owners.iter_mut().chain(&mut members) {
        hears(events).await;
    }
    // Of the owner's they heard nothing, nor of what is nobody's own.
    hear_nothing(members.iter_mut()).await;
    ask(&robot, Op::Messages, "mock-error-400").await.expect(400);
    for events in owners.iter_mut().chain([&mut robots]) {
        hears(events).await;
    }
    hear_nothing(strangers.iter_mut().chain(&mut members)).await;

    // Who sees other requests from now on begins anew.
    let role = format!("/api/orgs/{org}/members/{}", member.id);
    owner.patch(&role, &json!({"role": "admin"})).await.expect(204);
    ask(&here, Op::Chat, GPT).await.expect(200);
    let bye = ("bye".to_owned(), json!({"reason": "revoked"}));
    for events in &mut members {
        assert_eq!(next(events).await, bye);
    }
    let mut admins = watch(&here).await;
    ask(&owner, Op::Chat, GPT).await.expect(200);
    hears(&mut admins).await;
    app.stop().await;
}

#[tokio::test]
async fn a_watcher_hears_at_once_and_then_once_a_second_and_of_the_last() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let replica = app.replica().await;
    let there = user.at(&replica);
    let mut events = watch(&there).await;
    let working = async {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(3500) {
            ask(&user, Op::Chat, GPT).await.expect(200);
            ask(&there, Op::Chat, GPT).await.expect(200);
        }
        let usage = user.get("/api/llm/usage").await.expect(200).json();
        usage["total"]["requests"].as_i64().unwrap()
    };
    let hearing = async {
        let mut heard = Vec::new();
        let mut seen = 0;
        while let Ok(event) = timeout(Duration::from_millis(2500), events.next()).await {
            assert_eq!(event.unwrap().kind, "usage");
            heard.push(Instant::now());
            let usage = there.get("/api/llm/usage").await.expect(200).json();
            seen = usage["total"]["requests"].as_i64().unwrap();
        }
        (heard, seen)
    };
    let (asked, (heard, seen)) = tokio::join!(working, hearing);
    assert!(asked > 4 && seen >= asked, "{asked} were there, {seen} were seen at the last event");
    let pauses: Vec<_> = heard.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| *pause > Duration::from_millis(800)), "{pauses:?}");
    assert!(heard.len() >= 3, "{heard:?}");
    app.stop().await;
}
