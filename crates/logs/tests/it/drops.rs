//! Who logs never waits, whatever happens behind; what is lost leaves a hole.

use std::sync::mpsc::{channel, sync_channel};

use loom_core::Clock;
use loom_logs::{Buffer, Form, LogLayer};
use tracing_subscriber::layer::SubscriberExt;

use crate::world::World;

#[test]
fn lines_that_find_no_room_are_counted_and_leave_a_gap() {
    const LOGGED: u64 = 20_000;
    let world = World::new(Form::Json);
    let (waits, waiting) = sync_channel(1);
    let (release, released) = channel::<()>();
    let mut first = true;
    // Standard output that takes its first lines only when it is told to.
    let out = Box::new(move |_: &[u8]| {
        if std::mem::take(&mut first) {
            waits.send(()).unwrap();
            let _ = released.recv();
        }
    });
    let buffer: Buffer = world.buffer.clone();
    let (layer, flusher) = LogLayer::start(buffer, Clock::system(), Form::Json, out);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!("first");
        waiting.recv().unwrap();
        for _ in 0..LOGGED {
            tracing::info!("one of many");
        }
        release.send(()).unwrap();
        flusher.flush();
        tracing::info!("last");
        flusher.flush();
    });
    let first = world.read("?q=first")["entries"][0]["id"].as_str().unwrap().to_owned();
    let mut after = first;
    let (mut seen, mut missed) = (0, 0);
    loop {
        let read = world.read(&format!("?limit=1000&after_id={after}"));
        let entries = read["entries"].as_array().unwrap();
        seen += entries.len() as u64;
        missed += read["gap"]["missed"].as_u64().unwrap_or(0);
        after = read["last_id"].as_str().unwrap().to_owned();
        if entries.last().is_some_and(|entry| entry["message"] == "last") {
            break;
        }
    }
    assert!(missed > 5_000, "{missed}");
    assert_eq!(seen + missed, LOGGED + 1, "each line is there or counted");
}
