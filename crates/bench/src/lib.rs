//! The load bench.
