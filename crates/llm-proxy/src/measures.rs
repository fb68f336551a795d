//! Metrics of a provider. The handles are kept: looking one up by its labels for each request costs
//! more than all that is counted.

use loom_core::telemetry::Metric;
use metrics::{Counter, Histogram, counter, histogram};

use crate::{
    dialect::Operation,
    ledger::{Outcome, Row},
};

/// The metrics of this crate.
pub const METRICS: &[Metric] = &[
    Metric::counter(
        "loom_llm_requests_total",
        "Requests to models, by how they ended.",
        &["provider", "operation", "outcome"],
    ),
    Metric::histogram(
        "loom_llm_request_seconds",
        "Time of a request to a model, to the end of its reply.",
        &["provider", "operation"],
    ),
    Metric::histogram(
        "loom_llm_first_token_seconds",
        "Time until the first token of a streamed reply.",
        &["provider"],
    ),
    Metric::histogram(
        "loom_llm_output_chunk_seconds",
        "Time between two pieces of content of a streamed reply.",
        &["provider"],
    ),
    Metric::histogram(
        "loom_llm_request_tokens",
        "Tokens of one request, with what was cached.",
        &["provider", "type"],
    ),
    Metric::counter(
        "loom_llm_web_searches_total",
        "Searches of the web that providers made for their replies.",
        &["provider"],
    ),
    Metric::counter(
        "loom_llm_incomplete_usage_total",
        "Requests whose reply broke off before the provider's last count of tokens.",
        &["provider"],
    ),
    Metric::counter(
        "loom_llm_unpriced_requests_total",
        "Requests with tokens whose model has no known price.",
        &["provider"],
    ),
    Metric::counter(
        "loom_llm_drained_total",
        "Replies that were read on after their client had left, by how that ended.",
        &["end"],
    ),
    Metric::counter(
        "loom_llm_tokens_total",
        "Tokens as the provider counts them.",
        &["provider", "class"],
    ),
    Metric::counter(
        "loom_llm_cost_nanousd_total",
        "Cost of requests whose model has a known price, in billionths of a US dollar.",
        &["provider"],
    ),
];

pub(crate) struct Measures {
    operations: Vec<OfOperation>,
    input: Counter,
    output: Counter,
    cache_read: Counter,
    cache_write: Counter,
    cost_nanousd: Counter,
    first_token: Histogram,
    pub(crate) output_chunk: Histogram,
    input_tokens: Histogram,
    output_tokens: Histogram,
    web_searches: Counter,
    incomplete: Counter,
    unpriced: Counter,
}

struct OfOperation {
    operation: &'static str,
    outcomes: Vec<(&'static str, Counter)>,
    seconds: Histogram,
}

impl Measures {
    pub(crate) fn new(provider: &str) -> Self {
        let name = || provider.to_owned();
        let tokens = |class: &'static str| counter!("loom_llm_tokens_total", "provider" => name(), "class" => class);
        let operations = Operation::ALL.into_iter().map(|operation| {
            let operation = operation.name();
            let count = |outcome: Outcome| {
                let outcome = outcome.name();
                (outcome, counter!("loom_llm_requests_total", "provider" => name(), "operation" => operation, "outcome" => outcome))
            };
            OfOperation {
                operation,
                outcomes: Outcome::ALL.into_iter().map(count).collect(),
                seconds: histogram!("loom_llm_request_seconds", "provider" => name(), "operation" => operation),
            }
        });
        Self {
            operations: operations.collect(),
            input: tokens("input"),
            output: tokens("output"),
            cache_read: tokens("cache_read"),
            cache_write: tokens("cache_write"),
            cost_nanousd: counter!("loom_llm_cost_nanousd_total", "provider" => name()),
            first_token: histogram!("loom_llm_first_token_seconds", "provider" => name()),
            input_tokens: histogram!("loom_llm_request_tokens", "provider" => name(), "type" => "input"),
            output_tokens: histogram!("loom_llm_request_tokens", "provider" => name(), "type" => "output"),
            output_chunk: histogram!("loom_llm_output_chunk_seconds", "provider" => name()),
            web_searches: counter!("loom_llm_web_searches_total", "provider" => name()),
            incomplete: counter!("loom_llm_incomplete_usage_total", "provider" => name()),
            unpriced: counter!("loom_llm_unpriced_requests_total", "provider" => name()),
        }
    }

    pub(crate) fn record(&self, row: &Row) {
        if let Some(of) = self.operations.iter().find(|of| of.operation == row.operation) {
            of.seconds.record(row.latency_ms / 1e3);
            if let Some((_, count)) =
                of.outcomes.iter().find(|(outcome, _)| *outcome == row.outcome)
            {
                count.increment(1);
            }
        }
        let usage = &row.usage;
        let classes = [
            (&self.input, usage.input),
            (&self.output, usage.output),
            (&self.cache_read, usage.cache_read),
            (&self.cache_write, usage.cache_write()),
        ];
        for (counter, tokens) in classes {
            counter.increment(tokens.unwrap_or_default());
        }
        let cost = row.cost_nanousd.and_then(|nano| u64::try_from(nano).ok());
        self.cost_nanousd.increment(cost.unwrap_or_default());
        if let Some(ms) = row.first_token_ms {
            self.first_token.record(ms / 1e3);
        }
        if !usage.is_unknown() {
            #[expect(clippy::cast_precision_loss, reason = "tokens of one request")]
            let of = |tokens: u64| tokens as f64;
            self.input_tokens.record(of(usage.total_input()));
            self.output_tokens.record(of(usage.output.unwrap_or_default()));
        }
        self.web_searches.increment(usage.web_searches.unwrap_or_default());
        self.incomplete.increment(u64::from(!row.usage_complete));
        self.unpriced.increment(u64::from(row.cost_nanousd.is_none() && !usage.is_unknown()));
    }
}
