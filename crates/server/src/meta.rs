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
use loom_core::telemetry::Metric;
use loom_db::{Database, Hub};
use metrics::gauge;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::{
    OpenApi, OpenApiBuilder,
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::Features,
    health::{Health, Version, version},
    process,
};

const KEEP_UP: Duration = Duration::from_secs(2);

/// Seconds, from a fast answer to a long generation.
const SECONDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
    300.0,
];

const METRICS: &[Metric] = &[
    Metric::counter(
        "loom_http_requests_total",
        "Requests that were answered.",
        &["method", "route", "status"],
    ),
    Metric::histogram(
        "loom_http_request_seconds",
        "Time until the response to a request began.",
        &["method", "route"],
    ),
    Metric::gauge("loom_http_requests_in_flight", "Requests that are being handled.", &[]),
    Metric::gauge(
        "loom_build_info",
        "1, with the version of this server.",
        &["version", "git_sha"],
    ),
];

/// Every metric of the server; the guide, the dashboards and the alerts are compared with it.
pub fn metrics() -> impl Iterator<Item = Metric> {
    [
        METRICS,
        crate::health::METRICS,
        process::METRICS,
        crate::otlp::METRICS,
        loom_core::telemetry::METRICS,
        loom_crashes::METRICS,
        loom_crons::METRICS,
        loom_db::health::METRICS,
        loom_ingest::METRICS,
        loom_jobs::health::METRICS,
        loom_llm_proxy::CREDENTIAL_METRICS,
        loom_llm_proxy::measures::METRICS,
        loom_logs::METRICS,
        loom_notify::health::METRICS,
        loom_scm::health::METRICS,
        loom_threads::METRICS,
        loom_sessions::METRICS,
        loom_weavers::METRICS,
        loom_crashes::SYMBOLICATION_METRICS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

const ITEMS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

/// From a kibibyte to a gibibyte, by eights.
const BYTES: [f64; 7] =
    [1024.0, 8192.0, 65_536.0, 524_288.0, 4_194_304.0, 33_554_432.0, 1_073_741_824.0];

/// As the conventions for generative AI have them.
const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// The process's metrics. There is one recorder a process; a second server in it (as in tests) shares it.
pub(crate) fn start_metrics() -> PrometheusHandle {
    static HANDLE: std::sync::OnceLock<PrometheusHandle> = std::sync::OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let mut builder = PrometheusBuilder::new();
            // Without buckets a histogram becomes a summary, which cannot be added up over servers.
            for (suffix, buckets) in [
                ("_seconds", &SECONDS[..]),
                ("_items", &ITEMS),
                ("_bytes", &BYTES),
                ("_tokens", &TOKENS),
            ] {
                let suffix = Matcher::Suffix(suffix.to_owned());
                // Refused are only empty ones.
                builder = builder.set_buckets_for_metric(suffix, buckets).unwrap_or_default();
            }
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("there is a recorder of metrics already; /metrics will be empty");
            }
            loom_core::telemetry::describe(metrics());
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

/// What is measured when somebody reads, and by whom.
#[derive(Clone)]
pub(crate) struct Gauges {
    pool: PgPool,
    hub: Hub,
    health: Health,
}

impl Gauges {
    pub(crate) fn new(features: &Features, health: &Health, database: &Database) -> Self {
        Self { pool: database.pool().clone(), hub: features.hub.clone(), health: health.clone() }
    }

    /// All metrics of this moment, in Prometheus's text form.
    pub(crate) async fn read(&self) -> String {
        self.health.measure().await;
        loom_db::health::measure(&self.pool, &self.hub);
        process::measure();
        let Version { version, git_sha, .. } = version();
        gauge!("loom_build_info", "version" => version, "git_sha" => git_sha).set(1);
        let handle = start_metrics();
        handle.run_upkeep();
        handle.render()
    }
}

pub(crate) fn metrics_routes(gauges: Gauges) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(get_metrics)).with_state(gauges)
}

/// Metrics, as Prometheus reads them
#[utoipa::path(get, path = "/metrics", tag = "health", security(()),
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn get_metrics(State(gauges): State<Gauges>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], gauges.read().await).into_response()
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
