//! A terminal: to the weaver's own command, or to another that runs beside it.

use std::time::Duration;

use axum::{
    extract::{
        FromRequestParts as _, State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    response::Response,
};
use bytes::{Buf as _, Bytes, BytesMut};
use futures::{SinkExt as _, channel::mpsc};
use http::{HeaderValue, header, request::Parts};
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use loom_core::{
    Error, Path, Principal, Result,
    error::Problem,
    id::WeaverId,
    principal::{Authentication, RequestInfo},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep_until, timeout},
};

use super::{
    OPENING, Outcome, Place, SIGN, mark, not_opened, outcome, require_command, require_running,
    wire::{self, Close, Word},
};
use crate::{Weavers, access, model::Row, pod::CONTAINER};

/// Of one message of a client.
const MESSAGE: usize = 64 * 1024;
/// Between the cluster and us, and of one message to the client.
const PIPE: usize = 64 * 1024;
/// Whose places those have who have not said yet who they are.
const NOBODY: &str = "nobody";
/// Until the first message says who it is.
const GREETING: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long is gone.
const SENDING: Duration = Duration::from_secs(30);
/// Whether it still may.
const RECHECK: Duration = Duration::from_secs(5);
const PING: Duration = Duration::from_secs(30);
/// How it ended comes after its output, the rest of the output after that; waited for so long.
const LAST: Duration = Duration::from_secs(3);

/// Attach a terminal to a weaver
///
/// A WebSocket. Binary messages are input and output; text is JSON: `{"type":"resize","cols","rows"}` and
/// `{"type":"eof"}` up, `{"type":"status",…}` and `{"type":"exit","code"}` down (`code` null: not known). Without
/// `command` it is the weaver's own command; with it (once for each word) that command runs beside it, with a
/// terminal unless `tty=false`. Who cannot send a credential with the handshake takes a token from
/// `/auth/ws-token` for `?token=`, or sends `{"type":"auth","token"}` first. Closed with 4401 unauthenticated,
/// 4403 revoked, 4408 idle, 1001 when the server goes.
#[utoipa::path(
    get,
    path = "/api/weaver/{id}/attach",
    operation_id = "attach_to_weaver",
    tag = "weavers",
    params(
        ("id" = WeaverId, Path),
        ("command" = Option<Vec<String>>, Query, description = "A program to run beside the weaver's own, and its arguments", explode),
        ("tty" = Option<bool>, Query, description = "Whether that program gets a terminal (true)"),
        ("token" = Option<String>, Query, description = "From `/auth/ws-token`"),
    ),
    responses(
        (status = 101, description = "The WebSocket is open"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`weaver_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`weaver_not_running`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_sessions`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`feature_disabled`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn attach(
    State(weavers): State<Weavers>,
    info: RequestInfo,
    Path(id): Path<WeaverId>,
    mut parts: Parts,
) -> Result<Response> {
    let known = parts.extensions.get::<Authentication>().unwrap_or(&Authentication::Anonymous);
    let principal = match known {
        Authentication::Known(principal) => Some(principal.clone()),
        Authentication::Refused(error) => return Err(error.clone()),
        Authentication::Anonymous => None,
    };
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let Ok(upgrade) = upgrade else {
        // Whether there is such a weaver is nobody's business who may not know.
        let principal = principal.ok_or_else(anonymous)?;
        weavers.to_write(&principal, id).await?;
        return Err(Error::malformed(
            "invalid_request",
            "this is a WebSocket: send the handshake of one",
        ));
    };
    let program = Program::of(parts.uri.query().unwrap_or_default())?;
    let (allowed, unknown) = match principal {
        Some(principal) => (Some(Allowed::look(&weavers, principal, id).await?), None),
        None => (None, Some(weavers.inside.take(NOBODY.to_owned())?)),
    };
    let upgrade = upgrade.max_message_size(MESSAGE).max_frame_size(MESSAGE);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let visit = Visit { weavers, info, id, parts, program };
        visit.run(socket, allowed, unknown).await;
    }))
}

fn anonymous() -> Error {
    Error::unauthenticated(
        "sign in: send a credential, or a token from /auth/ws-token as `?token=`",
    )
}

/// What runs beside the weaver's own command.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    command: Vec<String>,
    tty: bool,
}

impl Program {
    /// # Errors
    /// 422 for what is no command.
    fn of(query: &str) -> Result<Self> {
        let mut program = Self { command: Vec::new(), tty: true };
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "command" => {
                    let value = value.replace('+', " ");
                    let word = percent_encoding::percent_decode_str(&value).decode_utf8();
                    let word = word.map_err(|_| Error::invalid("command", "is no text"))?;
                    program.command.push(word.into_owned());
                }
                "tty" => program.tty = value != "false",
                _ => {}
            }
        }
        if !program.command.is_empty() {
            require_command(&program.command)?;
        }
        Ok(program)
    }
}

/// Who may enter which.
struct Allowed {
    principal: Principal,
    row: Row,
    _place: Place,
}

impl Allowed {
    async fn look(weavers: &Weavers, principal: Principal, id: WeaverId) -> Result<Self> {
        let row = weavers.to_write(&principal, id).await?;
        require_running(&row)?;
        weavers.cluster()?;
        let place = weavers.inside.take(principal.holder())?;
        Ok(Self { principal, row, _place: place })
    }
}

struct Visit {
    weavers: Weavers,
    info: RequestInfo,
    id: WeaverId,
    parts: Parts,
    program: Program,
}

/// What went through.
#[derive(Default)]
struct Traffic {
    up: u64,
    down: u64,
}

impl Visit {
    /// `unknown`: the place of one that has not said yet who it is.
    async fn run(self, mut socket: WebSocket, allowed: Option<Allowed>, unknown: Option<Place>) {
        let allowed = match allowed {
            Some(allowed) => allowed,
            None => match self.greet(&mut socket).await {
                Ok(Some(allowed)) => allowed,
                Ok(None) => return,
                Err(error) => {
                    let is_unknown = error.status() == http::StatusCode::UNAUTHORIZED;
                    let close = if is_unknown { Close::Unauthenticated } else { Close::Done };
                    return refuse(&mut socket, &error, close).await;
                }
            },
        };
        drop(unknown);
        let began = Instant::now();
        let (process, tty) = match self.open(&allowed).await {
            Ok(open) => open,
            Err(error) => return refuse(&mut socket, &error, Close::Done).await,
        };
        let mut traffic = Traffic::default();
        let end = self.carry(&mut socket, process, tty, &allowed, &mut traffic).await;
        let details = json!({"secs": began.elapsed().as_secs(), "bytes_in": traffic.up, "bytes_out": traffic.down});
        let target = self.id.to_string();
        let audit = &self.weavers.deps.audit;
        let noted =
            audit.done(&allowed.principal, &self.info, "weaver.detach", target, details).await;
        if let Err(error) = noted {
            tracing::warn!(%error, weaver = %self.id, "that a terminal was closed is not in the audit log");
        }
        if let Some(close) = end {
            send(&mut socket, close.message()).await;
        }
    }

    /// Waits for the message that says who it is.
    async fn greet(&self, socket: &mut WebSocket) -> Result<Option<Allowed>> {
        let first = timeout(GREETING, async {
            loop {
                match socket.recv().await {
                    Some(Ok(Message::Text(text))) => return Some(text),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    _ => return None,
                }
            }
        })
        .await;
        let Ok(first) = first else { return Err(anonymous()) };
        let Some(first) = first else { return Ok(None) };
        let Ok(Word::Auth { token }) = serde_json::from_str(&first) else {
            return Err(anonymous());
        };
        let parts = with_token(&self.parts, &token).ok_or_else(anonymous)?;
        match self.weavers.deps.who.again(&parts).await {
            Authentication::Known(principal) => {
                Allowed::look(&self.weavers, principal, self.id).await.map(Some)
            }
            Authentication::Refused(error) => Err(Error::unauthenticated(error.to_string())),
            Authentication::Anonymous => Err(anonymous()),
        }
    }

    async fn open(&self, allowed: &Allowed) -> Result<(AttachedProcess, bool)> {
        let cluster = self.weavers.cluster()?;
        let pods = cluster.pods();
        let own = self.program.command.is_empty();
        let tty = if own {
            let pod = timeout(OPENING, pods.get(&allowed.row.pod_name)).await;
            let pod =
                pod.map_err(|_| not_opened(None))?.map_err(|error| not_opened(Some(error)))?;
            let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
            let container = containers.into_iter().find(|one| one.name == CONTAINER);
            container.and_then(|container| container.tty).unwrap_or(false)
        } else {
            self.program.tty
        };
        let details = json!({"command": self.program.command.iter()
            .map(|word| loom_redact::shared().redact(word).into_owned()).collect::<Vec<_>>(), "tty": tty});
        let deps = &self.weavers.deps;
        deps.audit
            .done(&allowed.principal, &self.info, "weaver.attach", self.id.to_string(), details)
            .await?;
        let params = AttachParams::default()
            .container(CONTAINER)
            .stdin(true)
            .stdout(true)
            // With a terminal there is one output.
            .stderr(!tty)
            .tty(tty)
            .max_stdin_buf_size(PIPE)
            .max_stdout_buf_size(PIPE);
        let params = if tty { params } else { params.max_stderr_buf_size(PIPE) };
        let name = &allowed.row.pod_name;
        let opened = if own {
            timeout(OPENING, pods.attach(name, &params)).await
        } else {
            timeout(OPENING, pods.exec(name, self.program.command.clone(), &params)).await
        };
        match opened {
            Ok(Ok(process)) => Ok((process, tty)),
            Ok(Err(error)) => Err(not_opened(Some(error))),
            Err(_) => Err(not_opened(None)),
        }
    }

    /// Until one side ends. None: the client is gone.
    async fn carry(
        &self,
        socket: &mut WebSocket,
        mut process: AttachedProcess,
        tty: bool,
        allowed: &Allowed,
        traffic: &mut Traffic,
    ) -> Option<Close> {
        let mut stdin = process.stdin();
        let (mut stdout, mut stderr) = (process.stdout(), process.stderr());
        let mut sizes = process.terminal_size();
        let status = process.take_status();
        let mut status = std::pin::pin!(async {
            match status {
                Some(status) => status.await,
                None => None,
            }
        });
        // A connection that broke leaves its outputs open for ever.
        let (mut ended, mut last) = (None, None);
        let (mut out, mut err) = (BytesMut::new(), BytesMut::new());
        // What the program has not taken yet, and since when: its outputs are read meanwhile.
        let (mut input, mut taken) = (Bytes::new(), Instant::now());
        let idle = self.weavers.config.attach_idle;
        let mut quiet_since = Instant::now();
        let mut next_check = Instant::now() + RECHECK;
        let mut next_ping = Instant::now() + PING;
        let mut next_sign = Instant::now() + SIGN;
        mark(&self.weavers, &allowed.row).await;
        if !send(socket, wire::attached(tty)).await {
            return None;
        }
        while stdout.is_some() || stderr.is_some() {
            let mut happened = true;
            tokio::select! {
                now = &mut status, if last.is_none() => {
                    ended = now;
                    last = Some(Instant::now() + LAST);
                }
                () = sleep_until(last.unwrap_or(quiet_since + idle)), if last.is_some() => break,
                () = self.weavers.leaving.cancelled() => return Some(Close::Shutdown),
                more = read(&mut stdout, &mut out) => match more {
                    Some(bytes) => {
                        traffic.down += bytes.len() as u64;
                        if !send(socket, wire::bytes(bytes)).await {
                            return None;
                        }
                    }
                    None => stdout = None,
                },
                more = read(&mut stderr, &mut err) => match more {
                    Some(bytes) => {
                        traffic.down += bytes.len() as u64;
                        if !send(socket, wire::bytes(bytes)).await {
                            return None;
                        }
                    }
                    None => stderr = None,
                },
                () = write(&mut stdin, &mut input), if !input.is_empty() => taken = Instant::now(),
                () = sleep_until(taken + SENDING), if !input.is_empty() => return Some(Close::Idle),
                message = socket.recv(), if input.is_empty() => match message {
                    Some(Ok(Message::Binary(bytes))) => {
                        traffic.up += bytes.len() as u64;
                        (input, taken) = (bytes, Instant::now());
                    }
                    Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                        Ok(Word::Resize { cols, rows }) => resize(&mut sizes, cols, rows).await,
                        Ok(Word::Eof) => {
                            if let Some(mut open) = stdin.take() {
                                let _ = open.shutdown().await;
                            }
                        }
                        // Once is enough.
                        Ok(Word::Auth { .. }) => {}
                        Err(_) => return Some(Close::Bad),
                    },
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => happened = false,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                },
                () = sleep_until(next_check) => {
                    happened = false;
                    next_check = Instant::now() + RECHECK;
                    if !self.still_may(allowed).await {
                        return Some(Close::Revoked);
                    }
                }
                () = sleep_until(next_sign) => {
                    happened = false;
                    next_sign = Instant::now() + SIGN;
                    mark(&self.weavers, &allowed.row).await;
                }
                () = sleep_until(next_ping) => {
                    happened = false;
                    next_ping = Instant::now() + PING;
                    if !send(socket, Message::Ping(Bytes::new())).await {
                        return None;
                    }
                }
                () = sleep_until(quiet_since + idle) => return Some(Close::Idle),
            }
            if happened {
                quiet_since = Instant::now();
            }
        }
        if last.is_none() {
            ended = timeout(LAST, status).await.ok().flatten();
        }
        let exit = match outcome(ended) {
            Outcome::Exited(code) => wire::exit(Some(code)),
            Outcome::Unknown => wire::exit(None),
            Outcome::Refused(message) => wire::failed("command_not_started", &message),
        };
        send(socket, exit).await.then_some(Close::Done)
    }

    async fn still_may(&self, allowed: &Allowed) -> bool {
        let row = &allowed.row;
        let now = self.weavers.deps.who.still(&allowed.principal, &self.info).await;
        now.still(|now| {
            access::writes(&now).is_ok_and(|may| may.sees(row.org_id, row.owner_id, row.id))
        })
    }
}

/// The request, as if it had come with this credential.
fn with_token(parts: &Parts, token: &str) -> Option<Parts> {
    let mut parts = parts.clone();
    if token.starts_with("ws_") {
        let is_plain =
            token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let query = parts.uri.query().map(|query| format!("{query}&")).unwrap_or_default();
        let uri = format!("{}?{query}token={token}", parts.uri.path());
        parts.uri = is_plain.then(|| uri.parse().ok()).flatten()?;
    } else {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        parts.headers.insert(header::AUTHORIZATION, value);
    }
    Some(parts)
}

async fn resize(sizes: &mut Option<mpsc::Sender<TerminalSize>>, width: u16, height: u16) {
    if let Some(open) = sizes
        && width > 0
        && height > 0
        && open.send(TerminalSize { width, height }).await.is_err()
    {
        *sizes = None;
    }
}

/// What there is; None at the end. Nothing is lost when it is dropped.
async fn read(from: &mut Option<impl AsyncRead + Unpin>, buffer: &mut BytesMut) -> Option<Bytes> {
    let Some(open) = from else { return std::future::pending().await };
    buffer.reserve(PIPE / 4);
    match open.read_buf(buffer).await {
        Ok(count) if count > 0 => Some(buffer.split().freeze()),
        _ => None,
    }
}

/// Writes what is taken; nothing is lost or written twice when it is dropped.
async fn write(to: &mut Option<impl AsyncWrite + Unpin>, bytes: &mut Bytes) {
    let written = match to {
        Some(open) => open.write(bytes).await.unwrap_or_default(),
        None => 0,
    };
    if written == 0 {
        *to = None;
        bytes.clear();
    }
    bytes.advance(written);
}

/// Did it go out?
async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(SENDING, socket.send(message)).await, Ok(Ok(())))
}

async fn refuse(socket: &mut WebSocket, error: &Error, close: Close) {
    let problem = wire::failed(error.code(), &error.to_string());
    if send(socket, problem).await {
        send(socket, close.message()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_read_word_by_word() {
        let of = |query| Program::of(query).unwrap();
        assert_eq!(of("token=x"), Program { command: Vec::new(), tty: true });
        let words = ["sh", "-c", "echo a b; exit 1"].map(str::to_owned).to_vec();
        let query = "command=sh&tty=false&command=-c&command=echo+a%20b%3B%20exit%201";
        assert_eq!(of(query), Program { command: words, tty: false });
        for bad in ["command=", "command=%FF", "command=a%00b"] {
            assert!(Program::of(bad).is_err(), "{bad}");
        }
    }
}
