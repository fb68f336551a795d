//! Log lines on standard output: for people on a terminal, JSON otherwise.

use tracing_subscriber::{
    Layer, filter::targets::Targets, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat};

/// Sets the process's log up. A second call changes nothing.
pub(crate) fn start(log: &Log) {
    let filter: Targets = log.filter.parse().unwrap_or_else(|_| Targets::new());
    let lines = match log.format {
        LogFormat::Pretty => fmt::layer().with_target(false).boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
    };
    let _ = registry().with(lines.with_filter(filter)).try_init();
}
