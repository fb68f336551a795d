//! Git's smart protocol over HTTP. Each request is served by one `git upload-pack` or `git receive-pack`
//! rather than by `git http-backend`: that is a CGI program, which would have to be told in variables what
//! is known here, answers with headers to be parsed, buffers requests to find their length, and starts the
//! same two programs.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use async_compression::tokio::bufread::GzipDecoder;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use chrono::TimeDelta;
use futures::{StreamExt, TryStreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use loom_core::{
    Error, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    id::{RepositoryId, new_uuid},
    principal::{self, Scope},
};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, BufReader},
    process::Command,
    sync::{OwnedSemaphorePermit, mpsc},
    time::{sleep, timeout},
};
use tokio_util::{io::StreamReader, sync::CancellationToken};

use super::not_found;
use crate::{
    Scm, disk, git,
    model::Repository,
    name::is_repository_name,
    session::{self, Ending, Input, Limits, Outcome},
    store,
};

/// What a clone asks for: lines of what it wants and has.
const MAX_WANTS: u64 = 32 << 20;
/// Of a push beside its pack: the commands. Git itself says what is wrong with a larger pack.
const MAX_COMMANDS: u64 = 16 << 20;
/// An empty request, by which a client learns whether it may push.
const FLUSH: u64 = 4;
/// A turn on a busy server.
const WAIT: Duration = Duration::from_secs(5);
/// A push waits this long for the removal of objects to end.
const WAIT_FOR_RECLAIM: Duration = Duration::from_secs(50);
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Pieces of an answer between git and a slow client.
const PIECES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    UploadPack,
    ReceivePack,
}

impl Service {
    fn of(name: &str) -> Option<Self> {
        match name {
            "git-upload-pack" => Some(Self::UploadPack),
            "git-receive-pack" => Some(Self::ReceivePack),
            _ => None,
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::UploadPack => "upload-pack",
            Self::ReceivePack => "receive-pack",
        }
    }

    fn scope(self) -> Scope {
        match self {
            Self::UploadPack => Scope::ReposRead,
            Self::ReceivePack => Scope::ReposWrite,
        }
    }
}

pub(crate) fn routes(scm: Scm) -> Router {
    Router::new()
        .route("/git/{org}/{repo}/info/refs", get(info_refs))
        .route("/git/{org}/{repo}/git-upload-pack", post(upload_pack))
        .route("/git/{org}/{repo}/git-receive-pack", post(receive_pack))
        .route_layer(middleware::from_fn(principal::required))
        .route_layer(middleware::from_fn(in_plain_words))
        .with_state(scm)
}

/// Git shows its user what an error says when it is plain text, and asks for a password when it is told
/// that one would do.
async fn in_plain_words(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(error) = response.extensions().get::<Error>().cloned() else { return response };
    let is_unknown = error.status() == StatusCode::UNAUTHORIZED;
    let hint = if is_unknown { "git: any user name, and a Loom key as the password\n" } else { "" };
    *response.body_mut() = Body::from(format!("{}\n{hint}", error.detail()));
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if is_unknown {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Loom\""));
    }
    response
}

#[derive(Deserialize)]
struct RefsQuery {
    service: Option<String>,
}

type Named = Path<(String, String)>;

async fn info_refs(
    State(scm): State<Scm>,
    principal: Principal,
    Path((org, repo)): Named,
    Query(query): Query<RefsQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let service = query.service.as_deref().and_then(Service::of).ok_or_else(|| {
        Error::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "this server speaks git's smart protocol only; use git 1.6.6 or newer",
        )
    })?;
    let repository = scm.open(&principal, &org, &repo, service).await?;
    let protocol = protocol(&headers);
    let mut command = scm.git(&repository, service, protocol)?;
    command.args(["--stateless-rpc", "--advertise-refs", "."]);
    // In version 2 the service is announced no more; a push has no version 2.
    let is_v2 = protocol == Some("version=2") && service == Service::UploadPack;
    let preface = if is_v2 {
        Bytes::new()
    } else {
        let line = format!("# service=git-{}\n", service.command());
        Bytes::from(format!("{:04x}{line}0000", line.len() + 4))
    };
    let input: Input = Box::pin(tokio::io::empty());
    let turn = scm.turn().await?;
    let serving = Serving { service, repository, is_refs: true, push: None, _turn: turn };
    scm.serve(serving, command, input, 0, preface).await
}

async fn upload_pack(
    State(scm): State<Scm>,
    principal: Principal,
    Path((org, repo)): Named,
    request: Request,
) -> Result<Response> {
    scm.exchange(&principal, &org, &repo, Service::UploadPack, request).await
}

async fn receive_pack(
    State(scm): State<Scm>,
    principal: Principal,
    Path((org, repo)): Named,
    request: Request,
) -> Result<Response> {
    scm.exchange(&principal, &org, &repo, Service::ReceivePack, request).await
}

/// What is being served, for its end.
struct Serving {
    service: Service,
    repository: Repository,
    is_refs: bool,
    /// The row of a push under way.
    push: Option<uuid::Uuid>,
    _turn: OwnedSemaphorePermit,
}

impl Scm {
    /// The repository that a URL names, if the principal may use it so.
    async fn open(
        &self,
        principal: &Principal,
        org: &str,
        repo: &str,
        service: Service,
    ) -> Result<Repository> {
        authorize(principal, Action::Use(service.scope()))?;
        let name = repo.strip_suffix(".git").unwrap_or(repo);
        let id = name.parse::<RepositoryId>().ok();
        if id.is_none() && !is_repository_name(name) {
            return Err(not_found());
        }
        let org = self.orgs.org_id(org).await?.ok_or_else(not_found)?;
        let mut db = self.pool.acquire().await?;
        let repository = store::find_named(&mut db, org, id, name)
            .await?
            .filter(|found| found.ownership().visible_to(principal))
            .ok_or_else(not_found)?;
        if service == Service::ReceivePack {
            repository.require_push(principal)?;
        }
        Ok(repository)
    }

    fn git(
        &self,
        repository: &Repository,
        service: Service,
        protocol: Option<&str>,
    ) -> Result<Command> {
        let mut command = git::command(&self.directory(repository)?);
        if let Some(protocol) = protocol {
            command.env("GIT_PROTOCOL", protocol);
        }
        if service == Service::ReceivePack {
            let used = u64::try_from(repository.size_bytes).unwrap_or_default();
            let room = self.config.max_repository_bytes.saturating_sub(used);
            // 0 would be no limit; with 1 a push without a pack, which deletes branches, still goes through.
            let most = room.min(self.config.max_push_bytes).max(1);
            command.arg("-c").arg(format!("receive.maxInputSize={most}"));
        }
        command.arg(service.command());
        Ok(command)
    }

    async fn exchange(
        &self,
        principal: &Principal,
        org: &str,
        repo: &str,
        service: Service,
        request: Request,
    ) -> Result<Response> {
        let repository = self.open(principal, org, repo, service).await?;
        let headers = request.headers();
        let expected = format!("application/x-git-{}-request", service.command());
        if headers
            .get(header::CONTENT_TYPE)
            .is_none_or(|kind| kind.as_bytes() != expected.as_bytes())
        {
            return Err(Error::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                format!("send `content-type: {expected}`, as git does"),
            ));
        }
        let is_gzip = match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => false,
            Some(b"gzip" | b"x-gzip") => true,
            Some(_) => {
                return Err(Error::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "unsupported_media_type",
                    "a body is sent as it is or with gzip",
                ));
            }
        };
        let mut command = self.git(&repository, service, protocol(headers))?;
        command.args(["--stateless-rpc", "."]);
        let limit = match service {
            Service::UploadPack => MAX_WANTS,
            Service::ReceivePack => {
                // Of a larger one git is given enough to see that it is, and to say so.
                self.config.max_push_bytes.saturating_add(MAX_COMMANDS)
            }
        };
        let body = request.into_body().into_data_stream().map_err(std::io::Error::other);
        let body = StreamReader::new(body);
        let input: Pin<Box<dyn AsyncRead + Send>> = if is_gzip {
            Box::pin(GzipDecoder::new(BufReader::with_capacity(16 << 10, body)))
        } else {
            Box::pin(body)
        };
        let turn = self.turn().await?;
        let push = match service {
            Service::UploadPack => None,
            Service::ReceivePack => Some(self.begin_push(&repository).await?),
        };
        let serving = Serving { service, repository, is_refs: false, push, _turn: turn };
        self.serve(serving, command, input, limit, Bytes::new()).await
    }

    /// Notes the push, so that nothing is removed from the repository until it has ended.
    async fn begin_push(&self, repository: &Repository) -> Result<uuid::Uuid> {
        let wait = TimeDelta::from_std(self.config.timeout * 2).unwrap_or(TimeDelta::MAX);
        let begin = async {
            loop {
                let now = self.clock.now();
                let push = new_uuid(now);
                let mut tx = loom_db::begin(&self.pool).await?;
                let (org, id) = (repository.org_id, repository.id);
                let begun = store::pushes::begin(&mut tx, org, id, push, now, now + wait).await?;
                tx.commit().await?;
                if begun {
                    return Ok(push);
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(WAIT_FOR_RECLAIM, begin).await.unwrap_or_else(|_| {
            Err(Error::unavailable(
                "the repository is being cleaned up and takes no push for some minutes; try again",
            )
            .retry_after(Duration::from_secs(60)))
        })
    }

    /// A turn: so many processes and no more.
    async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        let turn = timeout(WAIT, std::sync::Arc::clone(&self.processes).acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            metrics::counter!("loom_git_refused_total").increment(1);
            Error::unavailable("too many clones and pushes are under way just now; try again")
                .retry_after(Duration::from_secs(10))
        })
    }

    /// Runs git in a task of its own, and answers with what it says as it says it. The status waits for the
    /// first byte, so that what fails before it is told as what it is.
    async fn serve(
        &self,
        serving: Serving,
        command: Command,
        input: Input,
        limit: u64,
        preface: Bytes,
    ) -> Result<Response> {
        let (service, is_refs) = (serving.service, serving.is_refs);
        let left = CancellationToken::new();
        let gone = left.clone().drop_guard();
        let (output, mut pieces) = mpsc::channel(PIECES);
        let scm = self.clone();
        let ended = self.tasks.spawn(async move {
            let limits = Limits {
                input: limit,
                commands: if service == Service::ReceivePack { MAX_COMMANDS } else { limit },
                idle: scm.config.idle_timeout,
                total: scm.config.timeout,
            };
            let started = Instant::now();
            let stop = &scm.stop_streams;
            metrics::gauge!("loom_git_processes").increment(1);
            let outcome = session::run(command, input, &output, &limits, &left, stop).await;
            metrics::gauge!("loom_git_processes").decrement(1);
            // The answer ends when what it brought about is written down.
            scm.finish(&serving, outcome, started.elapsed()).await
        });
        let Some(first) = pieces.recv().await else {
            ended.await.map_err(Error::internal)??;
            return Ok(answer(service, is_refs, Body::from(preface)));
        };
        let rest = stream::unfold(Some((pieces, ended, gone)), |state| async move {
            let (mut pieces, ended, gone) = state?;
            if let Some(piece) = pieces.recv().await {
                return Some((Ok(piece), Some((pieces, ended, gone))));
            }
            // An answer that was broken off must not look like a whole one.
            let error = match ended.await {
                Ok(Ok(())) => return None,
                Ok(Err(error)) => std::io::Error::other(error),
                Err(error) => std::io::Error::other(error),
            };
            Some((Err(error), None))
        });
        let begin = [preface, first].into_iter().filter(|bytes| !bytes.is_empty()).map(Ok);
        let body = Body::from_stream(stream::iter(begin).chain(rest));
        Ok(answer(service, is_refs, body))
    }

    /// Writes down what a process came to, and says it to the client if nothing was answered yet.
    async fn finish(&self, serving: &Serving, outcome: Outcome, took: Duration) -> Result<()> {
        let Serving { service, repository, is_refs, push, .. } = serving;
        let is_ours = matches!(outcome.ending, Ending::Ended(..)) && outcome.bytes_in > FLUSH;
        if let Some(push) = push {
            let (org, id) = (repository.org_id, repository.id);
            let pushed = if is_ours {
                let size = disk::measure(self.disk.path(org, id)).await.bytes;
                Some((self.clock.now(), size))
            } else {
                None
            };
            if let Err(error) = store::pushes::end(&self.pool, org, id, *push, pushed).await {
                tracing::warn!(?error, repository = %id, "the end of a push was not recorded");
            }
        }
        let (word, result) = judge(outcome.ending, *is_refs);
        let name = service.command();
        metrics::counter!("loom_git_requests_total", "service" => name, "outcome" => word)
            .increment(1);
        metrics::counter!("loom_git_bytes_total", "service" => name, "direction" => "in")
            .increment(outcome.bytes_in);
        metrics::counter!("loom_git_bytes_total", "service" => name, "direction" => "out")
            .increment(outcome.bytes_out);
        metrics::histogram!("loom_git_request_seconds", "service" => name)
            .record(took.as_secs_f64());
        if let Err(error) = &result {
            let (id, said) = (repository.id, error.cause());
            tracing::warn!(repository = %id, service = name, outcome = word, said, "git did not serve a request");
        }
        result
    }
}

/// The word for the metric, and what the client is told if it can be.
fn judge(ending: Ending, is_refs: bool) -> (&'static str, Result<()>) {
    match ending {
        Ending::Ended(status, said) => match status {
            Some(status) if status.success() => ("served", Ok(())),
            status => {
                let said = git::told(status, &said);
                let error = if is_refs {
                    Error::internal(said)
                } else {
                    // Most often it is the request that git does not understand or agree to.
                    let detail = "git refused this request; `git fsck` in your clone may tell why";
                    Error::malformed("git_refused", detail).because(said)
                };
                ("failed", Err(error))
            }
        },
        Ending::TooLarge => {
            let detail = "this is more than a request to this server may hold";
            ("too_large", Err(Error::too_large(detail)))
        }
        Ending::BadBody(error) => {
            let detail = "the body did not arrive whole, or is not the gzip that it says it is";
            ("bad_body", Err(Error::malformed("incomplete_body", detail).because(error)))
        }
        // Nobody hears it.
        Ending::Left => ("left", Err(Error::malformed("incomplete_body", "the client went away"))),
        Ending::TimedOut => {
            let detail = "this took too long, or stood still for too long";
            ("timed_out", Err(Error::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", detail)))
        }
        Ending::Stopped => {
            ("stopped", Err(Error::unavailable("the server is going down; try again")))
        }
        Ending::NotStarted(error) => {
            ("not_started", Err(Error::unavailable("git cannot be started here").because(error)))
        }
    }
}

fn answer(service: Service, is_refs: bool, body: Body) -> Response {
    let kind = if is_refs { "advertisement" } else { "result" };
    let headers = [
        (header::CONTENT_TYPE, format!("application/x-git-{}-{kind}", service.command())),
        (header::CACHE_CONTROL, "no-cache, max-age=0, must-revalidate".to_owned()),
    ];
    (headers, body).into_response()
}

/// The version that the client asks for, in the words that git is given.
fn protocol(headers: &HeaderMap) -> Option<&'static str> {
    let asked = headers.get("git-protocol")?.to_str().ok()?;
    let known = ["version=0", "version=1", "version=2"];
    asked.split(':').find_map(|part| known.into_iter().find(|known| *known == part))
}
