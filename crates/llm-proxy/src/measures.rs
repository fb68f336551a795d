//! Metrics of a provider. The handles are kept: looking one up by its labels for each request costs
//! more than all that is counted.

use loom_core::telemetry::Metric;
use metrics::{Counter, Histogram, counter, histogram};

use crate::{
    attempt::Next,
    dialect::Operation,
    ledger::{Outcome, Row},
    pool::Verdict,
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
        "loom_llm_attempts_total",
        "Requests to a provider, of which one of a client's may take several, by how they ended.",
        &["provider", "outcome"],
    ),
    Metric::counter(
        "loom_llm_cost_nanousd_total",
        "Cost of requests whose model has a known price, in billionths of a US dollar.",
        &["provider"],
    ),
    Metric::gauge("loom_llm_usage_watchers", "Streams of usage that are open.", &[]),
    Metric::counter(
        "loom_llm_idempotent_requests_total",
        "Requests with an idempotency key, by what became of them.",
        &["result"],
    ),
    Metric::counter(
        "loom_llm_cache_requests_total",
        "Requests that the cache of replies was asked for, by whether it had one.",
        &["result"],
    ),
    Metric::counter(
        "loom_llm_records_dropped_total",
        "Replies that were not captured or cached because too many were being stored.",
        &[],
    ),
    Metric::counter(
        "loom_llm_limit_refusals_total",
        "Requests to models that a limit had no room for.",
        &["kind", "measure"],
    ),
    Metric::counter(
        "loom_llm_limit_shares_total",
        "Shares of limits that this server asked the database for or gave back.",
        &["event"],
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
    pub(crate) attempts: Attempts,
}

/// How requests to a provider ended.
pub(crate) struct Attempts {
    sound: Counter,
    rejected: Counter,
    rate_limited: Counter,
    refused: Counter,
    failed: Counter,
}

impl Attempts {
    fn new(provider: &str) -> Self {
        let count = |outcome: &'static str| counter!("loom_llm_attempts_total", "provider" => provider.to_owned(), "outcome" => outcome);
        Self {
            sound: count("sound"),
            rejected: count("rejected"),
            rate_limited: count("rate_limited"),
            refused: count("refused"),
            failed: count("failed"),
        }
    }

    pub(crate) fn sound(&self) {
        self.sound.increment(1);
    }

    pub(crate) fn failed(&self, next: Next, verdict: &Verdict) {
        let counter = match (next, verdict) {
            (_, Verdict::RateLimited { .. }) => &self.rate_limited,
            (_, Verdict::Refused { .. }) => &self.refused,
            (Next::Nothing, _) => &self.rejected,
            (Next::Other | Next::Again, _) => &self.failed,
        };
        counter.increment(1);
    }
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
            attempts: Attempts::new(provider),
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
