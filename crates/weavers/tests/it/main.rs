//! Tests.

mod api;
