//! Git repositories and their maintenance.
