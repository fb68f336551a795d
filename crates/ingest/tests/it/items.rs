//! Items of envelopes: each to its sink, none at its neighbours' cost.

use loom_core::{Error, port::Taken};
use serde_json::json;

use crate::harness::{Bare, EVENT, one_event};

fn item(kind: &str, payload: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"length\":{}}}\n{payload}\n", payload.len())
}

fn envelope(items: &[String]) -> String {
    format!("{{\"event_id\":\"{EVENT}\"}}\n{}", items.concat())
}

#[tokio::test]
async fn each_kind_goes_to_its_sink_and_the_rest_is_taken_and_dropped() {
    let bare = Bare::start().await;
    let kinds = [
        "event",
        "session",
        "sessions",
        "check_in",
        "user_report",
        "feedback",
        "attachment",
        "raw_security",
    ];
    let report = "{\"csp-report\":{\"effective-directive\":\"img-src\"}}";
    let payload = |kind: &str| if kind == "raw_security" { report } else { "{}" };
    let items: Vec<_> = kinds.iter().map(|kind| item(kind, payload(kind))).collect();
    bare.envelope(envelope(&items)).await.expect(200);
    let expected =
        ["attachment", "check_in", "event", "event", "feedback", "feedback", "session", "sessions"];
    assert_eq!(bare.sinks(), expected);
    let dropped = [
        "transaction",
        "span",
        "log",
        "trace_metric",
        "profile",
        "profile_chunk",
        "replay_event",
        "replay_recording",
        "statsd",
        "metric_buckets",
        "from_the_future",
    ];
    for kind in dropped {
        let reply = bare.envelope(envelope(&[item(kind, "anything")])).await.expect(200);
        assert_eq!(reply.header("x-sentry-error"), None, "{kind}");
        assert!(bare.given().is_empty(), "{kind}");
    }
    let reply = bare.envelope("{}").await.expect(200);
    assert_eq!(reply.json(), json!({}));
}

#[tokio::test]
async fn each_report_that_a_browser_gathered_becomes_an_event() {
    let bare = Bare::start().await;
    let one = |directive: &str| json!({"type": "csp-violation", "body": {"effectiveDirective": directive}});
    let gathered = json!([one("img-src"), one("style-src"), one("font-src")]).to_string();
    bare.envelope(envelope(&[item("raw_security", &gathered)])).await.expect(200);
    let given = bare.given();
    assert_eq!(given.len(), 3);
    let mut ids: Vec<_> = given.iter().map(|given| given.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3, "each has an id of its own");
}

#[tokio::test]
async fn the_id_of_the_envelope_wins_and_every_form_of_an_id_is_read() {
    let bare = Bare::start().await;
    let dashed = "9ec79c33-ec99-42ab-8353-589fcb2e04dc";
    let other = "11111111111111111111111111111111";
    for (header, payload, expected) in [
        (Some(EVENT), other, EVENT),
        (Some(dashed), other, EVENT),
        (None, EVENT, EVENT),
        (None, dashed, EVENT),
        (Some("00000000000000000000000000000000"), EVENT, EVENT),
        (Some("nonsense"), EVENT, EVENT),
    ] {
        let header = header.map_or_else(|| json!({}), |id| json!({"event_id": id}));
        let body = format!("{header}\n{{\"type\":\"event\"}}\n{{\"event_id\":\"{payload}\"}}");
        let reply = bare.envelope(body).await.expect(200);
        assert_eq!(reply.json()["id"], expected, "{header}");
        assert_eq!(bare.given()[0].id.unwrap().simple().to_string(), expected, "{header}");
    }
    let reply = bare.envelope("{}\n{\"type\":\"event\"}\n{}").await.expect(200);
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(bare.given()[0].id.unwrap().simple().to_string(), id);
}

#[tokio::test]
async fn a_bad_item_costs_no_other_and_alone_it_is_refused() {
    let bare = Bare::start().await;
    let large =
        |kind: &str, bytes: usize| item(kind, &format!("{{\"a\":\"{}\"}}", "x".repeat(bytes)));
    let cases = [
        ("no header\nno payload\n".to_owned(), 400),
        ("{\"length\":2}\n{}\n".to_owned(), 400),
        (item("event", "no object"), 400),
        (item("event", "[]"), 400),
        (item("raw_security", "{}"), 400),
        (item("client_report", "no object"), 400),
        (large("event", 1 << 20), 413),
        (large("feedback", 1 << 20), 413),
        (large("check_in", 100 << 10), 413),
        (large("session", 100 << 10), 413),
        (large("client_report", 4 << 10), 413),
    ];
    for (bad, status) in cases {
        let shown: String = bad.chars().take(60).collect();
        bare.envelope(format!("{{}}\n{bad}")).await.refused(status);
        assert!(bare.given().is_empty(), "{shown}");
        let among = envelope(&[item("session", "{}"), bad, item("check_in", "{}")]);
        let reply = bare.envelope(among).await.expect(200);
        assert!(reply.header("x-sentry-error").is_some(), "{shown}");
        assert_eq!(bare.sinks(), ["check_in", "session"], "{shown}");
    }
    // Nobody can tell what stands behind a wrong length; what stands before it is taken.
    let short =
        envelope(&[item("session", "{}"), "{\"type\":\"event\",\"length\":99}\n{}".to_owned()]);
    bare.envelope(short).await.expect(200);
    assert_eq!(bare.sinks(), ["session"]);
}

#[tokio::test]
async fn an_envelope_holds_so_many_items_and_no_more() {
    let bare = Bare::start().await;
    let reply = bare.envelope(envelope(&vec![item("session", "{}"); 120])).await.expect(200);
    assert!(reply.header("x-sentry-error").unwrap().contains("100"), "{reply:?}");
    assert_eq!(bare.given().len(), 100);
    let many = envelope(&[vec![item("log", "{}"); 1000], vec![item("event", "{}")]].concat());
    bare.envelope(many).await.expect(200);
    assert!(bare.given().is_empty());
}

#[tokio::test]
async fn attachments_belong_to_the_event_wherever_they_stand_and_a_minidump_goes_before_it() {
    let bare = Bare::start().await;
    let file = "{\"type\":\"attachment\",\"length\":5,\"filename\":\"a.txt\",\"content_type\":\"text/plain\"}\na\nb\nc\n";
    let body = format!("{{}}\n{file}{}", item("event", &format!("{{\"event_id\":\"{EVENT}\"}}")));
    bare.envelope(body).await.expect(200);
    let given = bare.given();
    let file = given.iter().find_map(|given| given.attachment.clone()).unwrap();
    assert_eq!(file.event.0.simple().to_string(), EVENT);
    assert_eq!((&*file.name, file.content_type.as_deref()), ("a.txt", Some("text/plain")));
    assert_eq!((&*file.kind, &*file.content), ("event.attachment", &b"a\nb\nc"[..]));

    let dump =
        "{\"type\":\"attachment\",\"length\":4,\"attachment_type\":\"event.minidump\"}\nMDMP\n";
    bare.envelope(envelope(&[item("event", "{\"message\":\"m\"}"), dump.to_owned()]))
        .await
        .expect(200);
    let given = bare.given();
    assert_eq!(given.iter().map(|given| given.sink).collect::<Vec<_>>(), ["attachment", "event"]);
    // By itself it makes the event.
    bare.envelope(envelope(&[dump.to_owned()])).await.expect(200);
    let given = bare.given();
    assert_eq!(given.iter().map(|given| given.sink).collect::<Vec<_>>(), ["attachment", "event"]);
    assert_eq!(given[1].json()["platform"], "native");
    // Without any event there is nothing for it to belong to.
    bare.envelope(format!("{{}}\n{}", item("attachment", "x"))).await.refused(400);
    assert!(bare.given().is_empty());
}

#[tokio::test]
async fn when_a_sink_has_no_room_the_client_is_to_come_back_and_what_it_rejects_is_told() {
    let bare = Bare::start().await;
    let body = envelope(&[item("event", "{}"), item("session", "{}")]);
    bare.overload("event");
    let reply = bare.envelope(body.clone()).await.refused(503);
    assert_eq!(reply.header("retry-after"), Some("5"));
    assert_eq!(reply.header("x-sentry-rate-limits"), None);
    assert_eq!(bare.sinks(), ["session"]);
    bare.refuse("event", Err(Error::internal("secret inside")));
    let reply = bare.envelope(one_event()).await.refused(500);
    assert!(!reply.text.contains("secret"), "{reply:?}");
    bare.refuse("event", Ok(Taken::Rejected("the event is too deep".to_owned())));
    let reply = bare.envelope(one_event()).await.refused(400);
    assert_eq!(reply.json()["detail"], "the event is too deep");
    let reply = bare.envelope(body).await.expect(200);
    assert_eq!(reply.header("x-sentry-error"), Some("the event is too deep"));
}
