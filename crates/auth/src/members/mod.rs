//! Members of organisations and their roles.

pub(crate) mod http;
mod model;
pub(crate) mod store;

pub(crate) use http::routes;
