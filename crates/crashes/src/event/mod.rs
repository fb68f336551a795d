//! An event, read leniently from what SDKs send.

mod model;

pub(crate) use model::*;
