//! Users: who they are, and what they are members of.

mod http;
pub(crate) mod model;
pub(crate) mod store;

pub(crate) use http::routes;
