//! API keys of users and organisations.

mod http;
pub(crate) mod model;
pub(crate) mod store;

pub(crate) use http::routes;
