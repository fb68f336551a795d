//! The response headers that real vendors send, and one that nobody knows yet.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::route::Wire;

const ANTHROPIC: &[(&str, &str)] = &[
    ("anthropic-organization-id", "00000000-0000-4000-8000-00000000mock"),
    ("anthropic-ratelimit-requests-limit", "4000"),
    ("anthropic-ratelimit-requests-remaining", "3999"),
    ("anthropic-ratelimit-requests-reset", "2030-01-01T00:00:01Z"),
    ("anthropic-ratelimit-tokens-limit", "480000"),
    ("anthropic-ratelimit-tokens-remaining", "479000"),
    ("anthropic-ratelimit-tokens-reset", "2030-01-01T00:00:02Z"),
    ("anthropic-ratelimit-input-tokens-limit", "400000"),
    ("anthropic-ratelimit-input-tokens-remaining", "399000"),
    ("anthropic-ratelimit-input-tokens-reset", "2030-01-01T00:00:03Z"),
    ("anthropic-ratelimit-output-tokens-limit", "80000"),
    ("anthropic-ratelimit-output-tokens-remaining", "79000"),
    ("anthropic-ratelimit-output-tokens-reset", "2030-01-01T00:00:04Z"),
    ("server", "cloudflare"),
    ("x-vendor-new", "1"),
];

const OPENAI: &[(&str, &str)] = &[
    ("openai-organization", "org-mock"),
    ("openai-processing-ms", "42"),
    ("openai-version", "2020-10-01"),
    ("x-ratelimit-limit-requests", "10000"),
    ("x-ratelimit-limit-tokens", "200000"),
    ("x-ratelimit-remaining-requests", "9999"),
    ("x-ratelimit-remaining-tokens", "199000"),
    ("x-ratelimit-reset-requests", "8.64s"),
    ("x-ratelimit-reset-tokens", "6m0s"),
    ("server", "cloudflare"),
    ("x-vendor-new", "1"),
];

const GOOGLE: &[(&str, &str)] = &[("server", "scaffolding on HTTPServer2"), ("x-vendor-new", "1")];

/// `request-id` of Anthropic and `x-request-id` of OpenAI for the `number`th request.
pub(super) fn request_id(number: usize) -> String {
    format!("req_mock{number:020}")
}

pub(super) fn vendor(wire: Wire, number: usize) -> HeaderMap {
    let (list, id) = match wire {
        Wire::Anthropic => (ANTHROPIC, "request-id"),
        Wire::OpenAi => (OPENAI, "x-request-id"),
        Wire::Gemini => (GOOGLE, "x-request-id"),
    };
    let mut headers: HeaderMap = list
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    headers.insert(id, HeaderValue::try_from(request_id(number)).expect("ASCII"));
    headers
}
