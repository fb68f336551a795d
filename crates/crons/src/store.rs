//! The SQL.

pub(crate) mod checkins;
pub(crate) mod incidents;
pub(crate) mod keys;
pub(crate) mod monitors;
pub(crate) mod states;
pub(crate) mod stats;
pub(crate) mod sweeps;
