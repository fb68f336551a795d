//! Many writers at once.

use futures::future::join_all;
use http::StatusCode;
use serde_json::json;

use crate::harness::{App, message, thread};

#[tokio::test(flavor = "multi_thread")]
async fn many_appenders_lose_nothing_and_double_nothing() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&[])).await;
    let appenders = (0..16).map(async |appender| {
        for turn in 0..10 {
            let append = json!({
                "messages": [message(&format!("{appender}-{turn}-q")), message(&format!("{appender}-{turn}-a"))],
            });
            // Each sends everything twice, half of them at the same time.
            if appender % 2 == 0 {
                let (one, two) = futures::join!(ann.append(&id, &append).into_future(), ann.append(&id, &append).into_future());
                assert_eq!(one.expect(StatusCode::OK).places(), two.expect(StatusCode::OK).places());
            } else {
                ann.append(&id, &append).await.expect(StatusCode::OK);
                ann.append(&id, &append).await.expect(StatusCode::OK);
            }
        }
    });
    join_all(appenders).await;
    let read = ann.read(&id).await;
    let places = read.places();
    let seqs: Vec<i64> = places.iter().map(|(_, seq)| *seq).collect();
    assert_eq!(seqs, (1..=320).collect::<Vec<i64>>());
    let mut ids: Vec<&String> = places.iter().map(|(id, _)| id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 320);
    assert_eq!(read.version(), 161);
    assert_eq!(read.body["message_count"], 320);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_replace_the_same_version_one_is_refused() {
    let app = App::start().await;
    let ann = app.somebody().await;
    for _ in 0..10 {
        let id = ann.creates(&thread(&["a"])).await;
        let (one, two) = (thread(&["a", "one"]), thread(&["a", "two"]));
        let (one, two) = futures::join!(
            ann.put(&id, &one).if_match("\"1\"").into_future(),
            ann.put(&id, &two).if_match("\"1\"").into_future(),
        );
        let mut statuses = [one.status, two.status];
        statuses.sort();
        assert_eq!(statuses, [StatusCode::OK, StatusCode::CONFLICT]);
        let read = ann.read(&id).await;
        assert_eq!(read.version(), 2);
        let won = if one.status == StatusCode::OK { "one" } else { "two" };
        assert_eq!(read.places()[1].0, won);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_create_the_same_thread_one_does() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = app.new_thread_id();
    let bodies: Vec<_> = (0..8).map(|n| thread(&[&format!("m{n}")])).collect();
    let answers = join_all(bodies.iter().map(|body| ann.put(&id, body).into_future())).await;
    let created = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    let refused =
        answers.iter().filter(|answer| answer.status == StatusCode::PRECONDITION_REQUIRED);
    let told: Vec<_> = answers.iter().map(|answer| (answer.status, &answer.body)).collect();
    assert_eq!((created, refused.count()), (1, 7), "{told:?}");
    assert_eq!(ann.read(&id).await.places().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_while_others_write_sees_one_version() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["m0"])).await;
    let write = async {
        for turn in 1..40 {
            ann.append(&id, &thread(&[&format!("m{turn}")])).await.expect(StatusCode::OK);
        }
    };
    let read = async {
        for _ in 0..40 {
            let read = ann.read(&id).await.expect(StatusCode::OK);
            assert_eq!(read.body["last_seq"], read.places().last().unwrap().1);
        }
    };
    futures::join!(write, read);
}
