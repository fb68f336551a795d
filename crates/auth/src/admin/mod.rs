//! Administration of the installation: its users and their global roles.

mod directory;

pub use directory::Admins;
