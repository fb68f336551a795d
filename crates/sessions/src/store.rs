//! The SQL of release health.

pub(crate) mod aggregate;
pub(crate) mod alerts;
pub(crate) mod intake;
pub(crate) mod names;
pub(crate) mod read;
pub(crate) mod sums;
