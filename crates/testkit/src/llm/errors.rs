//! Errors as each vendor words them: over HTTP and in the middle of a stream.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    headers::request_id,
    route::{Route, Wire},
    script::{Reply, event},
};

/// What a 429 and a 529 tell the client to wait, in seconds.
pub(super) const RETRY_AFTER: &str = "17";

pub(super) fn reply(wire: Wire, status: u16, number: usize) -> Reply {
    let body = match wire {
        Wire::Anthropic => json!({
            "type": "error",
            "error": {"type": anthropic_kind(status), "message": message(status)},
            "request_id": request_id(number),
        }),
        Wire::OpenAi => openai_body(status, message(status)),
        Wire::Gemini => google_body(status, message(status)),
    };
    let reply = Reply::json(status, &body);
    match (wire, status) {
        (Wire::Anthropic, 429) => reply
            .header("retry-after", RETRY_AFTER)
            .header("x-should-retry", "true")
            .header("anthropic-ratelimit-requests-remaining", "0")
            .header("anthropic-ratelimit-tokens-remaining", "0"),
        (Wire::OpenAi, 429) => reply
            .header("retry-after", RETRY_AFTER)
            .header("x-ratelimit-remaining-requests", "0")
            .header("x-ratelimit-remaining-tokens", "0"),
        _ => reply,
    }
}

/// The 429 of OpenAI that no waiting helps against.
pub(super) fn insufficient_quota(wire: Wire, number: usize) -> Reply {
    if wire == Wire::Anthropic {
        return reply(wire, 402, number);
    }
    let body = json!({"error": {
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "type": "insufficient_quota",
        "param": null,
        "code": "insufficient_quota",
    }});
    Reply::json(429, &body)
}

/// A 400 that names the field.
pub(super) fn unknown_field(wire: Wire, field: &str, number: usize) -> Reply {
    let message = format!("Unrecognized request argument supplied: {field}");
    let body = match wire {
        Wire::Anthropic => json!({
            "type": "error",
            "error": {"type": "invalid_request_error", "message": message},
            "request_id": request_id(number),
        }),
        Wire::OpenAi => json!({"error": {
            "message": message, "type": "invalid_request_error", "param": field, "code": null,
        }}),
        Wire::Gemini => google_body(400, &message),
    };
    Reply::json(400, &body)
}

/// The event that each wire sends when it fails after its 200.
pub(super) fn in_stream(route: &Route) -> Bytes {
    event(&match route {
        Route::Messages => json!({
            "type": "error",
            "error": {"type": "overloaded_error", "message": "Overloaded"},
        }),
        Route::Responses => json!({
            "type": "error",
            "code": "server_error",
            "message": message(500),
            "param": null,
            "sequence_number": 99,
        }),
        Route::Generate => google_body(500, message(500)),
        _ => openai_body(500, message(500)),
    })
}

fn anthropic_kind(status: u16) -> &'static str {
    match status {
        400 | 405 | 422 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        _ => "api_error",
    }
}

fn openai_body(status: u16, message: &str) -> Value {
    let (kind, code) = match status {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        403 => ("request_forbidden", Some("unsupported_country_region_territory")),
        404 => ("invalid_request_error", Some("model_not_found")),
        413 => ("invalid_request_error", Some("request_too_large")),
        429 => ("requests", Some("rate_limit_exceeded")),
        503 | 529 => ("service_unavailable_error", Some("server_is_overloaded")),
        500.. => ("server_error", None),
        _ => ("invalid_request_error", None),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

/// `google.rpc.Status`
fn google_body(status: u16, message: &str) -> Value {
    let name = match status {
        400 | 413 | 422 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        402 => "FAILED_PRECONDITION",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 | 529 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    };
    json!({"error": {"code": status, "message": message, "status": name}})
}

fn message(status: u16) -> &'static str {
    match status {
        400 => "messages.0.content: Field required",
        401 => "Incorrect API key provided.",
        402 => "Your credit balance is too low.",
        403 => "Your key may not use this resource.",
        404 => "There is no such model or path.",
        413 => "Request exceeds the maximum size.",
        422 => "The request could not be processed.",
        429 => "Rate limit reached. Please try again in 17s.",
        503 => "The engine is currently overloaded, please try again later.",
        529 => "Overloaded",
        500.. => "The server had an error while processing your request.",
        _ => "The request was refused.",
    }
}
