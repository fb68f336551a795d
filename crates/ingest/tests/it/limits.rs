//! Rate limits, as clients are told of them.

use std::time::Duration;

use loom_ingest::Config;

use crate::harness::{Bare, EVENT, LIMITED, one_event};

fn envelope(kinds: &[&str]) -> String {
    let items: String =
        kinds.iter().map(|kind| format!("{{\"type\":\"{kind}\"}}\n{{}}\n")).collect();
    format!("{{\"event_id\":\"{EVENT}\"}}\n{items}")
}

#[tokio::test]
async fn a_key_over_its_limit_is_told_for_how_long_and_of_what() {
    let bare = Bare::start().await;
    for _ in 0..2 {
        let reply = bare.envelope_of(LIMITED, one_event()).await.expect(200);
        assert_eq!(reply.header("x-sentry-rate-limits"), None);
    }
    bare.clock.advance(Duration::from_secs(15));
    let reply = bare.envelope_of(LIMITED, one_event()).await.refused(429);
    assert_eq!(reply.header("retry-after"), Some("45"));
    assert_eq!(reply.header("x-sentry-rate-limits"), Some("45:error:key:key_limit"));
    assert_eq!(bare.given().len(), 2);
    // Other categories go on, also beside it; its attachments go with it.
    let reply = bare.envelope_of(LIMITED, envelope(&["attachment", "event", "session"])).await;
    let reply = reply.expect(200);
    let limits = reply.header("x-sentry-rate-limits").unwrap();
    assert_eq!(limits, "45:error:key:key_limit, 45:attachment:key:key_limit");
    assert_eq!(bare.sinks(), ["session"]);
    // Other keys, too.
    bare.envelope(one_event()).await.expect(200);
    bare.clock.advance(Duration::from_secs(45));
    bare.envelope_of(LIMITED, one_event()).await.expect(200);
}

#[tokio::test]
async fn an_organisation_has_a_limit_and_check_ins_have_none() {
    let bare = Bare::with(Config { org_items_per_minute: 1, ..Config::default() }).await;
    bare.envelope(one_event()).await.expect(200);
    let reply = bare.envelope(one_event()).await.refused(429);
    let limits = reply.header("x-sentry-rate-limits");
    assert_eq!(limits, Some("60:error:organization:organization_limit"));
    for _ in 0..5 {
        bare.envelope(envelope(&["check_in"])).await.expect(200);
    }
    assert_eq!(bare.given().len(), 6);
}
