//! What a schedule comes to, before it is saved.

use axum::extract::State;
use chrono::{DateTime, SecondsFormat, Utc};
use loom_core::{Error, Json, Result, error::Problem};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Crons,
    draft::utc,
    schedule::{Plan, Schedule},
};

const MOST: usize = 50;

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PreviewRequest {
    schedule: Schedule,
    /// As `Europe/Berlin`.
    #[serde(default = "utc")]
    timezone: String,
    /// 5 when absent; at most 50.
    count: Option<usize>,
    /// Now when absent.
    from: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Preview {
    runs: Vec<PreviewRun>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PreviewRun {
    #[serde(serialize_with = "loom_core::clock::millis")]
    at: DateTime<Utc>,
    /// What the clock of the place shows then, with its distance from UTC.
    local: String,
}

/// Preview a schedule
///
/// The next runs of a schedule, before a monitor is made of it. One that never fires, fires more than once a
/// minute or names no time zone is refused with the reason. Of an interval they are counted from `from`.
#[utoipa::path(
    post,
    path = "/api/crons/preview",
    operation_id = "preview_schedule",
    tag = "crons",
    request_body = PreviewRequest,
    responses(
        (status = 200, body = Preview),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(()),
)]
pub(crate) async fn preview_schedule(
    State(crons): State<Crons>,
    Json(request): Json<PreviewRequest>,
) -> Result<Json<Preview>> {
    let from = request.from.unwrap_or_else(|| crons.deps.clock.now());
    if !loom_core::clock::is_storable(from) {
        return Err(Error::invalid("from", "is a time from the year 1970 to 9999"));
    }
    let count = request.count.unwrap_or(5);
    if !(1..=MOST).contains(&count) {
        return Err(Error::invalid("count", format!("is 1 to {MOST}")));
    }
    let plan = Plan::of(&request.schedule, &request.timezone, from)
        .map_err(|(path, message)| Error::invalid(path, message))?;
    let shown = |at: DateTime<Utc>| {
        let local = at.with_timezone(&plan.zone()).fixed_offset();
        PreviewRun { at, local: local.to_rfc3339_opts(SecondsFormat::Secs, false) }
    };
    Ok(Json(Preview { runs: plan.runs(from, count).into_iter().map(shown).collect() }))
}
