//! Envelope encryption of stored secrets.
