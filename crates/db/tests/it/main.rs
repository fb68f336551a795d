//! Against a real PostgreSQL: the one that the setup script of nextest started, or one of its own.

mod embedded;
mod migrate;
mod pool;
mod support;
