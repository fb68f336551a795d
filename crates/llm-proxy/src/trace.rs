//! The span of a request to a model, by OpenTelemetry's conventions for generative AI. Of what was said
//! it tells nothing.

use std::time::Duration;

use loom_core::telemetry::{self, Attribute, Span, SpanContext, SpanKind};

use crate::ledger::{Outcome, Row};

/// Its well-known name, where it has one.
pub(crate) fn provider_name(provider: &str, model: &str) -> String {
    match provider {
        "vertex" if model.contains("claude") => "anthropic".to_owned(),
        "vertex" => "gcp.vertex_ai".to_owned(),
        other => other.to_owned(),
    }
}

/// Tells of a finished request below the span that it was made in.
pub(crate) fn finish(parent: SpanContext, row: &Row, finish: Option<&str>) {
    let operation = match row.operation {
        "messages" | "responses" => "chat",
        other => other,
    };
    let mut attributes: Vec<(&'static str, Attribute)> = vec![
        ("gen_ai.operation.name", operation.into()),
        ("gen_ai.provider.name", provider_name(&row.provider, &row.model).into()),
        ("gen_ai.request.model", row.model.clone().into()),
        ("loom.llm.outcome", row.outcome.into()),
        ("loom.llm.streamed", Attribute::Flag(row.streamed)),
        ("loom.org.id", row.org_id.to_string().into()),
    ];
    if let Some(model) = &row.response_model {
        attributes.push(("gen_ai.response.model", model.clone().into()));
    }
    if let Some(finish) = finish {
        let reasons = Attribute::List(vec![finish.to_owned()]);
        attributes.push(("gen_ai.response.finish_reasons", reasons));
    }
    if row.provider.as_ref() == "openai"
        && let Some(tier) = row.usage.tier
    {
        attributes.push(("openai.response.service_tier", tier.name().into()));
    }
    let usage = &row.usage;
    // By the conventions, with what was cached.
    let input = usage.input.or(usage.cache_read).or(usage.cache_write());
    let tokens = [
        ("gen_ai.usage.input_tokens", input.map(|_| usage.total_input())),
        ("gen_ai.usage.output_tokens", usage.output),
        ("gen_ai.usage.cache_read.input_tokens", usage.cache_read),
        ("gen_ai.usage.cache_creation.input_tokens", usage.cache_write()),
        ("gen_ai.usage.reasoning.output_tokens", usage.reasoning),
    ];
    for (name, count) in tokens {
        if let Some(count) = count.and_then(|count| i64::try_from(count).ok()) {
            attributes.push((name, count.into()));
        }
    }
    if let Some(ms) = row.first_token_ms {
        attributes.push(("gen_ai.response.time_to_first_chunk", Attribute::Float(ms / 1e3)));
    }
    if let Some(cost) = row.cost_nanousd {
        #[expect(clippy::cast_precision_loss, reason = "a request's cost is far below 2^53")]
        attributes.push(("loom.llm.cost_usd", Attribute::Float(cost as f64 / 1e9)));
    }
    if !row.usage_complete {
        attributes.push(("loom.llm.usage_complete", Attribute::Flag(false)));
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
