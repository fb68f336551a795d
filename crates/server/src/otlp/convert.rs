//! Spans and the text of `/metrics` as messages of OTLP.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use loom_core::telemetry::{Attribute, Span, SpanKind};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span as OtlpSpan, Status, span::SpanKind as OtlpSpanKind,
        status::StatusCode,
    },
};

use super::Config;

pub(super) fn nanos(at: impl Into<SystemTime>) -> u64 {
    let since = at.into().duration_since(UNIX_EPOCH).unwrap_or_default();
    whole_nanos(since)
}

fn whole_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn key_value(key: impl Into<String>, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: impl Into<String>, value: impl Into<String>) -> KeyValue {
    key_value(key, Value::StringValue(value.into()))
}

/// Who sends.
pub(super) fn resource(config: &Config) -> Resource {
    let mut attributes = BTreeMap::from([
        ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id".to_owned(), loom_logs::replica_name()),
    ]);
    attributes.extend(config.resource.iter().cloned());
    // OTEL_SERVICE_NAME wins over OTEL_RESOURCE_ATTRIBUTES.
    attributes.insert("service.name".to_owned(), config.service_name.clone());
    Resource {
        attributes: attributes.into_iter().map(|(key, value)| text(key, value)).collect(),
        ..Resource::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

pub(super) fn traces(resource: &Resource, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = ScopeSpans {
        scope: Some(scope()),
        spans: spans.into_iter().map(otlp_span).collect(),
        ..ScopeSpans::default()
    };
    let resource_spans = ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

fn otlp_span(span: Span) -> OtlpSpan {
    let start = nanos(span.start);
    let kind = match span.kind {
        SpanKind::Server => OtlpSpanKind::Server,
        SpanKind::Client => OtlpSpanKind::Client,
    };
    // Clients name requests and models as they like.
    let redactor = loom_redact::shared();
    let redacted = |text: &str| redactor.redact(text).into_owned();
    let value = |attribute| match attribute {
        Attribute::Text(text) => Value::StringValue(redacted(&text)),
        Attribute::Int(number) => Value::IntValue(number),
        Attribute::Float(number) => Value::DoubleValue(number),
        Attribute::Flag(flag) => Value::BoolValue(flag),
        Attribute::List(texts) => {
            let text = |text: &String| Value::StringValue(redacted(text));
            let values = texts.iter().map(|t| AnyValue { value: Some(text(t)) }).collect();
            Value::ArrayValue(ArrayValue { values })
        }
    };
    let parent = span.parent;
    OtlpSpan {
        trace_id: span.context.trace_id.to_be_bytes().to_vec(),
        span_id: span.context.span_id.to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
        // Sampled.
        flags: 1,
        name: redacted(&span.name),
        kind: kind.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(whole_nanos(span.duration)),
        attributes: span
            .attributes
            .into_iter()
            .map(|(key, attribute)| key_value(key, value(attribute)))
            .collect(),
        status: span
            .error
            .map(|message| Status { message: redacted(&message), code: StatusCode::Error.into() }),
        ..OtlpSpan::default()
    }
}

/// The text of `/metrics`, which all metrics are in already: nothing is measured twice, and a request
/// pays nothing for it.
pub(super) fn metrics(
    resource: &Resource,
    text: &str,
    began: u64,
    now: u64,
) -> ExportMetricsServiceRequest {
    let scope_metrics = ScopeMetrics {
        scope: Some(scope()),
        metrics: families(text).into_iter().flat_map(|f| f.named(began, now)).collect(),
        ..ScopeMetrics::default()
    };
    let resource_metrics = ResourceMetrics {
        resource: Some(resource.clone()),
        scope_metrics: vec![scope_metrics],
        ..ResourceMetrics::default()
    };
    ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }
}

type Labels = Vec<(String, String)>;

/// A metric as it stands in the text.
#[derive(Default)]
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: &'a str,
    /// What follows the name (`_bucket`, `_sum`, `_count` or nothing), labels, value.
    samples: Vec<(&'a str, Labels, f64)>,
}

fn families(text: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            families.push(Family { name, help, ..Family::default() });
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            match families.last_mut().filter(|family| family.name == name) {
                Some(family) => family.kind = kind,
                None => families.push(Family { name, kind, ..Family::default() }),
            }
        } else if let Some(family) = families.last_mut()
            && let Some(rest) = line.strip_prefix(family.name)
            && let Some(sample) = sample(rest)
        {
            family.samples.push(sample);
        }
    }
    families
}

/// `_bucket{a="b",le="1"} 5` behind the name.
fn sample(rest: &str) -> Option<(&str, Labels, f64)> {
    let (before, value) = rest.rsplit_once(' ')?;
    let (part, labels) = match before.split_once('{') {
        Some((part, labels)) => (part, labels_of(labels.strip_suffix('}')?)?),
        None => (before, Vec::new()),
    };
    let value = match value {
        "+Inf" => f64::INFINITY,
        value => value.parse().ok()?,
    };
    Some((part, labels, value))
}

fn labels_of(text: &str) -> Option<Labels> {
    let mut labels = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.to_owned(), value));
        rest = quoted.get(end + 1..)?;
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(labels)
}

fn attributes(labels: &Labels) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| text(name, value)).collect()
}

/// Samples that have come to have the same labels are one.
fn summed(samples: Vec<(&str, Labels, f64)>) -> Vec<(&str, Labels, f64)> {
    let mut sums: Vec<(&str, Labels, f64)> = Vec::new();
    for (part, labels, value) in samples {
        match sums.iter_mut().find(|(p, l, _)| *p == part && *l == labels) {
            Some((_, _, sum)) => *sum += value,
            None => sums.push((part, labels, value)),
        }
    }
    sums
}

/// Metrics that go out under the names of OpenTelemetry's conventions for generative AI as well, with what
/// their labels are called there.
const GEN_AI: [(&str, &str, &str); 4] = [
    ("loom_llm_request_seconds", "gen_ai.client.operation.duration", "s"),
    ("loom_llm_first_token_seconds", "gen_ai.client.operation.time_to_first_chunk", "s"),
    ("loom_llm_output_chunk_seconds", "gen_ai.client.operation.time_per_output_chunk", "s"),
    ("loom_llm_request_tokens", "gen_ai.client.token.usage", "{token}"),
];
const GEN_AI_LABELS: [(&str, &str); 3] = [
    ("provider", "gen_ai.provider.name"),
    ("operation", "gen_ai.operation.name"),
    ("type", "gen_ai.token.type"),
];

impl Family<'_> {
    /// Under the name that it has here, and under the one it has elsewhere.
    fn named(&self, began: u64, now: u64) -> Vec<Metric> {
        let own = self.metric(began, now);
        let known = GEN_AI.iter().find(|(name, _, _)| *name == self.name);
        let other = known.and_then(|(_, name, unit)| {
            let samples = self.samples.iter().map(|(part, labels, value)| {
                let labels = labels.iter().map(|(label, value)| {
                    let other = GEN_AI_LABELS.iter().find(|(known, _)| known == label);
                    // As on the spans: both wires of OpenAI's, and Anthropic's, are chats.
                    let value = match (label.as_str(), value.as_str()) {
                        ("operation", "messages" | "responses") => "chat",
                        (_, value) => value,
                    };
                    (other.map_or(label.as_str(), |(_, other)| other).to_owned(), value.to_owned())
                });
                (*part, labels.collect(), *value)
            });
            let family = Family { samples: summed(samples.collect()), ..*self };
            let metric = family.metric(began, now)?;
            Some(Metric { name: (*name).to_owned(), unit: (*unit).to_owned(), ..metric })
        });
        own.into_iter().chain(other).collect()
    }

    fn metric(&self, began: u64, now: u64) -> Option<Metric> {
        let cumulative = AggregationTemporality::Cumulative.into();
        let data = match self.kind {
            "counter" => Data::Sum(Sum {
                data_points: self.numbers(began, now),
                aggregation_temporality: cumulative,
                is_monotonic: true,
            }),
            "gauge" => Data::Gauge(Gauge { data_points: self.numbers(0, now) }),
            "histogram" => Data::Histogram(Histogram {
                data_points: self.histograms(began, now),
                aggregation_temporality: cumulative,
            }),
            _ => return None,
        };
        let base = self.name.strip_suffix("_total").unwrap_or(self.name);
        let unit = match base {
            base if base.ends_with("_seconds") => "s",
            base if base.ends_with("_bytes") => "By",
            _ => "",
        };
        Some(Metric {
            name: self.name.to_owned(),
            description: self.help.to_owned(),
            unit: unit.to_owned(),
            data: Some(data),
            ..Metric::default()
        })
    }

    fn numbers(&self, began: u64, now: u64) -> Vec<NumberDataPoint> {
        let point = |(_, labels, value): &(&str, Labels, f64)| NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: began,
            time_unix_nano: now,
            value: Some(number_data_point::Value::AsDouble(*value)),
            ..NumberDataPoint::default()
        };
        self.samples.iter().map(point).collect()
    }

    fn histograms(&self, began: u64, now: u64) -> Vec<HistogramDataPoint> {
        let mut points: BTreeMap<Labels, HistogramDataPoint> = BTreeMap::new();
        for (part, labels, value) in &self.samples {
            let mut labels = labels.clone();
            let bound =
                labels.iter().position(|(name, _)| name == "le").map(|at| labels.remove(at).1);
            let point = points.entry(labels).or_default();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
            match (*part, bound) {
                ("_bucket", Some(bound)) => {
                    // Ours are of each bucket, theirs of it and all below.
                    let below: u64 = point.bucket_counts.iter().sum();
                    point.bucket_counts.push((*value as u64).saturating_sub(below));
                    if let Ok(bound) = bound.parse::<f64>()
                        && bound.is_finite()
                    {
                        point.explicit_bounds.push(bound);
                    }
                }
                ("_sum", _) => point.sum = Some(*value),
                ("_count", _) => point.count = *value as u64,
                _ => {}
            }
        }
        points
            .into_iter()
            .map(|(labels, point)| HistogramDataPoint {
                attributes: attributes(&labels),
                start_time_unix_nano: began,
                time_unix_nano: now,
                ..point
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_metrics_becomes_messages_without_loss() {
        let text = "# HELP a_total It counts.\n# TYPE a_total counter\na_total{r=\"/x/{id}\",q=\"say \\\"hi\\\", \\\\n\"} 3\n\n\
                    # HELP b It is.\n# TYPE b gauge\nb -1.5\n\n\
                    # HELP c_seconds It takes.\n# TYPE c_seconds histogram\n\
                    c_seconds_bucket{p=\"x\",le=\"0.1\"} 2\nc_seconds_bucket{p=\"x\",le=\"1\"} 5\n\
                    c_seconds_bucket{p=\"x\",le=\"+Inf\"} 6\nc_seconds_sum{p=\"x\"} 4.5\nc_seconds_count{p=\"x\"} 6\n";
        let message = metrics(&Resource::default(), text, 1, 2);
        let all = &message.resource_metrics[0].scope_metrics[0].metrics;
        assert_eq!(all.len(), 3);
        let Some(Data::Sum(sum)) = &all[0].data else { panic!("{:?}", all[0]) };
        assert!(sum.is_monotonic);
        assert_eq!(
            sum.data_points[0].attributes,
            attributes(&vec![
                ("r".to_owned(), "/x/{id}".to_owned()),
                ("q".to_owned(), "say \"hi\", \\n".to_owned())
            ])
        );
        let Some(Data::Gauge(gauge)) = &all[1].data else { panic!("{:?}", all[1]) };
        assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(-1.5)));
        let Some(Data::Histogram(histogram)) = &all[2].data else { panic!("{:?}", all[2]) };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (6, Some(4.5)));
        assert_eq!(point.bucket_counts, [2, 3, 1]);
        assert_eq!(point.explicit_bounds, [0.1, 1.0]);
        assert_eq!((all[2].unit.as_str(), point.time_unix_nano), ("s", 2));
    }
}
