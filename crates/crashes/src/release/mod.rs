//! Releases of applications.

pub(crate) mod order;
