//! Native capture: an event comes, and what became of it goes back.

mod http;
mod origin;
mod wait;

pub(crate) use http::*;
