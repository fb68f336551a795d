//! The small kernel that every Loom crate shares: errors, ids, principals, pages, configuration,
//! time, server-sent events and group commit. No feature noun, no query and no router lives here.

pub mod authorize;
pub mod clock;
pub mod config;
pub mod error;
pub mod extract;
pub mod group_commit;
pub mod health;
pub mod id;
pub mod origin;
pub mod page;
pub mod port;
pub mod principal;
pub mod sse;
pub mod telemetry;
pub mod text;

pub use clock::Clock;
pub use error::{Error, Result};
pub use extract::{Json, Path, Query};
pub use principal::Principal;
