//! Invitations to organisations: by mail, for one address, good once.

mod http;
mod model;
pub(crate) mod store;

pub(crate) use http::routes;
