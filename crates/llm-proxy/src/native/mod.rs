//! The native routes: one request and reply for every provider.
//!
//! A request is read and checked ([`model`], [`check`]) and put into the form that all wires share
//! ([`request`]); what the provider says comes back in that form, and with the account's usage and
//! cost becomes the reply ([`reply`]).

mod check;
mod http;
mod model;
mod reply;
mod request;
mod schema;
mod stream;
#[cfg(test)]
mod tests;
mod upstream;

pub(crate) use self::{
    http::{routes, told},
    model::{Request, StreamEvent},
    upstream::problem,
};
