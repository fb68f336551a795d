//! Threads kept by clients that are local first: over a network that breaks, two machines and restarts.

use std::net::SocketAddr;

use loom_core::id::{ThreadId, new_uuid};
use loom_testkit::{
    TestApp,
    chaos::TcpProxy,
    sync::{Stopped, SyncClient},
};
use serde_json::Value;

fn ids(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["id"].as_str().unwrap()).collect()
}

fn of<'a>(name: &str, ids: &[&'a str]) -> Vec<&'a str> {
    ids.iter().copied().filter(|id| id.starts_with(name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_machines_say_over_a_broken_network_is_there_once_and_in_order() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let key = ann.caller.key.clone().unwrap();
    let address: SocketAddr = app.url().trim_start_matches("http://").parse().unwrap();
    let proxy = TcpProxy::start(address).unwrap();
    let broken = format!("http://{}", proxy.addr());
    let dir = tempfile::tempdir().unwrap();
    let thread = ThreadId(new_uuid(app.clock.now())).to_string();
    let mut laptop = SyncClient::open("laptop", &broken, &key, dir.path());
    let mut desk = SyncClient::open("desk", &app.url(), &key, dir.path());

    let mut said = (Vec::new(), Vec::new());
    let mut lost = 0;
    for round in 0..25 {
        for turn in 0..3 {
            said.0.push(laptop.say(&thread, &format!("{round}.{turn}")));
            said.1.push(desk.say(&thread, &format!("{round}.{turn}")));
        }
        desk.push().await.unwrap();
        // The connections are cut while it pushes: it cannot know what arrived.
        let (pushed, ()) = tokio::join!(laptop.push(), async {
            for _ in 0..round % 7 {
                tokio::task::yield_now().await;
            }
            if round % 3 == 0 {
                proxy.cut();
            }
        });
        lost += u32::from(matches!(pushed, Err(Stopped::Unreachable(_))));
        assert!(!matches!(pushed, Err(Stopped::Refused(..))), "{pushed:?}");
        if round % 5 == 0 {
            // It is switched off and on again.
            drop(laptop);
            laptop = SyncClient::open("laptop", &broken, &key, dir.path());
        }
    }
    laptop.moved_to(&app.url());
    laptop.push().await.unwrap();
    assert_eq!(laptop.waiting(), 0);
    laptop.pull(&thread).await.unwrap();
    desk.pull(&thread).await.unwrap();
    assert!(lost > 0, "the network never broke: this shows nothing");

    let stored = ann.caller.get(&format!("/api/threads/{thread}")).await.expect(200).json();
    let stored = stored["messages"].as_array().unwrap();
    let order = ids(stored);
    assert_eq!(of("laptop", &order), said.0);
    assert_eq!(of("desk", &order), said.1);
    for client in [&laptop, &desk] {
        assert_eq!(ids(&client.thread(&thread).unwrap().messages), order);
    }
    app.stop().await;
}

#[tokio::test]
async fn a_thread_begun_offline_is_created_renamed_and_deleted_in_order() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let key = ann.caller.key.clone().unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Nothing listens there.
    let mut laptop = SyncClient::open("laptop", "http://127.0.0.1:1", &key, dir.path());
    let thread = ThreadId(new_uuid(app.clock.now())).to_string();
    laptop.say(&thread, "hello");
    laptop.rename(&thread, "Greetings");
    laptop.say(&thread, "again");
    assert!(matches!(laptop.push().await, Err(Stopped::Unreachable(_))));
    assert_eq!(laptop.waiting(), 3);

    laptop.moved_to(&app.url());
    laptop.push().await.unwrap();
    let path = format!("/api/threads/{thread}");
    let stored = ann.caller.get(&path).await.expect(200).json();
    assert_eq!(stored["title"], "Greetings");
    assert_eq!(stored["messages"].as_array().unwrap().len(), 2);
    laptop.delete(&thread);
    laptop.push().await.unwrap();
    ann.caller.get(&path).await.expect(404);
    app.stop().await;
}
