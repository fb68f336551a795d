//! Administration of the installation: its users and their global roles.

mod directory;
mod http;
mod model;
pub(crate) mod store;

pub use directory::Admins;
pub(crate) use http::routes;
