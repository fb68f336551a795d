//! Agent conversations, stored and synced.
