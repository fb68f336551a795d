//! Runs as they begin and end, on whichever server, for those who watch.

use std::{fmt::Write, sync::Arc, time::Duration};

use axum::{extract::State, response::Response};
use bytes::Bytes;
use futures::{Stream, stream};
use http::request::Parts;
use loom_core::{
    Error, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::RunId,
    principal::{Authentication, Scope},
    sse::{self, Bye, KEEP_ALIVE, Leash, Places, Recheck, Seat},
};
use loom_db::{Signal, Subscription};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::{
    http::Admin,
    model::{Job, RunStatus},
    scheduler::Inner,
};

/// On which replicas tell each other of runs: one JSON object each.
pub const RUNS_CHANNEL: &str = "loom_job_runs";

const RECHECK: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// Events are given out on an authorisation that is no older than this.
const FRESH: Duration = Duration::from_secs(1);

/// Who watches.
pub(crate) const PLACES: Places = Places {
    streams: "streams of jobs",
    gauge: "loom_job_watchers",
    most: 500,
    most_of_one: 50,
    instead: "",
};

impl Inner {
    /// Tells those who watch; to be called after the commit.
    pub(crate) fn say(&self, job: &Job, run: RunId, status: RunStatus, duration_ms: Option<i64>) {
        let told =
            json!({"job": job.id, "run_id": run, "status": status, "duration_ms": duration_ms});
        self.announcer.say(told.to_string());
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// Only the runs of this job.
    job: Option<String>,
}

/// Follow the runs of jobs.
///
/// Server-sent events: first `ready`; then `run`, when one begins (`status` is `running`) and when it has
/// ended, as `{job, run_id, status, duration_ms}`. `lagged`: something was missed; read again. `bye` is the
/// last event: after an hour (`max_duration`), when the credential is not good any more (`revoked`), or
/// when the server goes down (`shutdown`).
#[utoipa::path(get, path = "/api/admin/jobs/stream", tag = "jobs", params(StreamQuery), security(("api_key" = [])),
    responses((status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Auditors and system admins may", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such job", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_watchers`", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn watch_jobs(
    State(admin): State<Admin>,
    principal: Principal,
    Query(query): Query<StreamQuery>,
    parts: Parts,
) -> Result<Response> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    let inner = &admin.scheduler.0;
    if let Some(job) = &query.job
        && !inner.jobs.contains_key(job.as_str())
    {
        return Err(Error::not_found("job"));
    }
    let seat = inner.seats.sit(principal.holder())?;
    let said = inner.hub.subscribe(RUNS_CHANNEL);
    let leash = Leash::new(inner.streams.clone(), recheck(&admin, parts), RECHECK, LONGEST);
    let watch = Watch { job: query.job, said, leash, _seat: seat, begun: false, ended: false };
    Ok(sse::raw_response(watch.events()))
}

/// Asks who is behind the request once more, and what they may now.
fn recheck(admin: &Admin, parts: Parts) -> Recheck {
    let (who, parts) = (Arc::clone(&admin.who), Arc::new(parts));
    Box::new(move || {
        let (who, parts) = (Arc::clone(&who), Arc::clone(&parts));
        Box::pin(async move {
            match who.again(&parts).await {
                Authentication::Known(now) => {
                    authorize(&now, Action::InspectSystem(Scope::AdminRead)).is_ok()
                }
                // Nobody could be asked: an outage is no reason to go blind.
                Authentication::Refused(error) => error.status().is_server_error(),
                Authentication::Anonymous => false,
            }
        })
    })
}

struct Watch {
    job: Option<String>,
    said: Subscription,
    leash: Leash,
    _seat: Seat,
    begun: bool,
    ended: bool,
}

impl Watch {
    fn events(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut watch| async move {
            if watch.ended {
                return None;
            }
            let piece = match watch.piece().await {
                Ok(piece) => Bytes::from(piece),
                Err(bye) => {
                    watch.ended = true;
                    Bytes::from_static(bye.event().as_bytes())
                }
            };
            Some((piece, watch))
        })
    }

    async fn piece(&mut self) -> std::result::Result<String, Bye> {
        if !self.begun {
            self.begun = true;
            return Ok("event: ready\ndata: {}\n\n".to_owned());
        }
        // What is heard of other jobs is no sign of life here.
        let until = Instant::now() + KEEP_ALIVE;
        loop {
            let next = timeout_at(until, self.said.next());
            let piece = match self.leash.unless_ended(next).await? {
                Ok(Some(Signal::Said(words))) if *words != *loom_db::READ_AGAIN => {
                    self.tell(&words)
                }
                Ok(Some(_)) => "event: lagged\ndata: {}\n\n".to_owned(),
                Ok(None) => return Err(Bye::Shutdown),
                Err(_) => return Ok(": keep-alive\n\n".to_owned()),
            };
            if !piece.is_empty() {
                self.leash.check_again(FRESH).await?;
                return Ok(piece);
            }
        }
    }

    fn tell(&self, word: &str) -> String {
        let mut piece = String::new();
        // Of another version of the server it may be something else.
        if let Ok(told) = serde_json::from_str::<Value>(word)
            && let Some(job) = told.get("job").and_then(Value::as_str)
            && self.job.as_deref().is_none_or(|one| one == job)
        {
            // Writing into a string does not fail.
            let _ = write!(piece, "event: run\ndata: {told}\n\n");
        }
        piece
    }
}
