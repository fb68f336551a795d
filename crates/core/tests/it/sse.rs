//! Server-sent events: the headers and what follows them.

use axum::response::sse::Event;
use futures::stream;
use loom_core::sse::{self, Places, Seats};

#[tokio::test]
async fn a_stream_is_kept_by_nobody_and_passes_as_it_comes() {
    let events = [4, 5].map(|n: i32| Event::default().id(n.to_string()).data("x"));
    let response = sse::response(stream::iter(events));
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
    assert_eq!(String::from_utf8(body.to_vec()).unwrap(), "id: 4\ndata: x\n\nid: 5\ndata: x\n\n");
}

#[test]
fn seats_are_bounded_for_each_and_for_all_and_given_back() {
    let seats = Seats::new(Places {
        streams: "streams of tests",
        gauge: "test_watchers",
        most: 3,
        most_of_one: 2,
        instead: ", or do not",
    });
    let code = |who: &str| match seats.sit(who.to_owned()) {
        Ok(_) => panic!("there is none"),
        Err(error) => (error.status().as_u16(), error.to_string()),
    };
    let ann = [seats.sit("ann".to_owned()).unwrap(), seats.sit("ann".to_owned()).unwrap()];
    let (status, text) = code("ann");
    assert_eq!(status, 429);
    assert!(text.contains("2 streams of tests") && text.contains(", or do not"), "{text}");
    let bob = seats.sit("bob".to_owned()).unwrap();
    assert_eq!(code("cleo").0, 429);
    assert_eq!(*seats.count().borrow(), 3);
    drop((ann, bob));
    assert_eq!(*seats.count().borrow(), 0);
    drop(seats.sit("cleo".to_owned()).unwrap());
}
