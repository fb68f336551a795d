//! Tests of ingest against a real database.
