//! What weavers say: kept once, masked, followed, bounded.

use futures::StreamExt;
use loom_testkit::{Caller, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{World, pod};

/// The events of a text: their name, their id, their data.
fn events(text: &str) -> Vec<(String, Option<i64>, Value)> {
    let blocks = text.split("\n\n").filter(|block| block.starts_with("event: "));
    let events = blocks.map(|block| {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let id = field("id: ").map(|id| id.parse().unwrap());
        let data = serde_json::from_str(field("data: ").unwrap()).unwrap();
        (field("event: ").unwrap().to_owned(), id, data)
    });
    events.collect()
}

fn lines(text: &str) -> Vec<String> {
    let lines = events(text).into_iter().filter(|(name, ..)| name == "line");
    lines.map(|(_, _, data)| data["text"].as_str().unwrap().to_owned()).collect()
}

async fn log(world: &World, id: &str, query: &str) -> String {
    world.user.get(&format!("/api/weaver/{id}/logs{query}")).await.expect(200).text
}

/// The log, once it has so many lines.
async fn log_of(world: &World, id: &str, count: usize) -> Vec<String> {
    eventually(async || {
        let lines = lines(&log(world, id, "?tail=1000").await);
        (lines.len() >= count).then_some(lines)
    })
    .await
}

struct Follower {
    text: String,
    stream: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
}

impl Follower {
    async fn start(caller: &Caller, id: &str, seen: Option<i64>) -> Self {
        let path = format!("/api/weaver/{id}/logs?follow=true&timestamps=true");
        let mut request = caller.request(Method::GET, &path);
        if let Some(seen) = seen {
            request = request.header("last-event-id", seen);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { text: String::new(), stream: answer.bytes_stream().boxed() }
    }

    /// Reads on until this is there.
    async fn until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            let piece =
                tokio::time::timeout(std::time::Duration::from_secs(30), self.stream.next());
            let piece = piece.await.expect("it goes on").expect("it is not over").unwrap();
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    async fn read_to_end(&mut self) {
        while let Some(piece) = self.stream.next().await {
            self.text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
    }
}

#[tokio::test]
async fn a_log_is_whole_and_readable_when_the_pod_is_gone() {
    let world = World::start().await;
    let id = world.weaver("fake/done").await;
    world.row_in(&id, "succeeded").await;
    world.is_gone(&id).await;
    let text = log(&world, &id, "?timestamps=true").await;
    assert_eq!(lines(&text), ["one", "two", "three"]);
    let events = events(&text);
    assert_eq!(events[0].1, Some(1));
    assert_eq!(events[0].2["container"], "weaver");
    assert!(events[0].2["at"].is_string());
    let (name, _, end) = events.last().unwrap();
    assert_eq!(name, "end");
    assert_eq!(
        (&end["status"], &end["exit_code"], &end["complete"]),
        (&json!("succeeded"), &json!(0), &json!(true))
    );
    assert_eq!(lines(&log(&world, &id, "?tail=1").await), ["three"]);
    assert!(lines(&log(&world, &id, "?tail=0").await).is_empty());
}

#[tokio::test]
async fn over_cut_streams_and_rotations_no_line_comes_twice() {
    let world = World::start().await;
    let id = world.weaver("fake/agent").await;
    world.row_in(&id, "running").await;
    let name = pod(&id);
    let mut wanted = Vec::new();
    // Within one second, so that each reading begins before lines that are known, of one moment two by two.
    let begin = chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    for round in 0..6_i64 {
        for number in 0..10 {
            let at = begin + chrono::TimeDelta::milliseconds(round * 100 + number / 2);
            let line = format!("{round}.{number}");
            world.cluster.say_at(&name, at, &line);
            wanted.push(line);
        }
        assert_eq!(log_of(&world, &id, wanted.len()).await, wanted);
        match round % 3 {
            0 => world.cluster.cut_logs(&name),
            1 => world.cluster.rotate(&name),
            _ => {
                // The cut is within a moment: the half of it that is known stays known.
                let at = begin + chrono::TimeDelta::milliseconds(round * 100 + 4);
                world.cluster.cut_logs(&name);
                world.cluster.say_at(&name, at, "late");
                wanted.push("late".to_owned());
            }
        }
    }
    world.cluster.exit(&name, 0);
    world.row_in(&id, "succeeded").await;
    assert_eq!(lines(&log(&world, &id, "?tail=1000").await), wanted);
}

#[tokio::test]
async fn another_server_goes_on_where_the_first_stopped() {
    let world = World::start().await;
    let id = world.weaver("fake/agent").await;
    world.row_in(&id, "running").await;
    world.cluster.say(&pod(&id), "first");
    log_of(&world, &id, 1).await;
    let second = world.app.replica().await;
    world.app.running.features.weavers.close().await;
    world.cluster.say(&pod(&id), "second");
    eventually(async || (world.cluster.followers(&pod(&id)) == 1).then_some(())).await;
    assert_eq!(log_of(&world, &id, 2).await, ["first", "second"]);
    let at_second = world.user.at(&second).get(&format!("/api/weaver/{id}/logs")).await.expect(200);
    assert_eq!(lines(&at_second.text), ["first", "second"]);
    second.shut_down().await;
}

#[tokio::test]
async fn secrets_are_masked_before_they_are_kept() {
    let world = World::start().await;
    let id = world.weaver("fake/agent").await;
    world.row_in(&id, "running").await;
    let key = loom_testkit::app::UPSTREAM_KEY;
    for line in [
        &format!("key is {key}"),
        "-----BEGIN PRIVATE KEY-----",
        "MIIEvQ",
        "-----END PRIVATE KEY-----",
        "x",
    ] {
        world.cluster.say(&pod(&id), line);
    }
    let lines = log_of(&world, &id, 5).await;
    assert!(lines[0].starts_with("key is [redacted:"), "{lines:?}");
    assert_eq!(lines[2], "[redacted:private_key]");
    assert_eq!(lines[4], "x");
    assert!(!lines.concat().contains("MIIEvQ"));
}

#[tokio::test]
async fn who_follows_sees_each_line_goes_on_after_a_break_and_is_told_the_end() {
    let world = World::start().await;
    let id = world.weaver("fake/agent").await;
    world.row_in(&id, "running").await;
    let mut follower = Follower::start(&world.user, &id, None).await;
    world.cluster.say(&pod(&id), "first");
    follower.until("first").await;
    world.cluster.say(&pod(&id), "second");
    follower.until("second").await;
    drop(follower);
    world.cluster.say(&pod(&id), "third");
    let mut again = Follower::start(&world.user, &id, Some(2)).await;
    again.until("third").await;
    world.cluster.exit(&pod(&id), 4);
    again.read_to_end().await;
    assert_eq!(lines(&again.text), ["third"]);
    let events = events(&again.text);
    assert_eq!(events[0].1, Some(3));
    let (name, _, end) = events.last().unwrap();
    assert_eq!((name.as_str(), &end["complete"]), ("end", &json!(true)));
}

#[tokio::test]
async fn of_a_long_log_the_beginning_and_the_newest_are_kept_and_the_gap_is_told() {
    let world = World::with(|setup| setup.set("LOOM_SERVER_WEAVER_LOG_MIB", "1")).await;
    let id = world.weaver("fake/agent").await;
    world.row_in(&id, "running").await;
    let long = "x".repeat(1000);
    for number in 1..=3000 {
        world.cluster.say(&pod(&id), &format!("{number} {long}"));
    }
    world.cluster.exit(&pod(&id), 0);
    world.row_in(&id, "succeeded").await;
    let text = world
        .user
        .with("last-event-id", "0")
        .get(&format!("/api/weaver/{id}/logs"))
        .await
        .expect(200)
        .text;
    let lines = lines(&text);
    assert!(lines[0].starts_with("1 x"), "{}", &lines[0][..20]);
    assert!(lines.last().unwrap().starts_with("3000 x"));
    let kept: usize = lines.iter().map(String::len).sum();
    assert!((900_000..=1_100_000).contains(&kept), "{kept}");
    let gaps: Vec<_> = events(&text).into_iter().filter(|(name, ..)| name == "gap").collect();
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].2["dropped"].as_u64().unwrap() + lines.len() as u64, 3000);
}

#[tokio::test]
async fn what_is_asked_for_is_bounded_and_whose_it_is_counts() {
    let world = World::start().await;
    let id = world.weaver("fake/says").await;
    log_of(&world, &id, 3).await;
    let path = format!("/api/weaver/{id}/logs");
    for bad in ["?tail=1000000000", "?tail=-1"] {
        assert_eq!(
            world.user.get(&format!("{path}{bad}")).await.expect(422).code(),
            "invalid_request"
        );
    }
    world.user.get(&format!("{path}?tail=many")).await.expect(400);
    world.user.with("last-event-id", "x").get(&path).await.expect(400);
    let ahead = world.user.with("last-event-id", "999999").get(&path).await.expect(200);
    assert!(lines(&ahead.text).is_empty());
    let stranger = world.app.user("else@example.com").await;
    assert_eq!(stranger.get(&path).await.expect(404).code(), "weaver_not_found");
    world.app.anonymous().get(&path).await.expect(401);
    let blind =
        world.app.with_scopes(&world.user, &[loom_core::principal::Scope::ThreadsRead]).await;
    blind.get(&path).await.expect(403);
}

#[tokio::test]
async fn what_a_weaver_says_is_a_sign_of_life() {
    let world = World::with(loom_testkit::Setup::manual_clock).await;
    let id = world.weaver("fake/agent").await;
    let before = world.row_in(&id, "running").await["active_at"].clone();
    world.app.clock.advance(std::time::Duration::from_secs(60));
    world.cluster.say(&pod(&id), "alive");
    world.row_when(&id, |row| row["active_at"] != before).await;
}
