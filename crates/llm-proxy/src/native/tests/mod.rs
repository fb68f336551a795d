//! Tests of the native routes' parts.

mod live;
mod replies;
mod requests;
