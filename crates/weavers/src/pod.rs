//! The pod of a weaver: as it is made, and as it is seen.

#[cfg(test)]
mod restricted;
pub(crate) mod seen;
pub(crate) mod spec;
#[cfg(test)]
mod tests;

/// The container in which the agent runs.
pub(crate) const CONTAINER: &str = "weaver";
/// What runs before it, to fetch the repository.
pub(crate) const CLONE: &str = "clone";

pub(crate) const INSTALLATION: &str = "loom.dev/installation";
pub(crate) const WEAVER: &str = "loom.dev/weaver-id";
