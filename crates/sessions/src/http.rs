//! The routes of release health.

pub(crate) mod alerts;
pub(crate) mod capture;
pub(crate) mod list;
pub(crate) mod releases;
pub(crate) mod series;
pub(crate) mod stream;

use std::sync::Arc;

use loom_core::{Error, Principal, Result, port::Project};
use serde::Deserialize;

use crate::{Sessions, store::read::Filter};

/// Of which sessions.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfProject {
    /// Id, number or slug.
    #[serde(alias = "project_id")]
    pub(crate) project: String,
    pub(crate) release: Option<String>,
    pub(crate) environment: Option<String>,
}

impl OfProject {
    pub(crate) fn filter(&self, project: &Project) -> Filter<'_> {
        Filter {
            org: project.org,
            project: project.id,
            release: self.release.as_deref().filter(|text| !text.is_empty()),
            environment: self.environment.as_deref().filter(|text| !text.is_empty()),
        }
    }
}

impl Sessions {
    /// A project of the principal's organisation.
    ///
    /// # Errors
    /// 404.
    pub(crate) async fn project(&self, principal: &Principal, name: &str) -> Result<Arc<Project>> {
        let found = self.deps.projects.find(principal.org, name).await?;
        found.ok_or_else(|| Error::not_found("project"))
    }
}
