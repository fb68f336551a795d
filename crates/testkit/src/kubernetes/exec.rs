//! Commands and terminals over WebSocket, in the framing that the API server has: the first byte of a
//! message is its channel.

use std::sync::Arc;

use axum::{
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    kubelet::{Machine, Order},
    script::Step,
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// Of v5: the channel that is named is closed.
const CLOSE: u8 = 255;

pub(super) struct Ask {
    /// None: the main container itself.
    pub(super) command: Option<Vec<String>>,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

pub(super) fn open(
    upgrade: WebSocketUpgrade,
    only_v4: bool,
    machine: Arc<Machine>,
    ask: Ask,
) -> Response {
    let upgrade = if only_v4 {
        upgrade.protocols(["v4.channel.k8s.io"])
    } else {
        upgrade.protocols(["v5.channel.k8s.io", "v4.channel.k8s.io"])
    };
    upgrade
        .on_upgrade(move |socket| async move {
            let mut session = Session { socket, machine, ask };
            let status = match session.ask.command.clone() {
                Some(command) => session.command(&command).await,
                None => session.terminal(true).await,
            };
            if let Some(status) = status {
                session.send(STATUS, status.to_string().as_bytes()).await;
            }
            // Who closes first is who ends.
            let _ = session.socket.send(Message::Close(None)).await;
        })
        .into_response()
}

struct Session {
    socket: WebSocket,
    machine: Arc<Machine>,
    ask: Ask,
}

enum Input {
    Bytes(Vec<u8>),
    Resize(Value),
    /// Standard input is closed.
    End,
    /// The client is gone.
    Gone,
}

/// As the API server words the end of a process.
fn status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit code {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
}

impl Session {
    async fn send(&mut self, channel: u8, bytes: &[u8]) -> bool {
        let wanted = match channel {
            STDOUT => self.ask.stdout,
            STDERR => self.ask.stderr,
            _ => true,
        };
        if !wanted {
            return true;
        }
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(channel);
        message.extend_from_slice(bytes);
        self.socket.send(Message::Binary(message.into())).await.is_ok()
    }

    async fn input(&mut self) -> Input {
        loop {
            match self.socket.recv().await {
                Some(Ok(Message::Binary(message))) => match message.first() {
                    Some(&STDIN) if self.ask.stdin => return Input::Bytes(message[1..].to_vec()),
                    Some(&RESIZE) => {
                        return Input::Resize(
                            serde_json::from_slice(&message[1..]).unwrap_or_default(),
                        );
                    }
                    Some(&CLOSE) if message.get(1) == Some(&STDIN) => return Input::End,
                    _ => {}
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Input::Gone,
                Some(Ok(_)) => {}
            }
        }
    }

    /// A few commands that tests need; what it ends with, if that is heard of.
    ///
    /// - `echo …`, `err …` (to standard error), `cat` (until its input ends)
    /// - `exit N`; `flood N` says so many bytes; `yes` says `y` for ever; `sleep` does nothing for ever
    /// - `lost …` says something, and how it ended is never heard; `sh` is a
    ///   terminal; any other cannot be started
    async fn command(&mut self, command: &[String]) -> Option<Value> {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["echo", rest @ ..] => {
                self.send(STDOUT, format!("{}\n", rest.join(" ")).as_bytes()).await;
                Some(status(0))
            }
            ["err", rest @ ..] => {
                self.send(STDERR, format!("{}\n", rest.join(" ")).as_bytes()).await;
                Some(status(0))
            }
            ["exit", code] => Some(status(code.parse().unwrap())),
            ["cat"] => loop {
                match self.input().await {
                    Input::Bytes(bytes) => {
                        self.send(STDOUT, &bytes).await;
                    }
                    Input::End => return Some(status(0)),
                    Input::Gone => return None,
                    Input::Resize(_) => {}
                }
            },
            ["flood", count] => {
                let mut left: usize = count.parse().unwrap();
                while left > 0 {
                    let size = left.min(32 * 1024);
                    if !self.send(STDOUT, &vec![b'x'; size]).await {
                        return None;
                    }
                    left -= size;
                }
                Some(status(0))
            }
            ["yes"] => {
                while self.send(STDOUT, &b"y\n".repeat(8192)).await {}
                None
            }
            ["sleep", ..] => {
                while !matches!(self.input().await, Input::Gone) {}
                None
            }
            ["sh"] => Box::pin(self.terminal(false)).await,
            ["lost", rest @ ..] => {
                self.send(STDOUT, format!("{}\n", rest.join(" ")).as_bytes()).await;
                None
            }
            other => {
                let name = other.first().copied().unwrap_or_default();
                Some(json!({"metadata": {}, "status": "Failure", "reason": "InternalError",
                    "code": 500, "message": format!("exec failed: unable to start container process: \
                     exec: \"{name}\": executable file not found in $PATH")}))
            }
        }
    }

    /// A terminal: it echoes; `exit N` on a line ends the container, or a shell beside it; a change of size
    /// is said.
    async fn terminal(&mut self, own: bool) -> Option<Value> {
        let mut over = self.machine.over.subscribe();
        let mut line = String::new();
        loop {
            tokio::select! {
                code = async { over.wait_for(Option::is_some).await.ok().and_then(|code| *code) } => {
                    return code.map(status);
                }
                input = self.input() => match input {
                    Input::Bytes(bytes) => {
                        self.machine.stdin.lock().unwrap().extend_from_slice(&bytes);
                        self.send(STDOUT, &bytes).await;
                        line.push_str(&String::from_utf8_lossy(&bytes));
                        while let Some((first, rest)) = line.split_once('\n') {
                            if let Some(code) = first.strip_prefix("exit ") {
                                let code = code.trim().parse().unwrap_or(1);
                                if !own {
                                    return Some(status(code));
                                }
                                self.machine.order(Order::Step(Step::Exit(code)));
                            }
                            line = rest.to_owned();
                        }
                    }
                    Input::Resize(size) => {
                        let text = format!("size {}x{}\r\n", size["Width"], size["Height"]);
                        self.send(STDOUT, text.as_bytes()).await;
                    }
                    Input::End | Input::Gone => return None,
                },
            }
        }
    }
}
