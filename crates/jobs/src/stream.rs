//! Runs as they begin and end, on whichever server, for those who watch.

use axum::{extract::State, response::Response};
use bytes::Bytes;
use futures::{StreamExt as _, future::ready};
use http::request::Parts;
use loom_core::{
    Error, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::RunId,
    principal::Scope,
    sse::{self, Leash, Places},
};
use loom_db::Signal;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    http::Admin,
    model::{Job, RunStatus},
    scheduler::Inner,
};

/// On which replicas tell each other of runs: one JSON object each.
pub const RUNS_CHANNEL: &str = "loom_job_runs";

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
    let may = |now: Principal| authorize(&now, Action::InspectSystem(Scope::AdminRead)).is_ok();
    let recheck = sse::recheck(&admin.who, parts, may);
    let leash = Leash::new(inner.streams.clone(), recheck);
    let heard = said.signals().filter_map(move |signal| {
        let piece = match &signal {
            Signal::ReadAgain => Some("event: lagged\ndata: {}\n\n".to_owned()),
            Signal::Said(word) => tell(word, query.job.as_deref()),
        };
        ready(piece.map(Bytes::from))
    });
    let begin = Bytes::from_static(b"event: ready\ndata: {}\n\n");
    Ok(sse::raw_response(sse::watch(begin, heard, leash, seat)))
}

fn tell(word: &str, job: Option<&str>) -> Option<String> {
    // Of another version of the server it may be something else.
    let told: Value = serde_json::from_str(word).ok()?;
    let of = told.get("job")?.as_str()?;
    job.is_none_or(|one| one == of).then(|| format!("event: run\ndata: {told}\n\n"))
}
