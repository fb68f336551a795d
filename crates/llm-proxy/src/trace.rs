//! The span of a request to a model, by OpenTelemetry's conventions for generative AI. Of what was said
//! it tells nothing.

use std::time::Duration;

use loom_core::telemetry::{self, Attribute, Span, SpanContext, SpanKind};

use crate::ledger::{Outcome, Row};

/// Tells of a finished request below the span that it was made in.
pub(crate) fn finish(parent: SpanContext, row: &Row) {
    let operation = match row.operation {
        "messages" | "responses" => "chat",
        other => other,
    };
    let mut attributes: Vec<(&'static str, Attribute)> = vec![
        ("gen_ai.operation.name", operation.into()),
        ("gen_ai.provider.name", (&row.provider).into()),
        ("gen_ai.request.model", row.model.clone().into()),
        ("loom.llm.outcome", row.outcome.into()),
        ("loom.llm.streamed", Attribute::Flag(row.streamed)),
        ("loom.org.id", row.org_id.to_string().into()),
    ];
    if let Some(model) = &row.response_model {
        attributes.push(("gen_ai.response.model", model.clone().into()));
    }
    let usage = &row.usage;
    let tokens = [
        ("gen_ai.usage.input_tokens", usage.input),
        ("gen_ai.usage.output_tokens", usage.output),
        ("gen_ai.usage.cache_read.input_tokens", usage.cache_read),
        ("gen_ai.usage.cache_creation.input_tokens", usage.cache_write()),
    ];
    for (name, count) in tokens {
        if let Some(count) = count.and_then(|count| i64::try_from(count).ok()) {
            attributes.push((name, count.into()));
        }
    }
    if let Some(ms) = row.first_token_ms {
        attributes.push(("loom.llm.first_token_ms", Attribute::Float(ms)));
    }
    if let Some(status) = row.status {
        attributes.push(("http.response.status_code", i64::from(status).into()));
    }
    let error = (row.outcome != Outcome::Succeeded.name()).then(|| {
        let kind = row.error_code.clone().unwrap_or_else(|| row.outcome.to_owned());
        attributes.push(("error.type", kind.clone().into()));
        kind
    });
    telemetry::finish(Span {
        context: telemetry::child_of(parent),
        parent: parent.span_id,
        name: format!("{operation} {}", row.model),
        kind: SpanKind::Client,
        start: row.started_at.into(),
        duration: Duration::from_secs_f64(row.latency_ms.max(0.0) / 1e3),
        attributes,
        error,
    });
}
