//! What is measured: each crate has a table of its metrics, from which the descriptions of `/metrics`
//! come and with which the guide, dashboards and alerts are compared. And spans of requests, for whoever
//! exports them.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// One metric, with what it means.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    /// None of them may hold an id: each value is a series for ever.
    pub labels: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Metric {
    pub const fn counter(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self { name, kind: Kind::Counter, help, labels }
    }

    pub const fn gauge(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self { name, kind: Kind::Gauge, help, labels }
    }

    pub const fn histogram(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self { name, kind: Kind::Histogram, help, labels }
    }

    fn unit(self) -> Unit {
        let base = self.name.strip_suffix("_total").unwrap_or(self.name);
        if base.ends_with("_seconds") {
            Unit::Seconds
        } else if base.ends_with("_bytes") {
            Unit::Bytes
        } else {
            Unit::Count
        }
    }
}

/// Tells the recorder of this process what the metrics are.
pub fn describe(metrics: impl IntoIterator<Item = Metric>) {
    for metric in metrics {
        let Metric { name, kind, help, .. } = metric;
        match kind {
            Kind::Counter => describe_counter!(name, metric.unit(), help),
            Kind::Gauge => describe_gauge!(name, metric.unit(), help),
            Kind::Histogram => describe_histogram!(name, metric.unit(), help),
        }
    }
}

/// The metrics of this crate.
pub const METRICS: &[Metric] = &[
    Metric::histogram(
        "loom_group_commit_batch_items",
        "Items that were written in one transaction.",
        &["writer"],
    ),
    Metric::counter(
        "loom_group_commit_refused_total",
        "Items that were refused because the queue of their writer was full.",
        &["writer"],
    ),
    Metric::counter(
        "loom_group_commit_lost_total",
        "Items that nobody waited for and that could not be stored.",
        &["writer"],
    ),
];

/// A request's place in a trace (W3C Trace Context).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    pub trace_id: u128,
    pub span_id: u64,
    pub sampled: bool,
}

/// A finished piece of work.
#[derive(Clone, Debug)]
pub struct Span {
    pub context: SpanContext,
    /// 0: a trace begins here.
    pub parent: u64,
    pub name: String,
    pub kind: SpanKind,
    pub start: SystemTime,
    pub duration: Duration,
    pub attributes: Vec<(&'static str, Attribute)>,
    /// What went wrong, if it did.
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    Server,
    Client,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    Text(Cow<'static, str>),
    Int(i64),
    Float(f64),
    Flag(bool),
    List(Vec<String>),
}

impl From<&'static str> for Attribute {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&Arc<str>> for Attribute {
    fn from(text: &Arc<str>) -> Self {
        Self::Text(text.to_string().into())
    }
}

impl From<i64> for Attribute {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// Whoever takes finished spans away. It must not wait.
pub trait SpanSink: Send + Sync {
    fn take(&self, span: Span);
}

static SINK: OnceLock<Box<dyn SpanSink>> = OnceLock::new();

tokio::task_local! {
    static CURRENT: Option<SpanContext>;
}

/// Gives the process its sink; false when it has one already.
pub fn export_to(sink: Box<dyn SpanSink>) -> bool {
    SINK.set(sink).is_ok()
}

/// Runs `work` as a part of the span of `context`, if there is one.
pub fn within<F: Future>(
    context: Option<SpanContext>,
    work: F,
) -> impl Future<Output = F::Output> + use<F> {
    CURRENT.scope(context, work)
}

/// The span of the request that is being handled; None when it is not traced.
pub fn current() -> Option<SpanContext> {
    CURRENT.try_with(|context| *context).ok().flatten().filter(|context| context.sampled)
}

/// Hands a finished span over.
pub fn finish(span: Span) {
    if let Some(sink) = SINK.get().filter(|_| span.context.sampled) {
        sink.take(span);
    }
}

/// A new span below `parent`, in its trace.
pub fn child_of(parent: SpanContext) -> SpanContext {
    // 0 is not an id.
    SpanContext { span_id: rand::random::<u64>().max(1), ..parent }
}
