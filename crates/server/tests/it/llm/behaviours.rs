//! What a good intermediary does, and many do not: errors kept, streams not held back, clients that
//! leave noticed at once.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use loom_testkit::{
    TestApp,
    llm::{Ended, Reply, trigger},
};

use super::{Op, ask, begin_stream, let_rest, post, post_directly, receive, start_patient, stream};

#[tokio::test]
async fn a_429_keeps_its_status_body_retry_after_and_limits() {
    let app = start_patient().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        for body in [op.body("mock-error-429"), op.stream_body("mock-error-429")] {
            let direct = post_directly(&app, op.path(), body.to_string()).await;
            let through = post(&user, op.path(), body.to_string()).await;
            assert_eq!(through.status, 429);
            assert_eq!(through.body, direct.body, "{op:?}");
            assert_eq!(through.headers["retry-after"], "17");
            let left = if op == Op::Messages {
                assert_eq!(through.headers["x-should-retry"], "true");
                "anthropic-ratelimit-tokens-remaining"
            } else {
                "x-ratelimit-remaining-tokens"
            };
            assert_eq!(through.headers[left], "0");
            // It is the client who tries again, not we.
            assert_eq!(app.mock.requests().len(), 1);
            let_rest(&app);
        }
    }
}

#[tokio::test]
async fn errors_of_the_provider_keep_their_status_and_every_byte() {
    let app = start_patient().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        for model in [
            "mock-error-400",
            "mock-error-403",
            "mock-error-404",
            "mock-error-413",
            "mock-error-422",
            "mock-error-500",
            "mock-error-503",
            "mock-error-529",
            "mock-insufficient-quota",
        ] {
            let body = op.stream_body(model).to_string();
            let direct = post_directly(&app, op.path(), body.clone()).await;
            let through = post(&user, op.path(), body).await;
            assert_eq!(through.status, direct.status, "{op:?} {model}");
            assert_eq!(through.body, direct.body, "{op:?} {model}");
            assert_eq!(through.headers["content-type"], "application/json");
            let_rest(&app);
        }
    }
}

#[tokio::test]
async fn an_error_in_mid_stream_is_kept_and_nothing_is_invented_after_it() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        let body = op.stream_body("mock-midstream-error").to_string();
        let direct = post_directly(&app, op.path(), body.clone()).await;
        let through = post(&user, op.path(), body).await;
        assert_eq!(through.body, direct.body, "{op:?}");
        assert!(!through.broke_off);
        assert!(through.data().last().unwrap().contains("error"));
        for invented in
            ["[DONE]", "message_stop", "\"finish_reason\":\"stop\"", "response.completed"]
        {
            assert!(!through.text().contains(invented), "{op:?} {invented}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_ends_the_request_at_the_provider() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        app.mock.clear();
        let caller = user.caller.clone();
        let waiting = tokio::spawn(async move { ask(&caller, op, "mock-hang").await });
        app.mock.wait_for_request(1).await;
        let left = Instant::now();
        waiting.abort();
        let end = app.mock.wait_for_end(1).await.end.unwrap();
        assert_eq!(end.how, Ended::ClientGone);
        gone_after(end.at.duration_since(left));
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_stream_ends_the_stream_at_the_provider() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        for model in ["mock-stall", "mock-paced-100"] {
            app.mock.clear();
            let response = begin_stream(&user, op, model).await;
            let left = Instant::now();
            drop(response);
            let end = app.mock.wait_for_end(1).await.end.unwrap();
            assert_eq!(end.how, Ended::ClientGone, "{op:?} {model}");
            gone_after(end.at.duration_since(left));
        }
    }
}

/// To be within 100 ms; the tenfold for a machine that has much else to do.
#[track_caller]
#[expect(clippy::print_stdout, reason = "to be seen with --no-capture")]
fn gone_after(elapsed: Duration) {
    println!("the provider's request ended {elapsed:?} after its client had left");
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
}

#[tokio::test]
async fn a_slow_first_byte_is_waited_for_and_is_in_the_account() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        let quick =
            post_directly(&app, op.path(), op.stream_body("mock-slow-first-300").to_string()).await;
        assert_eq!(stream(&user, op, "mock-slow-first-300").await.body, quick.body);
        stream(&user, op, "mock-slow-body-300").await;
    }
    for row in app.llm_requests(6).await {
        assert_eq!(row["outcome"], "succeeded");
        let first = row["first_token_ms"].as_f64().unwrap();
        assert!((300.0..30_000.0).contains(&first), "{row}");
    }
}

#[tokio::test]
async fn characters_cut_by_chunk_boundaries_and_very_long_lines_pass_unchanged() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        for model in ["mock-split-utf8", "mock-huge-line"] {
            let body = op.stream_body(model).to_string();
            let direct = post_directly(&app, op.path(), body.clone()).await;
            let through = post(&user, op.path(), body).await;
            // Not assert_eq: ten megabytes would be printed.
            assert!(through.body == direct.body, "{op:?} {model}");
            if model == "mock-huge-line" {
                assert!(through.body.len() > trigger::HUGE);
            }
        }
    }
    for row in app.llm_requests(6).await {
        assert_eq!(row["outcome"], "succeeded");
        assert_eq!(row["output_tokens"], 40, "{row}");
    }
}

#[tokio::test]
async fn nothing_but_the_usage_chunk_is_left_out_however_the_stream_is_cut() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for model in ["gpt-4o", "mock-split-utf8", "mock-huge-line"] {
        let mut body = Op::Chat.stream_body(model);
        let direct = post_directly(&app, Op::Chat.path(), body.to_string()).await;
        body.as_object_mut().unwrap().remove("stream_options");
        let through = post(&user, Op::Chat.path(), body.to_string()).await;
        let frames = direct.text().split_inclusive("\n\n");
        let expected: String = frames.filter(|frame| !frame.contains("\"choices\":[]")).collect();
        assert!(expected.len() < direct.body.len());
        assert!(through.text() == expected, "{model}");
    }
}

#[tokio::test]
async fn a_stream_tells_intermediaries_not_to_hold_it_back() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        let response = stream(&user, op, op.priced_model()).await;
        assert_eq!(response.headers["x-accel-buffering"], "no");
        assert_eq!(response.headers["content-type"], "text/event-stream; charset=utf-8");
        assert!(response.headers.contains_key("cache-control"));
    }
}

/// Speaks HTTP on one connection, and sees which bytes arrive together.
struct Wire(TcpStream);

impl Wire {
    fn send(&mut self, head: &str, body: &str) {
        let request =
            format!("{head}\r\nhost: loom\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        self.0.write_all(request.as_bytes()).unwrap();
    }

    /// What each read brings, until all of it ends so.
    fn reads_until(&mut self, end: &str) -> Vec<String> {
        let mut reads = Vec::new();
        let mut buffer = [0; 64 * 1024];
        loop {
            let read = self.0.read(&mut buffer).unwrap();
            assert!(read > 0, "{reads:?}");
            reads.push(String::from_utf8(buffer[..read].to_vec()).unwrap());
            if reads.concat().ends_with(end) {
                return reads;
            }
        }
    }

    /// After a few quick exchanges the kernel takes the connection for a dialogue, and delays the
    /// acknowledgements of what it receives by 40 ms: the next request could carry them.
    fn exchange(&mut self) {
        for _ in 0..5 {
            self.send("GET /health/live HTTP/1.1", "");
            self.reads_until("\r\n\r\n");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_pieces_of_a_stream_do_not_wait_for_each_other() {
    const STREAMS: usize = 20;
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let key = user.key.clone().unwrap();
    let piece = |text: &str| {
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
    };
    let pause = Duration::from_millis(8);
    let reply = Reply::sse()
        .bytes(piece("first"))
        .pause(pause)
        .bytes(piece("second"))
        .pause(pause)
        .bytes(piece("third"))
        .done();
    for _ in 0..STREAMS {
        app.mock.enqueue(reply.clone());
    }
    let address = app.running.address;
    let measured = tokio::task::spawn_blocking(move || {
        let mut wire = Wire(TcpStream::connect(address).unwrap());
        wire.0.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!("POST {} HTTP/1.1\r\nauthorization: Bearer {key}", Op::Chat.path());
        let body = Op::Chat.stream_body("m").to_string();
        let one = |wire: &mut Wire| {
            wire.exchange();
            wire.send(&head, &body);
            let reads = wire.reads_until("\r\n0\r\n\r\n");
            let with = |text: &str| reads.iter().position(|read| read.contains(text)).unwrap();
            with("first") < with("second") && with("second") < with("third")
        };
        (0..STREAMS).filter(|_| one(&mut wire)).count()
    });
    // A busy machine merges pieces now and then; Nagle's algorithm, with a peer that delays its
    // acknowledgements, merges the second and the third every time.
    let apart = measured.await.unwrap();
    assert!(apart >= STREAMS / 2, "in {apart} of {STREAMS} streams the pieces came one by one");
}

#[tokio::test]
async fn a_reply_is_not_held_back_until_it_is_whole() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        app.mock.clear();
        // The rest never comes, and the first pieces are here all the same.
        let response = begin_stream(&user, op, "mock-stall").await;
        assert!(app.mock.requests()[0].end.is_none());
        drop(response);
        app.mock.wait_for_end(1).await;
    }
    // The same for a JSON body.
    let request = user.request(http::Method::POST, Op::Chat.path());
    let mut response = request.json(&Op::Chat.body("mock-stall")).send().await.unwrap();
    assert!(!response.chunk().await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn many_streams_at_once_keep_their_bytes_apart() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let streams = (0..64).map(|n| {
        let caller = user.caller.clone();
        async move {
            let op = Op::ALL[n % 3];
            let model = format!("model-{n}");
            let request =
                caller.request(http::Method::POST, op.path()).json(&op.stream_body(&model));
            let received = receive(request.send().await.unwrap()).await;
            let name = format!("\"model\":\"{model}\"");
            assert!(received.text().contains(&name), "{}", received.text());
            assert_eq!(
                received.text().matches("\"model\":\"").count(),
                received.text().matches(&name).count()
            );
        }
    });
    futures::future::join_all(streams).await;
    let rows = app.llm_requests(64).await;
    assert!(
        rows.iter()
            .all(|row| row["outcome"] == "succeeded" && row["model"] == row["response_model"])
    );
}
