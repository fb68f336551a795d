//! `/metrics`, the OpenAPI document and its page.

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use metrics::gauge;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::{
    OpenApi, OpenApiBuilder,
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

const KEEP_UP: Duration = Duration::from_secs(2);

/// Seconds, from a fast answer to a long generation.
const SECONDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
    300.0,
];

/// The process's metrics. There is one recorder a process; a second server in it (as in tests) shares it.
pub(crate) fn start_metrics() -> PrometheusHandle {
    static HANDLE: std::sync::OnceLock<PrometheusHandle> = std::sync::OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new();
            let builder = match builder
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            {
                Ok(builder) => builder,
                Err(_) => PrometheusBuilder::new(),
            };
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("there is a recorder of metrics already; /metrics will be empty");
            }
            handle
        })
        .clone()
}

/// What a histogram is given is kept one by one until it is sorted into buckets: every few seconds, for
/// nobody may ever come for the metrics.
pub(crate) async fn keep_up(metrics: PrometheusHandle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(KEEP_UP);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        metrics.run_upkeep();
    }
}

#[derive(Clone)]
struct Metrics {
    handle: PrometheusHandle,
    pool: PgPool,
}

pub(crate) fn metrics_routes(handle: PrometheusHandle, pool: PgPool) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(get_metrics)).with_state(Metrics { handle, pool })
}

/// Metrics, as Prometheus reads them
#[utoipa::path(get, path = "/metrics", tag = "health", security(()),
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn get_metrics(State(metrics): State<Metrics>) -> Response {
    gauge!("loom_db_connections").set(metrics.pool.size());
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    gauge!("loom_db_connections_idle").set(metrics.pool.num_idle() as f64);
    metrics.handle.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.handle.render()).into_response()
}

/// What every crate's routes are merged into.
pub(crate) fn openapi() -> OpenApi {
    let scheme = SecurityScheme::Http(
        HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("loom_pat_…, loom_svc_…, loom_cli_… or loom_wvr_…")
            .description(Some("An API key as `Authorization: Bearer` or `x-api-key`, or the token of a signed-in command-line client."))
            .build(),
    );
    let mut info = utoipa::openapi::Info::new("Loom", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "A self-hosted server for teams that run coding agents. Errors are RFC 9457 problem documents, \
         except on the routes of other vendors' wires, which have those vendors' errors."
            .to_owned(),
    );
    let cookie = ApiKeyValue::with_description(
        "__Host-loom_session",
        "A signed-in browser; `loom_session` on plain http at localhost. Requests that change something must come from our own pages.",
    );
    let components = utoipa::openapi::ComponentsBuilder::new()
        .security_scheme("api_key", scheme)
        .security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)))
        .build();
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// The document and its page; they need no credential, as they tell nothing of this installation.
pub(crate) fn document_routes(document: &OpenApi) -> Router {
    let json: Bytes = document.to_json().unwrap_or_default().into();
    Router::new()
        .route(
            "/api/openapi.json",
            get(move || {
                let json = json.clone();
                async move { ([(header::CONTENT_TYPE, "application/json")], json) }
            }),
        )
        .route("/api", get(|| page("text/html; charset=utf-8", include_str!("web/api.html"))))
        .route(
            "/api/page.js",
            get(|| page("text/javascript; charset=utf-8", include_str!("web/api.js"))),
        )
        .route(
            "/api/page.css",
            get(|| page("text/css; charset=utf-8", include_str!("web/api.css"))),
        )
}

async fn page(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}
