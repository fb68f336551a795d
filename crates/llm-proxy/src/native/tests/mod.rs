//! Tests of the native routes' parts.

mod replies;
mod requests;
