//! Organisations: the tenants.

mod http;
pub(crate) mod model;
pub(crate) mod store;

pub(crate) use http::routes;
