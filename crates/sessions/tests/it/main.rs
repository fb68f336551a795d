//! Tests of sessions against a real database.
