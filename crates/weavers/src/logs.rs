//! What containers say.

use loom_core::{Result, id::WeaverId};

use crate::{Deps, model::Row};

pub(crate) struct Logs;

impl Logs {
    pub(crate) fn new(_: &Deps) -> Self {
        Self
    }

    pub(crate) fn follow(&self, _: &Row, _: &str) {}

    pub(crate) fn stop(&self, _: WeaverId) {}

    pub(crate) fn stop_all(&self) {}

    pub(crate) async fn read_rest(&self, _: &Row) -> Result<()> {
        Ok(())
    }
}
