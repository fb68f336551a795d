//! Logs for people and programs.

use axum::{extract::State, response::Response};
use http::request::Parts;
use loom_core::{
    Error, Path, Principal, Query, Result,
    error::Problem,
    id::WeaverId,
    sse::{self, Leash},
};
use serde::Deserialize;

use super::{store, stream};
use crate::{Weavers, access, http::watch::recheck};

const TAIL: i64 = 100;
const MOST: i64 = 100_000;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogsQuery {
    /// So many of the newest lines (100; at most 100,000).
    tail: Option<i64>,
    /// With the time of each line, as `at`.
    #[serde(default)]
    timestamps: bool,
    /// Goes on until the weaver's log is complete, or `bye`.
    #[serde(default)]
    follow: bool,
    /// The number of the last line seen, where `Last-Event-ID` cannot be sent; `tail` is ignored then.
    after: Option<i64>,
}

/// Read what a weaver says
///
/// As events: `line` with `line`, `container`, `text` and, if asked for, `at`, the number of the line as its id;
/// `gap` where lines were dropped because the log has grown too long (its beginning and its newest are kept);
/// at the end `end` with the weaver's `status`, `exit_code` and `reason`, and whether the log is `complete`.
/// Goes on after `Last-Event-ID`. Secrets are masked. Also readable when the pod is gone.
#[utoipa::path(
    get,
    path = "/api/weaver/{id}/logs",
    operation_id = "get_weaver_logs",
    tag = "weavers",
    params(
        ("id" = WeaverId, Path),
        LogsQuery,
        ("last-event-id" = Option<String>, Header, description = "The id of the last line seen"),
    ),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`weaver_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_watchers`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn get_logs(
    State(weavers): State<Weavers>,
    principal: Principal,
    Path(id): Path<WeaverId>,
    Query(query): Query<LogsQuery>,
    parts: Parts,
) -> Result<Response> {
    let tail = query.tail.unwrap_or(TAIL);
    if !(0..=MOST).contains(&tail) {
        return Err(Error::invalid("tail", format!("is from 0 to {MOST}")));
    }
    let seen = match parts.headers.get("last-event-id") {
        None => query.after,
        Some(seen) => {
            let number = seen.to_str().ok().and_then(|seen| seen.parse().ok());
            Some(number.ok_or_else(|| {
                Error::malformed("invalid_request", "`Last-Event-ID` is the number of a line")
            })?)
        }
    };
    let reads = access::reads(&principal)?;
    let row = weavers.visible(reads, id).await?;
    let pool = &weavers.deps.pool;
    let standing = store::standing(pool, row.org_id, id).await?.ok_or_else(access::not_found)?;
    let from = match seen {
        Some(seen) => seen.clamp(0, standing.next_line - 1) + 1,
        None => (standing.next_line - tail).max(1),
    };
    let wanted = stream::Wanted {
        org: row.org_id,
        id,
        from,
        resumes: seen.is_some(),
        timestamps: query.timestamps,
        follow: query.follow,
    };
    let seat = weavers.seats.sit(principal.holder())?;
    let recheck = recheck(&weavers, reads, parts);
    let leash = Leash::new(weavers.leaving.clone(), recheck);
    Ok(sse::raw_response(stream::events(weavers.logs.clone(), wanted, leash, seat)))
}
