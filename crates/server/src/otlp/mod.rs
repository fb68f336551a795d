//! Traces and metrics over OTLP (HTTP, protobuf), when a collector is configured and the feature `otlp`
//! is built in.

mod config;
#[cfg(feature = "otlp")]
mod convert;
#[cfg(feature = "otlp")]
mod export;

use std::time::Duration;

use loom_core::{Clock, telemetry::Metric};

pub use config::{Config, Sampler};

use crate::meta::Gauges;

/// Told also where the feature is not built in, so that the guide is the same for all builds.
pub(crate) const METRICS: &[Metric] = &[
    Metric::counter(
        "loom_otlp_exports_total",
        "Messages to the OpenTelemetry collector, by signal (traces, metrics) and outcome (sent, lost).",
        &["signal", "outcome"],
    ),
    Metric::counter(
        "loom_otlp_dropped_spans_total",
        "Spans that were dropped because the collector did not keep up.",
        &[],
    ),
];

/// What sends, as long as the server runs.
pub(crate) struct Exporter {
    #[cfg(feature = "otlp")]
    running: export::Running,
}

/// Begins to send, when that is wanted and possible; with the sampler for the requests.
#[cfg(feature = "otlp")]
pub(crate) fn start(
    config: &Config,
    gauges: Gauges,
    clock: &Clock,
) -> anyhow::Result<Option<(Exporter, Sampler)>> {
    let Some(endpoint) = &config.endpoint else { return Ok(None) };
    let running = export::Running::start(config, endpoint, gauges, clock)?;
    tracing::info!(%endpoint, "traces and metrics are sent to a collector");
    Ok(Some((Exporter { running }, config.sampler)))
}

#[cfg(not(feature = "otlp"))]
pub(crate) fn start(
    config: &Config,
    _gauges: Gauges,
    _clock: &Clock,
) -> anyhow::Result<Option<(Exporter, Sampler)>> {
    if config.endpoint.is_some() {
        tracing::warn!(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and this build sends nothing: it lacks the feature \
             `otlp` (cargo build --features otlp; the images have it)"
        );
    }
    Ok(None)
}

impl Exporter {
    /// Sends what is still here.
    pub(crate) async fn close(self, within: Duration) {
        #[cfg(feature = "otlp")]
        self.running.close(within).await;
        #[cfg(not(feature = "otlp"))]
        let _ = within;
    }
}
