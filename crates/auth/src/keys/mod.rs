//! API keys of users and organisations.

mod http;
mod limits;
pub(crate) mod model;
mod report;
pub(crate) mod store;

use utoipa_axum::router::OpenApiRouter;

pub(crate) use http::routes;

use crate::Auth;

/// What needs no credential.
pub(crate) fn public_routes() -> OpenApiRouter<Auth> {
    report::routes()
}
