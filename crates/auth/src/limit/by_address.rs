//! The flood gate before all of `/auth`.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use loom_core::principal::RequestInfo;

use super::Budget;
use crate::Auth;

/// A layer: 429 for a network that asks more often than it may.
pub(crate) async fn by_address(State(auth): State<Auth>, request: Request, next: Next) -> Response {
    let info = request.extensions().get::<RequestInfo>();
    if let Some(info) = info.filter(|_| request.uri().path().starts_with("/auth/")) {
        let budget = Budget::per_minute(auth.config.requests_per_minute);
        if let Err(error) = auth.flood.take("auth", info.ip, budget).await {
            return error.into_response();
        }
    }
    next.run(request).await
}
