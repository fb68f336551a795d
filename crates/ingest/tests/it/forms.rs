//! What is no envelope: single events, minidumps, attachments, check-ins by URL.

use base64::{Engine, engine::general_purpose::STANDARD};
use loom_ingest::Config;
use reqwest::{
    Method,
    multipart::{Form, Part},
};
use serde_json::json;

use crate::harness::{Bare, EVENT, KEY, encoded, reply};

#[tokio::test]
async fn a_single_event_comes_as_json_compressed_in_base64_or_in_a_url() {
    let bare = Bare::start().await;
    let event = json!({"event_id": EVENT, "message": "old"}).to_string();
    let zlib = STANDARD.encode(encoded("deflate", event.as_bytes()).await);
    let bodies = [event.clone(), format!(" {event}\n"), STANDARD.encode(&event), zlib.clone()];
    for body in bodies {
        let request = bare.request(Method::POST, &format!("/api/42/store/?sentry_key={KEY}"));
        let reply = reply(request.body(body.clone())).await.expect(200);
        assert_eq!(reply.json(), json!({"id": EVENT}), "{body}");
        assert_eq!(bare.given()[0].json()["message"], "old", "{body}");
    }
    for data in [event.clone(), zlib] {
        let data = percent_encoding::utf8_percent_encode(&data, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("/api/42/store/?sentry_key={KEY}&sentry_data={data}");
        let request = bare.request(Method::GET, &path);
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"image/gif".parse().unwrap())
        );
        assert!(response.bytes().await.unwrap().starts_with(b"GIF89a"));
        assert_eq!(bare.given()[0].json()["message"], "old");
    }
    let bomb = STANDARD.encode(encoded("deflate", &vec![b' '; 64 << 20]).await);
    for (body, status) in [
        ("[]".to_owned(), 400),
        (String::new(), 400),
        ("*** not base64 ***".to_owned(), 400),
        (bomb, 413),
        (format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20)), 413),
    ] {
        let request = bare.request(Method::POST, &format!("/api/42/store/?sentry_key={KEY}"));
        reply(request.body(body)).await.refused(status);
        assert!(bare.given().is_empty());
    }
}

#[tokio::test]
async fn a_minidump_is_kept_before_its_event_and_the_answer_is_the_id() {
    let bare = Bare::start().await;
    let dump = b"MDMP with a stack".to_vec();
    let path = format!("/api/42/minidump/?sentry_key={KEY}");
    for packed in [dump.clone(), encoded("gzip", &dump).await, encoded("zstd", &dump).await] {
        let form = Form::new()
            .text("sentry[release]", "game@1.0")
            .text("sentry", json!({"event_id": EVENT, "tags": {"gpu": "x"}}).to_string())
            .text("prod", "Game")
            .part("upload_file_minidump", Part::bytes(packed).file_name("crash.dmp"))
            .part("log", Part::text("line").file_name("game.log"));
        let reply = reply(bare.request(Method::POST, &path).multipart(form)).await.expect(200);
        assert_eq!(reply.text, "9ec79c33-ec99-42ab-8353-589fcb2e04dc");
        let given = bare.given();
        assert_eq!(given.len(), 3);
        let first = given[0].attachment.as_ref().unwrap();
        assert_eq!((&*first.kind, &*first.name), ("event.minidump", "crash.dmp"));
        assert_eq!(&*first.content, &*dump);
        assert!(given.iter().all(|given| given.id.unwrap().simple().to_string() == EVENT));
        let event = given.iter().find(|given| given.sink == "event").unwrap().json();
        assert_eq!((&event["release"], &event["tags"]["gpu"]), (&json!("game@1.0"), &json!("x")));
        assert_eq!((&event["extra"]["prod"], &event["level"]), (&json!("Game"), &json!("fatal")));
        let log = given.iter().filter_map(|given| given.attachment.as_ref());
        assert!(
            log.into_iter().any(|file| file.name == "game.log" && file.kind == "event.attachment")
        );
    }
    // The file alone.
    let reply_alone = reply(bare.request(Method::POST, &path).body(dump)).await.expect(200);
    assert_eq!(reply_alone.text.len(), 36);
    assert_eq!(bare.sinks(), ["attachment", "event"]);
    let no_dump = Form::new().part("other", Part::text("x").file_name("x"));
    reply(bare.request(Method::POST, &path).multipart(no_dump)).await.refused(400);
    reply(bare.request(Method::POST, &path).body("text")).await.refused(400);
    let broken =
        bare.request(Method::POST, &path).header("content-type", "multipart/form-data; boundary=x");
    reply(broken.body("--x\r\nno end")).await.refused(400);
    assert!(bare.given().is_empty());
}

#[tokio::test]
async fn a_file_larger_than_an_attachment_may_be_is_refused_also_when_it_was_small_on_the_way() {
    let bare = Bare::with(Config { attachment_bytes: 1 << 20, ..Config::default() }).await;
    let path = format!("/api/42/minidump/?sentry_key={KEY}");
    let mut large = b"MDMP".to_vec();
    large.resize(2 << 20, 0);
    for content in [encoded("gzip", &large).await, large.clone()] {
        let form = Form::new().part("upload_file_minidump", Part::bytes(content).file_name("d"));
        reply(bare.request(Method::POST, &path).multipart(form)).await.refused(413);
        assert!(bare.given().is_empty());
    }
    let path = format!("/api/42/events/{EVENT}/attachments/?sentry_key={KEY}");
    let form = Form::new().part("a", Part::bytes(large).file_name("a"));
    reply(bare.request(Method::POST, &path).multipart(form)).await.refused(413);
    assert!(bare.given().is_empty());
}

#[tokio::test]
async fn files_are_added_to_an_event_that_was_sent_before() {
    let bare = Bare::start().await;
    for id in [EVENT, "9ec79c33-ec99-42ab-8353-589fcb2e04dc"] {
        let path = format!("/api/42/events/{id}/attachments/?sentry_key={KEY}");
        let large = vec![7; 3 << 20];
        let form = Form::new()
            .part("a", Part::text("one").file_name("a.txt").mime_str("text/plain").unwrap())
            .part("b", Part::bytes(large.clone()).file_name("b.bin"));
        reply(bare.request(Method::POST, &path).multipart(form)).await.expect(201);
        let mut given = bare.given();
        given.sort_by_key(|given| given.content.len());
        assert_eq!(given.len(), 2);
        assert_eq!(given[0].attachment.as_ref().unwrap().name, "a.txt");
        assert_eq!(given[1].content, large);
        assert!(given.iter().all(|given| given.id.unwrap().simple().to_string() == EVENT));
    }
    let path = format!("/api/42/events/none/attachments/?sentry_key={KEY}");
    reply(bare.request(Method::POST, &path).multipart(Form::new())).await.refused(400);
    let path = format!("/api/42/events/{EVENT}/attachments/?sentry_key={KEY}");
    reply(bare.request(Method::POST, &path).multipart(Form::new())).await.refused(400);
}

#[tokio::test]
async fn a_script_checks_in_by_url_or_body() {
    let bare = Bare::start().await;
    let id = "11111111111111111111111111111111";
    let by_url = format!(
        "/api/42/cron/nightly/{KEY}/?status=in_progress&check_in_id={id}&environment=prod&duration=1.5"
    );
    for method in [Method::GET, Method::POST] {
        reply(bare.request(method, &by_url)).await.expect(202);
        let expected = json!({
            "monitor_slug": "nightly", "status": "in_progress", "check_in_id": id,
            "environment": "prod", "duration": 1.5,
        });
        assert_eq!(bare.given()[0].json(), expected);
    }
    // What the job printed is no check-in.
    let piped = bare.request(Method::POST, &format!("/api/42/cron/a%20b/{KEY}?status=error"));
    reply(piped.body("Traceback …")).await.expect(202);
    let check_in = bare.given()[0].json();
    assert_eq!((&check_in["monitor_slug"], &check_in["status"]), (&json!("a b"), &json!("error")));
    assert_eq!(check_in["check_in_id"], "0".repeat(32));
    let body = json!({"status": "ok", "monitor_slug": "other", "monitor_config": {"schedule": 1}});
    let request = bare.request(Method::POST, &format!("/api/42/cron/nightly/?sentry_key={KEY}"));
    reply(request.body(body.to_string())).await.expect(202);
    let check_in = bare.given()[0].json();
    assert_eq!(check_in["monitor_slug"], "nightly");
    assert_eq!(check_in["monitor_config"]["schedule"], 1);
    for bad in ["", "?duration=long&status=ok"] {
        reply(bare.request(Method::GET, &format!("/api/42/cron/nightly/{KEY}{bad}")))
            .await
            .refused(400);
    }
    reply(bare.request(Method::GET, "/api/42/cron/nightly/?status=ok")).await.refused(401);
    assert!(bare.given().is_empty());
    bare.overload("check_in");
    reply(bare.request(Method::GET, &by_url)).await.refused(503);
}
