//! Native capture: an event comes, and what became of it goes back.

mod http;
mod wait;

pub(crate) use http::*;
