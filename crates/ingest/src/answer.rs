//! What became of a request, and how Sentry's clients are told.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;
use uuid::Uuid;

use crate::{
    item::Category,
    limits::Reached,
    measures,
    refusal::{Refusal, SENTRY_ERROR},
};

const RATE_LIMITS: HeaderName = HeaderName::from_static("x-sentry-rate-limits");

/// Gathers what became of each item.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) event: Option<Uuid>,
    accepted: usize,
    limited: Vec<Reached>,
    refused: Vec<Refusal>,
}

impl Outcome {
    /// Of this event.
    pub(crate) fn of(event: Uuid) -> Self {
        Self { event: Some(event), ..Self::default() }
    }

    pub(crate) fn accept(&mut self, category: Category) {
        measures::item(category, "accepted");
        self.accepted += 1;
    }

    /// Taken and not kept, because Loom has no use for it.
    pub(crate) fn drop_one(&mut self, category: Category) {
        measures::item(category, "dropped");
        self.accepted += 1;
    }

    pub(crate) fn refuse(&mut self, category: Category, refusal: Refusal) {
        measures::item(category, if refusal.is_ours() { "failed" } else { "rejected" });
        self.refused.push(refusal);
    }

    pub(crate) fn limit(&mut self, reached: Reached) {
        measures::item(reached.category, "rate_limited");
        if !self.limited.iter().any(|other| other.category == reached.category) {
            self.limited.push(reached);
        }
    }

    /// The answer, with this one when all went well. Trouble of ours is told whatever else was taken, for
    /// what is sent once more counts once. What a client did wrong only when nothing was right.
    pub(crate) fn answer(self, well: impl FnOnce(Option<Uuid>) -> Response) -> Response {
        let Self { event, accepted, limited, refused } = self;
        let quotas: Vec<String> = limited.iter().map(Reached::quota).collect();
        let ours = refused.iter().find(|refusal| refusal.is_ours());
        let mut response = match (ours, limited.first(), refused.first()) {
            (Some(refusal), ..) => refusal.clone().into_response(),
            (None, Some(reached), _) if accepted == 0 => {
                let after = limited.iter().map(|reached| reached.after_secs).max();
                Refusal::rate_limited(after.unwrap_or(reached.after_secs)).into_response()
            }
            (None, _, Some(refusal)) if accepted == 0 => refusal.clone().into_response(),
            (.., refused) => {
                let mut response = well(event);
                if let Some(refused) = refused {
                    response.headers_mut().insert(SENTRY_ERROR, refused.as_header());
                }
                response
            }
        };
        if let (false, Ok(value)) = (quotas.is_empty(), HeaderValue::try_from(quotas.join(", "))) {
            response.headers_mut().insert(RATE_LIMITS, value);
        }
        response
    }
}

/// `{"id": …}`, or `{}` without an event.
pub(crate) fn with_id(event: Option<Uuid>) -> Response {
    let body = event.map_or_else(|| json!({}), |id| json!({"id": id.simple().to_string()}));
    json_response(StatusCode::OK, &body)
}

pub(crate) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (status, content_type, body.to_string()).into_response()
}
