//! The log as admins see it: lines, the stream of them, and who may look.

use loom_core::principal::Scope;
use loom_testkit::{Setup, TestApp, User, eventually};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

use crate::log_events::Events;

const LOGS: &str = "/api/admin/logs";
/// Small, so that it turns over.
const SMALL: usize = 64 << 10;

async fn start(setup: Setup) -> (TestApp, User) {
    let app = setup.logs().start().await;
    let admin = app.admin("ada@example.com").await;
    (app, admin)
}

/// The lines of a query, as soon as there are so many.
async fn lines(admin: &User, query: &str, count: usize) -> Vec<Value> {
    eventually(async || {
        let answer = admin.get(&format!("{LOGS}{query}")).await.expect(200).json();
        let entries = answer["entries"].as_array().unwrap().clone();
        (entries.len() >= count).then_some(entries)
    })
    .await
}

fn messages(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["message"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn lines_are_found_by_level_target_text_and_request() {
    let (_app, admin) = start(Setup::default()).await;
    tracing::info!(target: "loom_one", colour = "Blue \"sky\"", count = 3, "the first");
    tracing::warn!(target: "loom_one::inner", request_id = "r-1", "the second");
    {
        let span = tracing::info_span!(target: "loom_two", "outer", request_id = "r-2", weight = 7);
        let _outer = span.enter();
        let _inner = tracing::info_span!(target: "loom_two", "inner").entered();
        tracing::error!(target: "loom_two", yes = true, "the third");
    }
    let all = lines(&admin, "?target=loom_one", 2).await;
    assert_eq!(messages(&all), ["the first", "the second"]);
    assert_eq!(all[0]["level"], "info");
    assert_eq!(all[0]["fields"], json!({"colour": "Blue \"sky\"", "count": 3}));
    assert_eq!((&all[0]["span"], &all[0]["request_id"]), (&Value::Null, &Value::Null));
    let third = &lines(&admin, "?request_id=r-2", 1).await[0];
    assert_eq!(third["fields"], json!({"yes": true, "weight": 7}));
    assert_eq!((&third["span"], &third["target"]), (&"outer:inner".into(), &"loom_two".into()));
    assert!(third["replica"].as_str().unwrap().ends_with(&std::process::id().to_string()));
    for (query, wanted) in [
        ("?level=warn&target=loom_", vec!["the second", "the third"]),
        ("?level=error&target=loom_", vec!["the third"]),
        ("?target=loom_one::", vec!["the second"]),
        ("?q=THE%20FIRST", vec!["the first"]),
        ("?q=blue%20%22SKY", vec!["the first"]),
        ("?q=colour&target=loom_one", vec!["the first"]),
        ("?request_id=r-1", vec!["the second"]),
        ("?q=R-1", vec!["the second"]),
        ("?request_id=r-", vec![]),
        ("?q=the%20&target=loom_&limit=2", vec!["the second", "the third"]),
    ] {
        let found = admin.get(&format!("{LOGS}{query}")).await.expect(200).json();
        let found = found["entries"].as_array().unwrap().clone();
        let of_ours: Vec<_> =
            messages(&found).into_iter().filter(|text| text.starts_with("the ")).collect();
        assert_eq!(of_ours, wanted, "{query}");
    }
    let first = admin.get(&format!("{LOGS}?q=the%20first")).await.json();
    let id = first["entries"][0]["id"].as_str().unwrap().to_owned();
    let behind = admin.get(&format!("{LOGS}?after_id={id}&limit=1")).await.expect(200).json();
    assert_eq!(behind["entries"][0]["message"], "the second");
    assert_eq!((&behind["last_id"], &behind["gap"]), (&behind["entries"][0]["id"], &Value::Null));
    assert!(behind["buffer_size"].as_u64() > Some(100));
    assert_eq!(behind["buffer_capacity"], 16 << 20);
}

#[tokio::test]
async fn what_is_asked_wrongly_is_told() {
    let (_app, admin) = start(Setup::default()).await;
    let long = "x".repeat(300);
    for (query, path) in [
        ("level=loud".to_owned(), "level"),
        ("limit=0".to_owned(), "limit"),
        ("limit=1001".to_owned(), "limit"),
        ("after_id=7".to_owned(), "after_id"),
        ("after_id=zzzzzzzz-7".to_owned(), "after_id"),
        (format!("q={long}"), "q"),
        (format!("target={long}"), "target"),
    ] {
        for path_of in [LOGS, "/api/admin/logs/stream"] {
            let answer = admin.get(&format!("{path_of}?{query}")).await.expect(422);
            assert_eq!(answer.json()["errors"][0]["path"], path, "{query}");
        }
    }
    let caller = admin.with("last-event-id", "7");
    caller.get("/api/admin/logs/stream").await.expect(422);
    admin.get(&format!("{LOGS}?replica=nobody")).await.expect(404);
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_and_says_nothing_of_itself() {
    let (_app, admin) = start(Setup::default()).await;
    let mut events = Events::open(&admin, "?target=loom_", None).await;
    for index in 0..50 {
        tracing::info!(target: "loom_test", index, "line");
        // Were they seen, each would bring the next.
        admin.get(LOGS).await.expect(200);
    }
    tracing::info!(target: "loom_test", "half");
    let seen = events.upto("half").await;
    assert!(seen.iter().all(|event| event.kind.is_empty() && event.id == event.data["id"]));
    for event in &seen {
        assert!(!event.data["fields"].to_string().contains("/api/admin/logs"), "{event:?}");
    }
    drop(events);
    for index in 50..100 {
        tracing::info!(target: "loom_test", index, "line");
    }
    tracing::info!(target: "loom_test", "end");
    let half = seen.last().unwrap().id.clone();
    let mut events = Events::open(&admin, "?target=loom_test", Some(&half)).await;
    let more = events.upto("end").await;
    let indexes: Vec<_> = seen
        .iter()
        .chain(&more)
        .filter(|event| event.message() == "line")
        .map(|event| event.data["fields"]["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indexes, (0..100).collect::<Vec<_>>());
    // By the query as by the header.
    let mut events =
        Events::open(&admin, &format!("?target=loom_test&after_id={half}"), None).await;
    assert_eq!(events.upto("end").await.len(), more.len());
}

#[tokio::test]
async fn what_is_gone_and_what_is_of_another_start_is_a_gap() {
    let (_app, admin) =
        start(Setup::default().set("LOOM_SERVER_LOG_BUFFER_BYTES", SMALL.to_string())).await;
    tracing::info!(target: "loom_test", "first");
    let first = lines(&admin, "?q=first", 1).await[0]["id"].as_str().unwrap().to_owned();
    let filler = "x".repeat(1_000);
    for _ in 0..200 {
        tracing::info!(target: "loom_test", filler, "filler");
    }
    tracing::info!(target: "loom_test", "last");
    lines(&admin, "?q=last", 1).await;
    let number =
        |id: &Value| -> u64 { id.as_str().unwrap().split_once('-').unwrap().1.parse().unwrap() };
    let mut events = Events::open(&admin, "?target=loom_test", Some(&first)).await;
    let seen = events.upto("last").await;
    let gap = &seen[0];
    assert_eq!((gap.kind.as_str(), &gap.data["to"]), ("gap", &Value::from(gap.id.clone())));
    let missed = gap.data["missed"].as_u64().unwrap();
    assert!(missed > 100, "{gap:?}");
    assert_eq!(number(&gap.data["from"]), number(&first.clone().into()) + 1);
    assert_eq!(number(&gap.data["to"]) + 1 - number(&gap.data["from"]), missed);
    // Nothing else is missing.
    assert_eq!(number(&seen[1].data["id"]), number(&gap.data["to"]) + 1);
    assert!(seen[1..].iter().all(|event| event.kind.is_empty()));

    let read = admin.get(&format!("{LOGS}?after_id={first}&limit=1000")).await.expect(200).json();
    assert_eq!(read["gap"]["missed"], missed);
    assert!(read["buffer_size"].as_u64() <= Some(SMALL as u64));

    let mut events = Events::open(&admin, "", Some("0badc0de-41")).await;
    let gap = events.next().await.unwrap();
    assert_eq!(gap.kind, "gap");
    assert_eq!((&gap.data["missed"], &gap.data["from"]), (&Value::Null, &"0badc0de-41".into()));
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_nobody_up_and_sees_what_it_missed() {
    let (app, admin) =
        start(Setup::default().set("LOOM_SERVER_LOG_BUFFER_BYTES", (1 << 20).to_string())).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut slow = socket.connect(app.running.address).await.unwrap();
    let key = admin.key.clone().unwrap();
    let request = format!(
        "GET /api/admin/logs/stream?target=loom_test HTTP/1.1\r\nhost: loom\r\nauthorization: Bearer {key}\r\n\r\n"
    );
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 16];
    slow.read_exact(&mut head).await.unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200"));
    let filler = "x".repeat(30_000);
    let mut events = Events::open(&admin, "?target=loom_test", None).await;
    for round in 0..280 {
        tracing::info!(target: "loom_test", filler, "filler");
        if round % 20 == 19 {
            tracing::info!(target: "loom_test", round, "marker");
            // The others see all of it meanwhile.
            while events.next().await.unwrap().data["fields"]["round"] != round {}
        }
    }
    tracing::info!(target: "loom_test", "last");
    events.upto("last").await;
    let mut read = Vec::new();
    let mut piece = vec![0; 1 << 20];
    let last = memchr::memmem::Finder::new(b"\"message\":\"last\"");
    while last.find(&read).is_none() {
        let count = slow.read(&mut piece).await.unwrap();
        assert!(count > 0);
        read.extend_from_slice(&piece[..count]);
    }
    let text = String::from_utf8(read).unwrap();
    let gaps = text.matches("event: gap").count();
    assert!(gaps > 0 && text.len() < 8_000_000, "{gaps} {}", text.len());
}

#[tokio::test]
async fn the_21st_watcher_and_the_4th_of_one_user_are_refused_until_another_leaves() {
    let (app, _) = start(Setup::default()).await;
    let mut streams = Vec::new();
    let mut last = None;
    for index in 0..7 {
        let admin = app.admin(&format!("a{index}@example.com")).await;
        for _ in 0..if index == 6 { 2 } else { 3 } {
            streams.push(Events::open(&admin, "", None).await);
        }
        if index == 0 {
            let refused = admin.get("/api/admin/logs/stream").await.expect(429);
            assert_eq!(refused.code(), "too_many_watchers");
            assert!(refused.text.contains("you follow 3 streams of the log"), "{refused:?}");
            assert!(refused.header("retry-after").is_some());
        }
        last = Some(admin);
    }
    let last = last.unwrap();
    let refused = last.get("/api/admin/logs/stream").await.expect(429);
    assert!(refused.text.contains("20 streams of the log are open on this server"), "{refused:?}");
    // Who only reads is let in.
    last.get(LOGS).await.expect(200);
    streams.remove(0);
    eventually(async || {
        let request = last.request("GET".parse().unwrap(), "/api/admin/logs/stream");
        (request.send().await.unwrap().status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn only_who_may_inspect_the_system_sees_lines_and_that_is_recorded() {
    let (app, admin) = start(Setup::default()).await;
    let bob = app.user("bob@example.com").await;
    let reader = app.with_scopes(&admin, &[Scope::AdminRead]).await;
    let unscoped = app.with_scopes(&admin, &[Scope::AdminWrite]).await;
    for path in [LOGS, "/api/admin/logs/stream", "/api/admin/replicas"] {
        app.anonymous().get(path).await.expect(401);
        bob.get(path).await.expect(403);
        unscoped.get(path).await.expect(403);
    }
    // What servers ask each other opens to nobody else, whoever it is.
    for path in ["/internal/logs", "/internal/logs/stream"] {
        app.anonymous().get(path).await.expect(401);
        admin.get(path).await.expect(401);
        let id = loom_core::id::new_uuid(app.clock.now());
        let proof = format!("{id};{};{}", app.clock.now().timestamp(), "00".repeat(32));
        let forged = admin.with("x-loom-peer", &proof).with("x-loom-peer-user", "user:x");
        forged.get(path).await.expect(401);
    }
    reader.get(&format!("{LOGS}?q=hello")).await.expect(200);
    drop(reader.request("GET".parse().unwrap(), "/api/admin/logs/stream").send().await.unwrap());
    let acts = app.rows("SELECT * FROM audit_log WHERE action LIKE 'logs.%' ORDER BY at, id").await;
    let acts: Vec<_> = acts
        .iter()
        .map(|act| (act["action"].as_str().unwrap(), act["details"]["query"].clone()))
        .collect();
    assert_eq!(acts, [("logs.read", json!({"q": "hello"})), ("logs.watch", json!({}))]);
}

#[tokio::test]
async fn a_server_that_goes_down_says_good_bye_and_takes_itself_off_the_list() {
    let (app, admin) = start(Setup::default()).await;
    let list = admin.get("/api/admin/replicas").await.expect(200).json();
    let replicas = list["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 1);
    let own = &replicas[0];
    assert_eq!((&own["self"], &own["stale"]), (&true.into(), &false.into()));
    assert_eq!(own["address"], Value::Null, "it listens for this machine alone");
    let mut events = Events::open(&admin, "", None).await;
    let database = app.stop().await;
    loop {
        let event = events.next().await.expect("a last word");
        if event.kind == "bye" {
            assert_eq!(event.data["reason"], "shutdown");
            break;
        }
    }
    assert!(events.next().await.is_none());
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM replicas")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_stored_key_of_a_provider_is_masked_from_the_moment_it_is_stored() {
    let (app, admin) = start(Setup::default()).await;
    // Without any shape that would give it away.
    let secret = "correct-horse-battery-staple";
    app.running
        .features
        .llm
        .add_credential("openai", &loom_llm_proxy::NewCredential::key("second", secret.into()))
        .await
        .unwrap();
    admin.with("x-request-id", &format!("r-{secret}")).get("/auth/me").await.expect(200);
    let line = &lines(&admin, "?q=r-[REDACTED:", 1).await[0];
    assert_eq!(line["request_id"], "r-[redacted:known]");
    let metrics = app.anonymous().get("/metrics").await.expect(200).text;
    assert!(metrics.contains("loom_redactions_total{kind=\"known\"}"), "{metrics}");
}
