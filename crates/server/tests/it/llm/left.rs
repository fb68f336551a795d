//! A reply whose client has left, and the cost that stands behind one that is told to its end.

use loom_testkit::{Setup, TestApp, eventually, llm::Ended};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{GPT, Op, SONNET, begin_stream};

fn draining() -> Setup {
    Setup::default().set("LOOM_SERVER_LLM_ON_DISCONNECT", "drain")
}

#[tokio::test]
async fn a_left_stream_is_read_on_to_its_usage_where_that_is_wanted() {
    let app = draining().start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        drop(begin_stream(&user, op, "mock-paced-5").await);
    }
    for row in app.llm_requests(3).await {
        assert_eq!(row["outcome"], "cancelled", "{row}");
        assert_eq!(row["usage_complete"], true);
        let input = if row["operation"] == "messages" { 1200 } else { 500 };
        assert_eq!((&row["input_tokens"], &row["output_tokens"]), (&json!(input), &json!(40)));
    }
    app.mock.wait_for_end(3).await;
    assert!(app.mock.requests().iter().all(|request| request.ended() == Some(Ended::Finished)));
}

#[tokio::test]
async fn a_translated_and_a_native_stream_are_read_on_too() {
    let app = draining().start().await;
    let user = app.user("a@example.com").await;
    app.mock.enqueue(loom_testkit::llm::Script::model("mock-paced-5"));
    drop(begin_stream(&user, Op::Chat, SONNET).await);
    let row = &app.llm_requests(1).await[0];
    assert_eq!((&row["operation"], &row["outcome"]), (&json!("messages"), &json!("cancelled")));
    // 1200 × 3 + 40 × 15 + 4000 × 0.3 + 300 × 3.75 + 200 × 6
    assert_eq!(row["cost_nanousd"], 7_725_000);
    app.mock.enqueue(loom_testkit::llm::Script::model("mock-paced-5"));
    let body = json!({"model": GPT, "messages": [{"role": "user", "content": "Hi"}]}).to_string();
    let mut native = super::begin(&user, "/proxy/openai/stream", body).await;
    native.chunk().await.unwrap();
    drop(native);
    let row = &app.llm_requests(2).await[1];
    assert_eq!((&row["outcome"], &row["usage_complete"]), (&json!("cancelled"), &json!(true)));
    assert_eq!(row["cost_nanousd"], 2_400_000);
}

#[tokio::test]
async fn a_left_stream_is_cut_where_nothing_else_is_said() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    drop(begin_stream(&user, Op::Chat, "mock-paced-20").await);
    let row = &app.llm_requests(1).await[0];
    assert_eq!((&row["outcome"], &row["usage_complete"]), (&json!("cancelled"), &json!(false)));
    app.mock.wait_for_end(1).await;
    assert_eq!(app.mock.requests()[0].ended(), Some(Ended::ClientGone));
}

#[tokio::test]
async fn reading_on_has_an_end_and_what_has_no_room_is_cut() {
    let limits = draining()
        .set("LOOM_SERVER_LLM_DRAIN_MAX_SECS", "1")
        .set("LOOM_SERVER_LLM_DRAIN_MAX_STREAMS", "1");
    let app = limits.start().await;
    let user = app.user("a@example.com").await;
    drop(begin_stream(&user, Op::Messages, "mock-stall").await);
    let row = &app.llm_requests(1).await[0];
    assert_eq!((&row["outcome"], &row["usage_complete"]), (&json!("cancelled"), &json!(false)));
    // Two at once: the second is cut, and in the account while the first is still read.
    let both = [
        begin_stream(&user, Op::Messages, "mock-stall").await,
        begin_stream(&user, Op::Messages, "mock-stall").await,
    ];
    drop(both);
    app.mock.wait_for_end(3).await;
    assert_eq!(app.llm_requests(3).await.len(), 3);
}

#[tokio::test]
async fn what_is_read_on_at_the_end_of_the_server_is_accounted() {
    let app = draining().start().await;
    let user = app.user("a@example.com").await;
    drop(begin_stream(&user, Op::Messages, "mock-stall").await);
    let metrics = |app: &TestApp| {
        let caller = app.anonymous();
        async move { caller.get("/metrics").await.text }
    };
    // The connection's end has been noticed.
    eventually(async || {
        let text = metrics(&app).await;
        let line = text.lines().find(|line| line.starts_with("loom_http_requests_in_flight"))?;
        line.ends_with(" 1").then_some(())
    })
    .await;
    let database = app.stop().await;
    let rows: Vec<(String, bool)> =
        sqlx::query_as("SELECT outcome, usage_complete FROM llm_requests")
            .fetch_all(database.pool())
            .await
            .unwrap();
    assert_eq!(rows, [("cancelled".to_owned(), false)]);
}

/// A request over a connection of its own, and all that comes back.
async fn raw(app: &TestApp, key: &str, te: &str, body: &Value) -> String {
    let mut socket = TcpStream::connect(app.running.address).await.unwrap();
    let body = body.to_string();
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: loom\r\nauthorization: Bearer {key}\r\n{te}\
         content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut all = String::new();
    socket.read_to_string(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn the_cost_of_a_reply_stands_behind_it_for_who_takes_trailers() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let key = user.caller.key.clone().unwrap();
    for (body, streams) in
        [(Op::Messages.body(SONNET), false), (Op::Messages.stream_body(SONNET), true)]
    {
        let with = raw(&app, &key, "te: trailers\r\n", &body).await;
        // A reply that came whole has it in its head.
        let behind = with.contains("trailer: x-loom-cost-usd\r\n")
            && with.ends_with("0\r\nx-loom-cost-usd: 0.007725\r\n\r\n");
        assert!(behind || (!streams && with.contains("x-loom-cost-usd: 0.007725\r\n")), "{with}");
        let without = raw(&app, &key, "", &body).await;
        assert!(!without.contains("x-loom-cost-usd"), "{without}");
    }
    // Under a key, where it goes on in a task of its own; a repeat has cost nothing.
    for (key_header, cost) in [("k", true), ("k", false)] {
        let headers = format!("te: trailers\r\nidempotency-key: {key_header}\r\n");
        let text = raw(&app, &key, &headers, &Op::Messages.stream_body(SONNET)).await;
        assert_eq!(text.contains("x-loom-cost-usd: 0.007725"), cost, "{text}");
    }
    // Known before the reply goes out, it is in the head.
    let body = json!({"model": SONNET, "messages": [{"role": "user", "content": "Hi"}]});
    let whole = user.post("/proxy/anthropic/complete", &body).await.expect(200);
    assert_eq!(whole.header("x-loom-cost-usd"), Some("0.007725"));
    assert_eq!(whole.json()["cost_usd"], 0.007725);
}
