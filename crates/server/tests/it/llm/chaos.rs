//! The server is killed, ended and cut off from its database under load; afterwards it is counted what
//! was acknowledged and is not there. `LOOM_CHAOS=long` plays more rounds.

use std::time::{Duration, Instant};

use loom_testkit::{TestDatabase, eventually};

use super::rig::{Load, Rig, WORKERS};

/// What was answered earlier than this before a SIGKILL is in the account. A row waits 20 ms for company,
/// and for the batch in flight before it, which is written within 50 ms on a machine with nothing else to
/// do; here 200 clients, the mock, PostgreSQL and an unoptimised server share it, hence the double.
const MAY_BE_LOST: Duration = Duration::from_millis(100);

#[expect(clippy::disallowed_methods, reason = "the settings of the test run, not of the server")]
fn rounds() -> usize {
    if std::env::var("LOOM_CHAOS").is_ok_and(|form| form == "long") { 20 } else { 1 }
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_nothing_acknowledged_is_lost_when_the_server_is_killed_under_load() {
    let rig = Rig::new(TestDatabase::new().await).await;
    for _ in 0..rounds() {
        let mut server = rig.start().await;
        let load = Load::start(&rig, WORKERS).await;
        load.reach(1_000).await;
        let killed = Instant::now();
        server.kill9().await.unwrap();
        load.end().await;

        let mut server = rig.start().await;
        let messages = load.compare_messages(&rig).await;
        assert!(messages.is_exact(), "{messages:?}");
        let rows = rig.accounted().await;
        let (lost, asked) = load.unaccounted(&rows, killed - MAY_BE_LOST);
        println!(
            "killed after {} appends and {asked} requests to models; of those that ended within the \
             last {MAY_BE_LOST:?}, {} are not in the account",
            load.appended.len(),
            load.unaccounted(&rows, killed).0.len() - lost.len()
        );
        assert!(lost.is_empty(), "{} of {asked}: {lost:?}", lost.len());
        load.each_is_accounted_once(&rows);
        assert!(server.terminate(Duration::from_secs(40)).await.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_nothing_is_lost_and_streams_end_whole_when_the_server_is_told_to_end() {
    let rig = Rig::new(TestDatabase::new().await).await;
    for _ in 0..rounds() {
        let mut server = rig.start().await;
        let load = Load::start(&rig, WORKERS).await;
        load.reach(600).await;
        // Each goes on for at least two seconds.
        let streams = futures::future::join_all((0..20).map(|n| load.long_stream(n))).await;
        let ending = tokio::spawn(async move {
            let status = server.terminate(Duration::from_secs(60)).await;
            (status, server.log())
        });
        let streams = futures::future::join_all(streams).await;
        let (status, log) = ending.await.unwrap();
        assert!(status.unwrap().success(), "{log}");
        load.end().await;

        for text in streams.into_iter().map(Result::unwrap) {
            assert!(text.contains("tick50") && text.ends_with("data: [DONE]\n\n"), "{text}");
        }
        let messages = load.compare_messages(&rig).await;
        assert!(messages.is_exact(), "{messages:?}");
        let rows = rig.accounted().await;
        let (lost, asked) = load.unaccounted(&rows, Instant::now());
        println!("ended after {} appends and {asked} requests to models", load.appended.len());
        assert!(lost.is_empty(), "{} of {asked}: {lost:?}\n{log}", lost.len());
        load.each_is_accounted_once(&rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_the_server_goes_on_by_itself_after_its_database_was_out_of_reach() {
    let database = TestDatabase::new().await;
    let (proxy, url) = database.proxied().await;
    let rig = Rig::behind(database, &url).await;
    let mut server = rig.start().await;
    let load = Load::start(&rig, WORKERS).await;
    // The server waits up to five seconds for a connection: the longest rounds.
    for _ in 0..rounds().div_ceil(3) {
        let before = load.appended.len();
        load.reach(before + 400).await;
        proxy.refuse().await;
        let failures = load.failures();
        proxy.cut();
        eventually(async || (load.failures() >= failures + 20).then_some(())).await;
        proxy.resume().unwrap();
        // Connections are cut also while new ones are to be had.
        let before = load.appended.len();
        load.reach(before + 200).await;
        proxy.cut();
        let before = load.appended.len();
        load.reach(before + 400).await;
    }
    load.end().await;
    let messages = load.compare_messages(&rig).await;
    assert!(messages.is_exact(), "{messages:?}");
    assert!(load.failures() > 0);
    assert!(server.terminate(Duration::from_secs(60)).await.unwrap().success());
    let rows = rig.accounted().await;
    let (lost, asked) = load.unaccounted(&rows, Instant::now());
    println!(
        "{} appends, {asked} requests to models, {} failures told to the clients",
        load.appended.len(),
        load.failures()
    );
    assert!(lost.is_empty(), "{} of {asked}: {lost:?}\n{}", lost.len(), server.log());
    load.each_is_accounted_once(&rows);
}
