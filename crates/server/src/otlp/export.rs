//! The sending: spans in batches, metrics every minute, from one task that no request waits for.

use std::time::Duration;

use anyhow::Context;
use http::header;
use loom_core::{
    Clock,
    telemetry::{self, Span, SpanSink},
};
use metrics::counter;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use reqwest::{StatusCode, Url};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Config, convert};
use crate::meta::Gauges;

/// Spans that wait; over it they are dropped and counted.
const QUEUE: usize = 4096;
const BATCH: usize = 512;
const SPANS_EVERY: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(10);
const TRIES: u32 = 3;

pub(super) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Queue(mpsc::Sender<Span>);

impl SpanSink for Queue {
    fn take(&self, span: Span) {
        if self.0.try_send(span).is_err() {
            counter!("loom_otlp_dropped_spans_total").increment(1);
        }
    }
}

impl Running {
    pub(super) fn start(
        config: &Config,
        endpoint: &Url,
        gauges: Gauges,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let (queue, spans) = mpsc::channel(QUEUE);
        // As with metrics, there is one a process: that of the first server in it.
        let _ = telemetry::export_to(Box::new(Queue(queue)));
        // From nothing: what a counter begins with is no increase to whoever watches it.
        for signal in ["traces", "metrics"] {
            counter!("loom_otlp_exports_total", "signal" => signal, "outcome" => "lost")
                .increment(0);
        }
        let stop = CancellationToken::new();
        let sender = Sender {
            http: reqwest::Client::builder()
                .timeout(TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .context("no HTTP client for the collector")?,
            traces: signal_url(endpoint, "traces"),
            metrics: signal_url(endpoint, "metrics"),
            config: config.clone(),
            resource: convert::resource(config),
            gauges,
            clock: clock.clone(),
            began: convert::nanos(clock.now()),
            failing: false,
        };
        let task = tokio::spawn(sender.run(spans, stop.clone()));
        Ok(Self { stop, task })
    }

    pub(super) async fn close(self, within: Duration) {
        self.stop.cancel();
        let abort = self.task.abort_handle();
        if tokio::time::timeout(within, self.task).await.is_err() {
            abort.abort();
            tracing::warn!("the collector did not take the last traces and metrics in time");
        }
    }
}

fn signal_url(endpoint: &Url, signal: &str) -> Url {
    let mut url = endpoint.clone();
    let path = format!("{}/v1/{signal}", endpoint.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

struct Sender {
    http: reqwest::Client,
    traces: Url,
    metrics: Url,
    config: Config,
    resource: Resource,
    gauges: Gauges,
    clock: Clock,
    began: u64,
    /// The last message did not arrive: told once.
    failing: bool,
}

impl Sender {
    async fn run(mut self, mut spans: mpsc::Receiver<Span>, stop: CancellationToken) {
        let mut metrics = tokio::time::interval(self.config.interval);
        metrics.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first comes at once, when nothing has happened yet.
        metrics.reset();
        let mut batch = Vec::with_capacity(BATCH);
        let mut send_at = Instant::now() + SPANS_EVERY;
        loop {
            let room = BATCH.saturating_sub(batch.len()).max(1);
            tokio::select! {
                () = stop.cancelled() => break,
                received = spans.recv_many(&mut batch, room) => {
                    if received == 0 {
                        // Another server of this process has the spans.
                        stop.cancelled().await;
                        break;
                    }
                    if batch.len() == received {
                        send_at = Instant::now() + SPANS_EVERY;
                    }
                    if batch.len() >= BATCH {
                        self.send_spans(&mut batch).await;
                    }
                }
                () = tokio::time::sleep_until(send_at), if !batch.is_empty() => {
                    self.send_spans(&mut batch).await;
                }
                _ = metrics.tick() => self.send_metrics().await,
            }
        }
        // What is in the queue now; who sends more meanwhile is too late.
        while batch.len() < QUEUE {
            let Ok(span) = spans.try_recv() else { break };
            batch.push(span);
        }
        self.send_spans(&mut batch).await;
        self.send_metrics().await;
    }

    async fn send_spans(&mut self, batch: &mut Vec<Span>) {
        if batch.is_empty() {
            return;
        }
        let message = convert::traces(&self.resource, std::mem::take(batch));
        self.send("traces", self.traces.clone(), message.encode_to_vec()).await;
    }

    async fn send_metrics(&mut self) {
        let text = self.gauges.read().await;
        let now = convert::nanos(self.clock.now());
        let message = convert::metrics(&self.resource, &text, self.began, now);
        self.send("metrics", self.metrics.clone(), message.encode_to_vec()).await;
    }

    async fn send(&mut self, signal: &'static str, url: Url, body: Vec<u8>) {
        let body = bytes::Bytes::from(body);
        let mut pause = Duration::from_millis(500);
        let mut tries = 0;
        let result = loop {
            tries += 1;
            match self.post(url.clone(), body.clone()).await {
                Err((_, true)) if tries < TRIES => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                result => break result,
            }
        };
        let outcome = if result.is_ok() { "sent" } else { "lost" };
        counter!("loom_otlp_exports_total", "signal" => signal, "outcome" => outcome).increment(1);
        match result {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("the collector takes traces and metrics again");
            }
            Err((error, _)) if !self.failing => {
                self.failing = true;
                tracing::warn!(
                    signal,
                    error,
                    "the collector takes nothing; told again when it does (loom_otlp_exports_total counts)"
                );
            }
            _ => {}
        }
    }

    /// The error, and whether it makes sense to try again.
    async fn post(&self, url: Url, body: bytes::Bytes) -> Result<(), (String, bool)> {
        let mut request =
            self.http.post(url).header(header::CONTENT_TYPE, "application/x-protobuf").body(body);
        for (name, value) in &self.config.headers {
            request = request.header(name, value.expose());
        }
        // Without the URL, which may hold a secret.
        let answer =
            request.send().await.map_err(|error| (error.without_url().to_string(), true))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let passing = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        Err((format!("it answers {status}"), passing.contains(&status)))
    }
}
