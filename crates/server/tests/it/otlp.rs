//! Traces and metrics at a collector. Compiled with the feature `otlp`.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};
use loom_testkit::{Setup, eventually};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::metric::Data,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use serde_json::json;

/// What came in.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    refuses: bool,
    refused: usize,
    headers: Vec<HeaderMap>,
    service_names: Vec<String>,
    spans: Vec<Span>,
    metrics: Vec<ExportMetricsServiceRequest>,
}

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let app =
            Router::new().route("/otlp/v1/{signal}", post(take)).with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/otlp/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum_serve(listener, app).await });
        (collector, url)
    }

    fn span(&self, name: &str) -> Option<Span> {
        self.0.lock().unwrap().spans.iter().find(|span| span.name == name).cloned()
    }
}

async fn axum_serve(listener: tokio::net::TcpListener, app: Router) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let service = hyper_util::service::TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let socket = hyper_util::rt::TokioIo::new(socket);
            let _ =
                hyper::server::conn::http1::Builder::new().serve_connection(socket, service).await;
        });
    }
}

async fn take(
    State(collector): State<Collector>,
    Path(signal): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let mut received = collector.0.lock().unwrap();
    if received.refuses {
        received.refused += 1;
        return StatusCode::BAD_REQUEST;
    }
    assert_eq!(headers["content-type"], "application/x-protobuf");
    received.headers.push(headers);
    if signal == "traces" {
        let message = ExportTraceServiceRequest::decode(body).unwrap();
        for spans in message.resource_spans {
            let resource = spans.resource.unwrap().attributes;
            received.service_names.push(text(&resource, "service.name"));
            received.spans.extend(spans.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    } else {
        assert_eq!(signal, "metrics");
        received.metrics.push(ExportMetricsServiceRequest::decode(body).unwrap());
    }
    StatusCode::OK
}

fn value(attributes: &[KeyValue], key: &str) -> Option<Value> {
    attributes.iter().find(|pair| pair.key == key)?.value.clone()?.value
}

#[track_caller]
fn text(attributes: &[KeyValue], key: &str) -> String {
    match value(attributes, key) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key}: {other:?} in {attributes:?}"),
    }
}

fn setup(url: String) -> Setup {
    Setup::default()
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        .set("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hush")
        .set("OTEL_SERVICE_NAME", "loom-under-test")
        .set("OTEL_METRIC_EXPORT_INTERVAL", "100")
}

#[tokio::test]
async fn a_request_and_the_model_it_asked_are_spans_of_the_callers_trace() {
    let (collector, url) = Collector::start().await;
    let app = setup(url).start().await;
    let user = app.user("ada@example.com").await;
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let body =
        json!({"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "a secret"}]});
    user.with("x-request-id", "trace-me")
        .with("traceparent", &format!("00-{trace}-{parent}-01"))
        .post("/v1/chat/completions", &body)
        .await
        .expect(200);
    let request = eventually(async || collector.span("POST /v1/chat/completions")).await;
    assert_eq!(hex(&request.trace_id), trace);
    assert_eq!(hex(&request.parent_span_id), parent);
    assert_eq!(request.kind, i32::from(SpanKind::Server));
    assert!(request.end_time_unix_nano >= request.start_time_unix_nano);
    let attributes = &request.attributes;
    assert_eq!(text(attributes, "http.request.method"), "POST");
    assert_eq!(text(attributes, "http.route"), "/v1/chat/completions");
    assert_eq!(value(attributes, "http.response.status_code"), Some(Value::IntValue(200)));
    assert_eq!(text(attributes, "loom.request.id"), "trace-me");
    assert_eq!(text(attributes, "loom.org.id"), user.org.to_string());

    let model = eventually(async || collector.span("chat gpt-5.4-mini")).await;
    assert_eq!((&model.trace_id, &model.parent_span_id), (&request.trace_id, &request.span_id));
    assert_eq!(model.kind, i32::from(SpanKind::Client));
    let attributes = &model.attributes;
    assert_eq!(text(attributes, "gen_ai.provider.name"), "openai");
    assert_eq!(text(attributes, "gen_ai.request.model"), "gpt-5.4-mini");
    assert_eq!(text(attributes, "gen_ai.operation.name"), "chat");
    assert_eq!(text(attributes, "gen_ai.response.model"), "gpt-5.4-mini");
    // Of a prompt of 1000, 400 were read from the cache and 100 written to it.
    for (name, count) in [
        ("gen_ai.usage.input_tokens", 1000),
        ("gen_ai.usage.output_tokens", 40),
        ("gen_ai.usage.cache_read.input_tokens", 400),
        ("gen_ai.usage.cache_creation.input_tokens", 100),
    ] {
        assert_eq!(value(attributes, name), Some(Value::IntValue(count)), "{name}");
    }
    let Some(Value::ArrayValue(reasons)) = value(attributes, "gen_ai.response.finish_reasons")
    else {
        panic!("{attributes:?}")
    };
    assert_eq!(reasons.values[0].value, Some(Value::StringValue("stop".to_owned())));
    assert!(matches!(value(attributes, "loom.llm.cost_usd"), Some(Value::DoubleValue(_))));
    let received = collector.0.lock().unwrap();
    assert!(received.service_names.iter().all(|name| name == "loom-under-test"));
    assert_eq!(received.headers[0]["authorization"], "Bearer hush");
    assert!(!format!("{:?}", received.spans).contains("a secret"));
}

#[tokio::test]
async fn no_secret_leaves_in_a_trace() {
    let (collector, url) = Collector::start().await;
    let secret = "hunter2-correct-horse";
    let app = setup(url).set("LOOM_SERVER_OPENAI_API_KEY", secret).start().await;
    let user = app.user("ada@example.com").await;
    let body = json!({"model": format!("openai/{secret}"), "messages": [{"role": "user", "content": "Hi"}]});
    user.with("x-request-id", secret).post("/v1/chat/completions", &body).await;
    app.stop().await;
    let request = collector.span("POST /v1/chat/completions").unwrap();
    assert!(text(&request.attributes, "loom.request.id").starts_with("[redacted:"));
    let received = collector.0.lock().unwrap();
    assert!(!format!("{:?}", received.spans).contains(secret), "{:?}", received.spans);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_caller_who_does_not_sample_is_not_traced_and_nobodys_path_is_told() {
    let (collector, url) = Collector::start().await;
    let app = setup(url).start().await;
    let unsampled = app
        .anonymous()
        .with("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    unsampled.get("/health/live").await.expect(204);
    app.anonymous().get("/nowhere/hunter2?token=hunter2").await.expect(404);
    let nowhere = eventually(async || collector.span("GET")).await;
    assert_eq!(nowhere.trace_id.len(), 16);
    assert!(nowhere.parent_span_id.is_empty());
    app.stop().await;
    let received = collector.0.lock().unwrap();
    assert!(!format!("{:?}", received.spans).contains("hunter2"));
    assert!(!received.spans.iter().any(|span| span.name.contains("live")));
}

#[tokio::test]
async fn metrics_arrive_as_they_are_read() {
    let (collector, url) = Collector::start().await;
    let app = setup(url).start().await;
    app.anonymous().get("/health/live").await.expect(204);
    let find = |name: &str| {
        let received = collector.0.lock().unwrap();
        let mut all = received.metrics.iter().flat_map(|m| &m.resource_metrics);
        all.find_map(|metrics| {
            let metrics = &metrics.scope_metrics[0].metrics;
            metrics.iter().find(|metric| metric.name == name).cloned()
        })
    };
    let requests = eventually(async || find("loom_http_requests_total")).await;
    assert!(!requests.description.is_empty());
    let Some(Data::Sum(sum)) = requests.data else { panic!("{requests:?}") };
    let live = sum.data_points.iter().find(|point| {
        value(&point.attributes, "route") == Some(Value::StringValue("/health/live".to_owned()))
    });
    assert!(live.is_some(), "{sum:?}");
    let seconds = eventually(async || find("loom_http_request_seconds")).await;
    assert_eq!(seconds.unit, "s");
    let Some(Data::Histogram(histogram)) = seconds.data else { panic!("{seconds:?}") };
    let point = &histogram.data_points[0];
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
    let connected = eventually(async || find("loom_hub_connected")).await;
    assert!(matches!(connected.data, Some(Data::Gauge(_))), "{connected:?}");
}

#[tokio::test]
async fn what_was_traced_last_is_sent_before_the_end() {
    let (collector, url) = Collector::start().await;
    let app = setup(url).start().await;
    app.anonymous().get("/docs/search?q=metrics").await.expect(200);
    app.stop().await;
    assert!(collector.span("GET /docs/search").is_some());
}

#[tokio::test]
async fn a_collector_that_refuses_harms_nothing_and_is_counted() {
    let (collector, url) = Collector::start().await;
    collector.0.lock().unwrap().refuses = true;
    let app = setup(url).start().await;
    let none = r#"loom_otlp_exports_total{signal="metrics",outcome="lost"} 0"#;
    eventually(async || {
        let text = app.anonymous().get("/metrics").await.expect(200).text;
        (!text.contains(none)).then_some(())
    })
    .await;
    collector.0.lock().unwrap().refuses = false;
    app.anonymous().get("/docs").await;
    eventually(async || collector.span("GET /docs")).await;
    assert!(collector.0.lock().unwrap().refused > 0);
}

#[tokio::test]
async fn what_models_do_is_measured_under_the_names_of_the_conventions() {
    let (collector, url) = Collector::start().await;
    let app = setup(url).start().await;
    let user = app.user("ada@example.com").await;
    for model in ["gpt-5.4-mini", "mock-error-429"] {
        let body = json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "Hi"}]});
        user.post("/v1/chat/completions", &body).await;
    }
    let find = |name: &str| {
        let received = collector.0.lock().unwrap();
        let last = received.metrics.last()?;
        let metrics = &last.resource_metrics[0].scope_metrics[0].metrics;
        let metric = metrics.iter().find(|metric| metric.name == name)?;
        let Some(Data::Histogram(histogram)) = &metric.data else { return None };
        let points = histogram.data_points.iter();
        let mut of_openai = points.filter(|point| {
            point.count > 0
                && value(&point.attributes, "gen_ai.provider.name")
                    == Some(Value::StringValue("openai".to_owned()))
        });
        of_openai.next().cloned().map(|point| (metric.unit.clone(), point))
    };
    for (name, unit) in [
        ("gen_ai.client.operation.duration", "s"),
        ("gen_ai.client.operation.time_to_first_chunk", "s"),
        ("gen_ai.client.operation.time_per_output_chunk", "s"),
        ("gen_ai.client.token.usage", "{token}"),
    ] {
        let (of, point) = eventually(async || find(name)).await;
        assert_eq!(of, unit, "{name}");
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count, "{name}");
        assert!(point.sum.is_some_and(|sum| sum > 0.0), "{name}");
    }
    let (_, duration) = eventually(async || find("gen_ai.client.operation.duration")).await;
    assert_eq!(text(&duration.attributes, "gen_ai.operation.name"), "chat");
}
