//! Who is let in, by which route.

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;

use crate::harness::{Bare, DISABLED, EVENT, KEY, one_event, reply};

#[tokio::test]
async fn every_way_to_show_a_key_gets_in() {
    let bare = Bare::start().await;
    let sentry = format!("Sentry sentry_key={KEY}, sentry_version=7, sentry_client=test/1.0");
    let basic = format!("Basic {}", STANDARD.encode(format!("{KEY}:")));
    let headers: [(&str, String); 4] = [
        ("x-sentry-auth", sentry.clone()),
        ("authorization", sentry),
        ("authorization", basic),
        ("x-sentry-auth", format!("Sentry sentry_key={}", KEY.to_uppercase())),
    ];
    for (name, value) in headers {
        let request = bare.request(Method::POST, "/api/42/envelope/").header(name, &value);
        reply(request.body(one_event())).await.expect(200);
        assert_eq!(bare.sinks(), ["event"], "{name}: {value}");
    }
    bare.envelope(one_event()).await.expect(200);
    assert_eq!(bare.sinks(), ["event"]);
    let by_dsn =
        one_event().replacen('{', &format!("{{\"dsn\":\"https://{KEY}@any.where/42\","), 1);
    for path in ["/api/42/envelope", "/api/tunnel/", "/api/tunnel"] {
        let request = bare.request(Method::POST, path).body(by_dsn.clone());
        reply(request).await.expect(200);
        assert_eq!(bare.sinks(), ["event"], "{path}");
    }
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    let bare = Bare::start().await;
    let unknown = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";
    let dsn = |key: &str, project: &str| {
        one_event().replacen('{', &format!("{{\"dsn\":\"https://{key}@h/{project}\","), 1)
    };
    let cases = [
        ("/api/42/envelope/".to_owned(), one_event(), 401),
        ("/api/tunnel/".to_owned(), one_event(), 401),
        // A key in a header is not enough there: the dsn says which project.
        (format!("/api/tunnel/?sentry_key={KEY}"), one_event(), 401),
        ("/api/42/envelope/?sentry_key=short".to_owned(), one_event(), 400),
        (format!("/api/42/envelope/?sentry_key={unknown}"), one_event(), 403),
        (format!("/api/42/envelope/?sentry_key={DISABLED}"), one_event(), 403),
        (format!("/api/43/envelope/?sentry_key={KEY}"), one_event(), 403),
        (format!("/api/99999999999999999999/envelope/?sentry_key={KEY}"), one_event(), 400),
        (format!("/api/42/envelope/?sentry_key={KEY}"), dsn(unknown, "42"), 400),
        (format!("/api/42/envelope/?sentry_key={KEY}"), dsn(KEY, "43"), 400),
        ("/api/tunnel/".to_owned(), dsn(KEY, "43"), 403),
        ("/api/tunnel/".to_owned(), dsn(unknown, "42"), 403),
        ("/api/tunnel/".to_owned(), one_event().replacen('{', "{\"dsn\":\"nonsense\",", 1), 400),
        (format!("/api/42/envelope/?sentry_key={KEY}"), String::new(), 400),
        (format!("/api/42/envelope/?sentry_key={KEY}"), "not an envelope".to_owned(), 400),
    ];
    for (path, body, status) in cases {
        let reply = reply(bare.request(Method::POST, &path).body(body.clone())).await;
        assert_eq!(reply.status, status, "{path} {body}: {reply:?}");
        reply.refused(status);
        assert!(bare.given().is_empty(), "{path} {body}");
    }
    // Two that differ.
    let request = bare.request(Method::POST, &format!("/api/42/envelope/?sentry_key={KEY}"));
    let request = request.header("x-sentry-auth", format!("Sentry sentry_key={unknown}"));
    reply(request.body(one_event())).await.refused(401);
}

#[tokio::test]
async fn routes_are_there_with_and_without_a_slash_and_words_are_not_projects() {
    let bare = Bare::start().await;
    let key = format!("?sentry_key={KEY}");
    let routes = [
        ("envelope", one_event(), 200),
        ("store", "{}".to_owned(), 200),
        ("minidump", "MDMP and so on".to_owned(), 200),
        ("security", "{\"csp-report\":{\"effective-directive\":\"img-src\"}}".to_owned(), 201),
        ("cron/nightly", "{\"status\":\"ok\"}".to_owned(), 202),
        (&format!("cron/nightly/{KEY}"), "{\"status\":\"ok\"}".to_owned(), 202),
    ];
    for (route, body, status) in routes {
        for slash in ["", "/"] {
            let path = format!("/api/42/{route}{slash}{key}");
            reply(bare.request(Method::POST, &path).body(body.clone())).await.expect(status);
            assert!(!bare.given().is_empty(), "{path}");
            let wrong = reply(bare.request(Method::DELETE, &path)).await.refused(405);
            assert!(wrong.header("allow").unwrap().contains("POST"));
            for word in ["threads", "0", "00", "42a", "-1"] {
                let path = format!("/api/{word}/{route}{slash}{key}");
                for method in [Method::POST, Method::OPTIONS, Method::GET] {
                    let request = bare.request(method, &path).body(body.clone());
                    let reply = reply(request).await.expect(404);
                    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
                    assert_eq!(reply.header("x-sentry-error"), None);
                }
            }
        }
    }
    let legacy = bare.request(Method::POST, &format!("/api/store/{key}"));
    reply(legacy.body(format!("{{\"event_id\":\"{EVENT}\"}}"))).await.expect(200);
}

#[tokio::test]
async fn what_is_known_of_the_sender_goes_with_the_item() {
    let bare = Bare::start().await;
    let body = one_event().replacen(
        '{',
        "{\"sent_at\":\"2027-01-15T07:00:00Z\",\"sdk\":{\"name\":\"sentry.test\",\"version\":\"3.1\"},",
        1,
    );
    let request = bare.request(Method::POST, &format!("/api/42/envelope/?sentry_key={KEY}"));
    reply(request.header("user-agent", "agent/7").body(body)).await.expect(200);
    let given = bare.given();
    let delivery = &given[0].delivery;
    assert_eq!(delivery.project.number, 42);
    assert_eq!(delivery.key.unwrap().0.simple().to_string(), KEY);
    assert_eq!(delivery.sdk.as_deref(), Some("sentry.test/3.1"));
    assert_eq!(delivery.user_agent.as_deref(), Some("agent/7"));
    assert_eq!(delivery.received_at, bare.now());
    // Its clock is an hour behind, to the second: no drift. Two hours are.
    let sent = delivery.sent_at.unwrap();
    assert_eq!((bare.now() - sent).num_minutes(), 60);
    let behind = chrono::TimeDelta::hours(2);
    let text = (bare.now() - behind).to_rfc3339();
    let body = one_event().replacen('{', &format!("{{\"sent_at\":\"{text}\","), 1);
    bare.envelope(body).await.expect(200);
    let delivery = &bare.given()[0].delivery;
    assert_eq!(delivery.by_our_clock(bare.now() - behind), bare.now());
    // The clock of those who send no envelope is in what they show.
    let secs = bare.now().timestamp() - 7200;
    let auth = format!("Sentry sentry_key={KEY}, sentry_client=old/0.1, sentry_timestamp={secs}");
    let request = bare.request(Method::POST, "/api/42/store/").header("x-sentry-auth", auth);
    reply(request.body("{}")).await.expect(200);
    let delivery = &bare.given()[0].delivery;
    assert_eq!(delivery.sent_at.unwrap().timestamp(), secs);
    assert_eq!(delivery.sdk.as_deref(), Some("old/0.1"));
}
