//! Tests of crons against a real database.
