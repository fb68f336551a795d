//! Tests of crashes against a real database.
