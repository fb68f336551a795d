//! Projects and the keys that applications send with.

pub(crate) mod http;
pub(crate) mod keys;
pub(crate) mod model;
pub(crate) mod store;

use std::sync::Arc;

use loom_core::{
    Error, Principal, Result,
    port::{Project, ProjectDirectory},
};

use crate::Crashes;

pub(crate) fn not_found() -> Error {
    Error::not_found("project")
}

impl Crashes {
    /// The project that a path names (id, number or slug), in the organisation that the principal acts in.
    ///
    /// # Errors
    /// 404.
    pub(crate) async fn project(&self, principal: &Principal, named: &str) -> Result<Arc<Project>> {
        self.deps.directory.find(principal.org, named).await?.ok_or_else(not_found)
    }

    /// After the commit of whatever changed a project or its keys.
    pub(crate) fn project_changed(&self, project: loom_core::id::ProjectId) {
        self.deps.directory.forget();
        self.announcer.say(format!("{}{project}", crate::directory::WORD));
    }
}
