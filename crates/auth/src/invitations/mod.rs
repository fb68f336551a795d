//! Invitations to organisations: by mail, for one address, good once.

mod http;
mod model;
mod page;
pub(crate) mod store;

pub(crate) use http::routes;
pub(crate) use page::pages;
