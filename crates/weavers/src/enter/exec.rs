//! One command, to its end.

use std::time::Duration;

use axum::extract::State;
use kube::api::{AttachParams, AttachedProcess};
use loom_core::{
    Error, Json, Path, Principal, Result, error::Problem, id::WeaverId, principal::RequestInfo,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};
use utoipa::ToSchema;

use super::{OPENING, Outcome, SIGN, mark, not_opened, outcome, require_command, require_running};
use crate::{Weavers, pod::CONTAINER};

const TIMEOUT: u64 = 60;
const LONGEST: u64 = 600;
/// Of each of the two outputs.
const OUTPUT: usize = 1024 * 1024;
/// Between the cluster and us.
const PIPE: usize = 64 * 1024;
/// How a process ended comes after its output, the rest of the output after that; waited for so long.
const LAST: Duration = Duration::from_secs(3);

#[derive(Deserialize, ToSchema)]
#[schema(as = WeaverExecRequest)]
pub(crate) struct ExecRequest {
    /// The program and its arguments; no shell takes part.
    command: Vec<String>,
    /// What it reads. Kubernetes before 1.30 cannot tell a program that its input ends without giving up the rest:
    /// `exit_code` is null then.
    stdin: Option<String>,
    /// 1 to 600; 60 when it is not said.
    timeout_secs: Option<u64>,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WeaverExecEnd)]
pub(crate) enum How {
    /// It ended, with `exit_code`.
    Exited,
    /// The time was over; it may go on in the weaver.
    TimedOut,
    /// How it ended was not heard of.
    Unknown,
}

#[derive(Serialize, ToSchema)]
#[schema(as = WeaverExecAnswer)]
pub(crate) struct ExecAnswer {
    /// Null when it is not known: that is no success.
    exit_code: Option<i32>,
    outcome: How,
    /// What is no UTF-8 is replaced.
    stdout: String,
    stderr: String,
    /// There was more output than is given.
    truncated: bool,
}

/// Run a command in a weaver
///
/// For short ones: what is to last is the weaver's own command.
#[utoipa::path(
    post,
    path = "/api/weaver/{id}/exec",
    operation_id = "exec_in_weaver",
    tag = "weavers",
    params(("id" = WeaverId, Path)),
    request_body = ExecRequest,
    responses(
        (status = 200, body = ExecAnswer),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`weaver_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`weaver_not_running`", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_request`, or `command_not_started`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_sessions`", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "`kubernetes_error`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`feature_disabled`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn exec(
    State(weavers): State<Weavers>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<WeaverId>,
    Json(wanted): Json<ExecRequest>,
) -> Result<Json<ExecAnswer>> {
    let row = weavers.to_write(&principal, id).await?;
    require_command(&wanted.command)?;
    let secs = wanted.timeout_secs.unwrap_or(TIMEOUT);
    if !(1..=LONGEST).contains(&secs) {
        return Err(Error::invalid("timeout_secs", format!("is from 1 to {LONGEST}")));
    }
    require_running(&row)?;
    let cluster = weavers.cluster()?;
    let _place = weavers.inside.take(principal.holder())?;
    let shown: Vec<_> =
        wanted.command.iter().map(|word| loom_redact::shared().redact(word).into_owned()).collect();
    let details = json!({"command": shown, "stdin_bytes": wanted.stdin.as_ref().map(String::len)});
    weavers.deps.audit.done(&principal, &info, "weaver.exec", id.to_string(), details).await?;
    mark(&weavers, &row).await;

    let params = AttachParams::default()
        .container(CONTAINER)
        .stdin(wanted.stdin.is_some())
        .max_stdout_buf_size(PIPE)
        .max_stderr_buf_size(PIPE)
        .max_stdin_buf_size(PIPE);
    let pods = cluster.pods();
    let opened = timeout(OPENING, pods.exec(&row.pod_name, wanted.command, &params)).await;
    let process = match opened {
        Ok(Ok(process)) => process,
        Ok(Err(error)) => return Err(not_opened(Some(error))),
        Err(_) => return Err(not_opened(None)),
    };
    let mut running = std::pin::pin!(run(process, wanted.stdin, Duration::from_secs(secs)));
    let answer = loop {
        tokio::select! {
            answer = &mut running => break answer?,
            () = sleep(SIGN) => mark(&weavers, &row).await,
        }
    };
    mark(&weavers, &row).await;
    Ok(Json(answer))
}

async fn run(
    mut process: AttachedProcess,
    input: Option<String>,
    longest: Duration,
) -> Result<ExecAnswer> {
    let (stdin, stdout, stderr) = (process.stdin(), process.stdout(), process.stderr());
    let status = process.take_status();
    let (mut out, mut err) = (Kept::default(), Kept::default());
    let ended = {
        let write = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // A program that does not read it all is no failure.
                let _ = stdin.write_all(input.as_bytes()).await;
                let _ = stdin.shutdown().await;
            }
        };
        let output = async { tokio::join!(out.read(stdout), err.read(stderr)) };
        let status = async {
            match status {
                Some(status) => status.await,
                None => None,
            }
        };
        timeout(longest, async {
            let (mut output, mut status) = (std::pin::pin!(output), std::pin::pin!(status));
            let ended = tokio::select! {
                ((), ended) = async { tokio::join!(write, &mut status) } => ended,
                _ = &mut output => return timeout(LAST, status).await.ok().flatten(),
            };
            // A connection that broke leaves its outputs open for ever.
            let _ = timeout(LAST, output).await;
            ended
        })
        .await
    };
    let (exit_code, how) = match ended {
        Err(_) => (None, How::TimedOut),
        Ok(ended) => match outcome(ended) {
            Outcome::Exited(code) => (Some(code), How::Exited),
            Outcome::Unknown => (None, How::Unknown),
            Outcome::Refused(message) => {
                return Err(Error::new(
                    http::StatusCode::UNPROCESSABLE_ENTITY,
                    "command_not_started",
                    format!("the command could not be started: {message}"),
                ));
            }
        },
    };
    let truncated = out.more || err.more;
    Ok(ExecAnswer { exit_code, outcome: how, stdout: out.text(), stderr: err.text(), truncated })
}

/// The beginning of an output.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    more: bool,
}

impl Kept {
    /// To its end: who is not read from cannot go on.
    async fn read(&mut self, output: Option<impl AsyncRead + Unpin>) {
        let Some(mut output) = output else { return };
        let mut piece = vec![0; 16 * 1024];
        while let Ok(count) = output.read(&mut piece).await
            && count > 0
        {
            let room = OUTPUT.saturating_sub(self.bytes.len());
            self.more |= count > room;
            self.bytes.extend_from_slice(piece.get(..count.min(room)).unwrap_or_default());
        }
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}
