//! Commands and terminals in weavers.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use loom_testkit::{
    Answer, Caller, TestApp, eventually,
    idp::{Idp, Person},
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use crate::support::{World, pod};

async fn running(world: &World) -> String {
    let id = world.weaver("fake/agent").await;
    world.row_in(&id, "running").await;
    id
}

async fn exec(caller: &Caller, id: &str, body: &Value) -> Answer {
    caller.post(&format!("/api/weaver/{id}/exec"), body).await
}

#[tokio::test]
async fn a_command_gives_its_output_and_its_exit_code() {
    let world = World::start().await;
    let id = running(&world).await;
    let echo = exec(&world.user, &id, &json!({"command": ["echo", "a b", "$HOME;"]}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        echo,
        json!({"exit_code": 0, "outcome": "exited", "stdout": "a b $HOME;\n", "stderr": "", "truncated": false})
    );
    let failed =
        exec(&world.user, &id, &json!({"command": ["exit", "7"]})).await.expect(200).json();
    assert_eq!((&failed["exit_code"], &failed["outcome"]), (&json!(7), &json!("exited")));
    let err = exec(&world.user, &id, &json!({"command": ["err", "oh"]})).await.expect(200).json();
    assert_eq!((&err["stdout"], &err["stderr"]), (&json!(""), &json!("oh\n")));
    let cat = json!({"command": ["cat"], "stdin": "over and out"});
    let cat = exec(&world.user, &id, &cat).await.expect(200).json();
    assert_eq!((&cat["exit_code"], &cat["stdout"]), (&json!(0), &json!("over and out")));
    let audit = world.app.rows("SELECT details FROM audit_log WHERE action = 'weaver.exec'").await;
    assert_eq!(audit.len(), 4);
    assert_eq!(audit[0]["details"]["command"][0], "echo");
}

#[tokio::test]
async fn an_end_that_nobody_heard_of_is_no_success() {
    let world = World::start().await;
    let id = running(&world).await;
    let lost =
        exec(&world.user, &id, &json!({"command": ["lost", "half"]})).await.expect(200).json();
    assert_eq!(
        (&lost["exit_code"], &lost["outcome"], &lost["stdout"]),
        (&Value::Null, &json!("unknown"), &json!("half\n"))
    );
    world.cluster.only_v4();
    let cat = json!({"command": ["cat"], "stdin": "x"});
    let cat = exec(&world.user, &id, &cat).await.expect(200).json();
    assert_eq!((&cat["exit_code"], &cat["outcome"]), (&Value::Null, &json!("unknown")));
    let sleep = json!({"command": ["sleep"], "timeout_secs": 1});
    let sleep = exec(&world.user, &id, &sleep).await.expect(200).json();
    assert_eq!((&sleep["exit_code"], &sleep["outcome"]), (&Value::Null, &json!("timed_out")));
}

#[tokio::test]
async fn output_without_end_is_cut_and_held_in_bounds() {
    let world = World::start().await;
    let id = running(&world).await;
    let flood =
        exec(&world.user, &id, &json!({"command": ["flood", "5000000"]})).await.expect(200).json();
    assert_eq!((&flood["exit_code"], &flood["truncated"]), (&json!(0), &json!(true)));
    assert_eq!(flood["stdout"].as_str().unwrap().len(), 1024 * 1024);
    let yes = json!({"command": ["yes"], "timeout_secs": 1});
    let yes = exec(&world.user, &id, &yes).await.expect(200).json();
    assert_eq!((&yes["outcome"], &yes["truncated"]), (&json!("timed_out"), &json!(true)));
}

#[tokio::test]
async fn what_is_no_command_or_may_not_be_is_refused() {
    let world = World::start().await;
    let id = running(&world).await;
    for bad in [json!("ls -l"), json!([]), json!([""]), json!(["a\0b"]), json!(vec!["x"; 1000])] {
        exec(&world.user, &id, &json!({"command": bad})).await.expect(422);
    }
    let long = json!({"command": ["echo"], "timeout_secs": 100_000});
    exec(&world.user, &id, &long).await.expect(422);
    let missing = exec(&world.user, &id, &json!({"command": ["nope"]})).await.expect(422);
    assert_eq!(missing.code(), "command_not_started");
    let echo = json!({"command": ["echo"]});
    let stranger = world.app.user("else@example.com").await;
    assert_eq!(exec(&stranger, &id, &echo).await.expect(404).code(), "weaver_not_found");
    exec(&world.app.anonymous(), &id, &echo).await.expect(401);
    let reader =
        world.app.with_scopes(&world.user, &[loom_core::principal::Scope::WeaversRead]).await;
    exec(&reader, &id, &echo).await.expect(403);
    let waits = world.weaver("fake/holds").await;
    assert_eq!(exec(&world.user, &waits, &echo).await.expect(409).code(), "weaver_not_running");
    world.cluster.gone().await;
    assert_eq!(exec(&world.user, &id, &echo).await.expect(502).code(), "kubernetes_error");
    world.cluster.back();
}

#[tokio::test]
async fn what_waits_for_the_cluster_may_take_longer_than_other_requests() {
    let world = World::with(|setup| {
        setup
            .set("LOOM_SERVER_REQUEST_TIMEOUT_SECS", "1")
            .set("LOOM_SERVER_WEAVER_READY_TIMEOUT_SECS", "2")
    })
    .await;
    let id = running(&world).await;
    let sleep = json!({"command": ["sleep"], "timeout_secs": 2});
    let sleep = exec(&world.user, &id, &sleep).await.expect(200).json();
    assert_eq!(sleep["outcome"], "timed_out");
    let slow =
        world.user.post("/api/weaver", &json!({"image": "fake/slow-pull"})).await.expect(504);
    assert_eq!(slow.code(), "weaver_timeout");
}

pub(crate) struct Terminal(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Terminal {
    pub(crate) async fn open(app: &TestApp, key: Option<&str>, path: &str) -> Result<Self, Error> {
        let url = format!("ws://{}{path}", app.running.address);
        let mut request = url.into_client_request().unwrap();
        if let Some(key) = key {
            let value = format!("Bearer {key}").parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        connect_async(request).await.map(|(socket, _)| Self(socket))
    }

    async fn of(world: &World, id: &str, query: &str) -> Self {
        let path = format!("/api/weaver/{id}/attach{query}");
        Self::open(&world.app, world.user.key.as_deref(), &path).await.unwrap()
    }

    pub(crate) async fn text(&mut self, text: &Value) {
        self.0.send(Message::text(text.to_string())).await.unwrap();
    }

    pub(crate) async fn bytes(&mut self, bytes: &str) {
        self.0.send(Message::binary(bytes.as_bytes().to_vec())).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(30), self.0.next()).await;
            match next.expect("something comes").expect("it is open").unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    pub(crate) async fn control(&mut self) -> Value {
        match self.next().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Output, until it ends so.
    async fn output(&mut self, end: &str) {
        let mut output = String::new();
        while !output.ends_with(end) {
            match self.next().await {
                Message::Binary(bytes) => output.push_str(std::str::from_utf8(&bytes).unwrap()),
                other => panic!("{other:?} after {output:?}"),
            }
        }
    }

    /// Output, until this is in it.
    pub(crate) async fn output_with(&mut self, wanted: &str) {
        let mut output = String::new();
        while !output.contains(wanted) {
            match self.next().await {
                Message::Binary(bytes) => output.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} after {output:?}"),
            }
        }
    }

    /// The code of its end, whatever it still says.
    pub(crate) async fn exit(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.next().await {
                let word: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(word["type"], "exit", "{word}");
                return word["code"].clone();
            }
        }
    }

    async fn closed(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.next().await {
                return frame.unwrap().code.into();
            }
        }
    }
}

fn status(error: Error) -> u16 {
    match error {
        Error::Http(answer) => answer.status().as_u16(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_terminal_carries_both_ways_until_the_weaver_ends() {
    let world = World::start().await;
    let id = running(&world).await;
    let mut terminal = Terminal::of(&world, &id, "").await;
    assert_eq!(
        terminal.control().await,
        json!({"type": "status", "status": "attached", "tty": false})
    );
    terminal.bytes("hello\n").await;
    terminal.output("hello\n").await;
    assert_eq!(world.cluster.stdin(&pod(&id)), b"hello\n");
    let row = world.row(&id).await;
    assert_ne!(row["active_at"], row["created_at"]);
    terminal.bytes("exit 3\n").await;
    terminal.output("exit 3\n").await;
    assert_eq!(terminal.control().await, json!({"type": "exit", "code": 3}));
    assert_eq!(terminal.closed().await, 1000);
    let row = world.row_in(&id, "failed").await;
    assert_eq!(row["exit_code"], 3);
    let audit = eventually(async || {
        let query =
            "SELECT action, details FROM audit_log WHERE action LIKE 'weaver.%tach' ORDER BY at";
        Some(world.app.rows(query).await).filter(|rows| rows.len() == 2)
    })
    .await;
    assert_eq!(audit[0]["action"], "weaver.attach");
    assert_eq!(audit[1]["details"]["bytes_in"], 13);
}

#[tokio::test]
async fn a_program_that_answers_while_it_reads_is_not_held_up() {
    let world = World::start().await;
    let id = running(&world).await;
    let mut terminal = Terminal::of(&world, &id, "?command=cat&tty=false").await;
    assert_eq!(terminal.control().await["status"], "attached");
    let (mut up, mut down) = terminal.0.split();
    let piece = vec![b'x'; 60_000];
    let send = async {
        for _ in 0..200 {
            up.send(Message::binary(piece.clone())).await.unwrap();
        }
    };
    let read = async {
        let mut left = 200 * piece.len();
        while left > 0 {
            match down.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => left -= bytes.len(),
                Message::Ping(_) => {}
                other => panic!("{other:?}, and {left} bytes are to come"),
            }
        }
    };
    tokio::join!(send, read);
}

#[tokio::test]
async fn a_shell_beside_it_has_a_size_and_ends_alone() {
    let world = World::start().await;
    let id = running(&world).await;
    let replica = world.app.replica().await;
    let path = format!("/api/weaver/{id}/attach?command=sh");
    // Any server does, whoever follows the cluster.
    let url = format!("ws://{}{path}", replica.address);
    let mut request = url.into_client_request().unwrap();
    let value = format!("Bearer {}", world.user.key.as_deref().unwrap()).parse().unwrap();
    request.headers_mut().insert("authorization", value);
    let mut terminal = Terminal(connect_async(request).await.unwrap().0);
    assert_eq!(terminal.control().await["tty"], true);
    terminal.text(&json!({"type": "resize", "cols": 120, "rows": 40})).await;
    terminal.output("size 120x40\r\n").await;
    terminal.bytes("exit 5\n").await;
    terminal.output("exit 5\n").await;
    assert_eq!(terminal.control().await, json!({"type": "exit", "code": 5}));
    assert_eq!(world.row(&id).await["status"], "running");
    replica.shut_down().await;
}

#[tokio::test]
async fn who_attaches_says_who_it_is_in_the_handshake_or_at_first() {
    let world = World::start().await;
    let id = running(&world).await;
    let path = format!("/api/weaver/{id}/attach");
    let app = &world.app;
    // By a first message.
    let mut terminal = Terminal::open(app, None, &path).await.unwrap();
    terminal.text(&json!({"type": "auth", "token": world.user.key})).await;
    assert_eq!(terminal.control().await["status"], "attached");
    // By a token for one WebSocket, once.
    let token = world.user.get("/auth/ws-token").await.expect(200).json();
    let token = token["token"].as_str().unwrap();
    let with_token = format!("{path}?token={token}");
    let mut terminal = Terminal::open(app, None, &with_token).await.unwrap();
    assert_eq!(terminal.control().await["status"], "attached");
    let again = Terminal::open(app, None, &with_token).await.err().unwrap();
    assert_eq!(status(again), 401);
    // By nothing, or by what is not good.
    for first in [
        json!({"type": "auth", "token": "loom_pat_nothing"}),
        json!({"type": "resize", "cols": 1, "rows": 1}),
    ] {
        let mut terminal = Terminal::open(app, None, &path).await.unwrap();
        terminal.text(&first).await;
        assert_eq!(terminal.closed().await, 4401);
    }
    app.anonymous().get(&path).await.expect(401);
    // By somebody else.
    let stranger = app.user("else@example.com").await;
    let refused = Terminal::open(app, stranger.key.as_deref(), &path).await.err().unwrap();
    assert_eq!(status(refused), 404);
    let mut terminal = Terminal::open(app, None, &path).await.unwrap();
    terminal.text(&json!({"type": "auth", "token": stranger.key})).await;
    assert_eq!(terminal.control().await["code"], "weaver_not_found");
    assert!(world.cluster.stdin(&pod(&id)).is_empty());
}

#[tokio::test]
async fn a_terminal_ends_with_the_credential_that_opened_it() {
    let world = World::start().await;
    let id = running(&world).await;
    let path = format!("/api/weaver/{id}/attach");
    let token = world.user.get("/auth/ws-token").await.expect(200).json();
    let with_token = format!("{path}?token={}", token["token"].as_str().unwrap());
    let mut by_token = Terminal::open(&world.app, None, &with_token).await.unwrap();
    let mut by_key = Terminal::open(&world.app, world.user.key.as_deref(), &path).await.unwrap();
    for terminal in [&mut by_token, &mut by_key] {
        assert_eq!(terminal.control().await["status"], "attached");
    }
    for change in
        ["UPDATE api_keys SET revoked_at = now()", "SELECT pg_notify('loom_auth_revoked', 'all')"]
    {
        sqlx::query(change).execute(world.app.database.pool()).await.unwrap();
    }
    for mut terminal in [by_token, by_key] {
        assert_eq!(terminal.closed().await, 4403);
    }
}

#[tokio::test]
async fn nobody_takes_the_places_of_all_others() {
    let world = World::start().await;
    let id = running(&world).await;
    let path = format!("/api/weaver/{id}/attach");
    let echo = json!({"command": ["echo"]});
    let mut strangers = Vec::new();
    for _ in 0..50 {
        strangers.push(Terminal::open(&world.app, None, &path).await.unwrap());
    }
    let more = Terminal::open(&world.app, None, &path).await.err().unwrap();
    assert_eq!(status(more), 429);
    exec(&world.user, &id, &echo).await.expect(200);
    let mut own = Vec::new();
    for _ in 0..50 {
        own.push(Terminal::of(&world, &id, "").await);
    }
    assert_eq!(exec(&world.user, &id, &echo).await.expect(429).code(), "too_many_sessions");
    let other = world.app.user("else@example.com").await;
    let body = json!({"image": "fake/agent"});
    let theirs = other.post("/api/weaver", &body).await.expect(201).json();
    exec(&other, theirs["id"].as_str().unwrap(), &echo).await.expect(200);
    own.pop();
    eventually(async || (exec(&world.user, &id, &echo).await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn a_page_of_another_site_gets_no_terminal_by_the_session_of_its_visitor() {
    let idp = Idp::start();
    let world = World::with(|setup| {
        let setup = setup
            .set("LOOM_SERVER_SIGN_UP", "domains")
            .set("LOOM_SERVER_SIGN_UP_DOMAINS", "example.com");
        idp.settings("google")
            .into_iter()
            .fold(setup, |setup, (name, value)| setup.set(&name, value))
    })
    .await;
    idp.sign_in_as(Person::new("1815", "ada@example.com"));
    let browser = world.app.browser();
    browser.sign_in_with("google").await.expect(303);
    let made = browser.post_json("/api/weaver", &json!({"image": "fake/agent"})).await.expect(201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let cookie = format!("loom_session={}", browser.cookie("loom_session").unwrap());
    let address = world.app.running.address;
    let open = async |origin: Option<&str>| {
        let url = format!("ws://{address}/api/weaver/{id}/attach");
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("cookie", cookie.parse().unwrap());
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        connect_async(request).await.map(|(socket, _)| Terminal(socket))
    };
    for origin in [Some("https://evil.example"), Some("null"), Some("http://127.0.0.1:1"), None] {
        assert_eq!(status(open(origin).await.err().unwrap()), 403, "{origin:?}");
    }
    assert!(
        world.app.rows("SELECT 1 FROM audit_log WHERE action = 'weaver.attach'").await.is_empty()
    );
    let own = world.app.url();
    let mut terminal = open(Some(&own)).await.unwrap();
    assert_eq!(terminal.control().await["status"], "attached");
}

#[tokio::test]
async fn a_terminal_in_which_nothing_happens_is_closed_and_nonsense_too() {
    let world = World::with(|setup| setup.set("LOOM_SERVER_WEAVER_ATTACH_IDLE_SECS", "1")).await;
    let id = running(&world).await;
    let mut terminal = Terminal::of(&world, &id, "").await;
    assert_eq!(terminal.closed().await, 4408);
    let mut terminal = Terminal::of(&world, &id, "").await;
    terminal.text(&json!({"type": "dance"})).await;
    assert_eq!(terminal.closed().await, 1007);
    let mut terminal = Terminal::of(&world, &id, "?command=cat&tty=false").await;
    world.app.running.features.weavers.end_streams();
    assert_eq!(terminal.closed().await, 1001);
}
