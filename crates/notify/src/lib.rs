//! Mail and signed webhooks, delivered durably.
