//! Usage, followed live.

use axum::{extract::State, middleware, response::Response};
use bytes::Bytes;
use futures::{FutureExt as _, Stream, stream};
use http::request::Parts;
use loom_core::{
    Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    principal::{Scope, required},
    sse::{self, Leash, Places},
};
use loom_db::{Signal, Subscription};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    http::whose,
    news::{Concern, PAUSE, USAGE_CHANNEL},
};
use crate::LlmProxy;

/// Who watches.
pub(crate) const PLACES: Places = Places {
    streams: "streams of usage",
    gauge: "loom_llm_usage_watchers",
    most: 2000,
    most_of_one: 50,
    instead: "",
};

pub(crate) fn routes(proxy: LlmProxy) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(watch_llm_usage))
        .route_layer(middleware::from_fn(required))
        .with_state(proxy)
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it is read where it is found out who asks")]
struct StreamQuery {
    /// The organisation, for who cannot send the header `x-loom-org`.
    org: Option<String>,
}

/// Follow what models are used for
///
/// Server-sent events: first `ready`; then `usage`, at most once a second, when requests were recorded that
/// `GET /api/llm/usage` and `GET /api/llm/requests` show you, on whichever server, or may have been: read
/// again. `bye` is the last event: after an hour (`max_duration`), when the credential is not good any more, or
/// for other requests than before (`revoked`), or when the server goes down (`shutdown`).
#[utoipa::path(get, path = "/api/llm/usage/stream", tag = "llm", params(StreamQuery), security(("api_key" = [])),
    responses((status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`llm:use` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_watchers`", body = Problem, content_type = "application/problem+json")))]
async fn watch_llm_usage(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    Query(StreamQuery { .. }): Query<StreamQuery>,
    parts: Parts,
) -> Result<Response> {
    authorize(&principal, Action::Use(Scope::LlmUse))?;
    let seat = proxy.seats.sit(principal.holder())?;
    let (org, seen) = (principal.org, whose(&principal));
    let heard = heard(proxy.hub.subscribe(USAGE_CHANNEL), Concern::new(org.0, seen));
    let may = move |now: Principal| {
        let may = authorize(&now, Action::Use(Scope::LlmUse)).is_ok();
        may && now.org == org && whose(&now) == seen
    };
    let recheck = sse::recheck(&proxy.who, parts, may);
    let leash = Leash::new(proxy.leaving.clone(), recheck);
    let begin = Bytes::from_static(b"event: ready\ndata: {}\n\n");
    Ok(sse::raw_response(sse::watch(begin, heard, leash, seat)))
}

/// One event at once for what is said after a quiet while, and one a second later for all that came since.
fn heard(said: Subscription, concern: Concern) -> impl Stream<Item = Bytes> + Send {
    stream::unfold((said, concern, Instant::now()), |(mut said, concern, next)| async move {
        let concerns = |signal: &Signal| match signal {
            Signal::Said(word) => concern.has(word),
            Signal::ReadAgain => true,
        };
        while !concerns(&said.next().await?) {}
        sleep_until(next).await;
        // All of this is read again with what was heard first.
        while said.next().now_or_never().flatten().is_some() {}
        let usage = Bytes::from_static(b"event: usage\ndata: {}\n\n");
        Some((usage, (said, concern, Instant::now() + PAUSE)))
    })
}
