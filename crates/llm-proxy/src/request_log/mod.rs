//! The log of requests: one row each, without what was said.

mod http;
mod model;
mod store;

pub(crate) use http::routes;
