//! The handlers, one file for each thing that is done with issues.

pub(crate) mod act;
pub(crate) mod bulk;
pub(crate) mod events;
pub(crate) mod list;
pub(crate) mod merge;
pub(crate) mod show;
pub(crate) mod watch;

use loom_core::{Error, Principal, Result};
use sqlx::PgConnection;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{Issue, ProjectHead},
    store,
};
use crate::Crashes;

impl Crashes {
    /// The project that a path names.
    ///
    /// # Errors
    /// 404.
    pub(crate) async fn project_head(
        &self,
        principal: &Principal,
        named: &str,
    ) -> Result<ProjectHead> {
        let found = store::project(&self.deps.pool, principal.org, named).await?;
        found.ok_or_else(|| Error::not_found("project"))
    }
}

/// The issue that a path names.
async fn issue_of(
    db: &mut PgConnection,
    principal: &Principal,
    project: &ProjectHead,
    named: &str,
) -> Result<Issue> {
    let found = store::find(db, principal.org, project, named, false).await?;
    found.ok_or_else(|| Error::not_found("issue"))
}

/// All routes of issues and their events.
pub(crate) fn routes() -> OpenApiRouter<Crashes> {
    OpenApiRouter::new()
        .routes(routes!(list::list_crash_issues))
        .routes(routes!(list::list_all_crash_issues))
        .routes(routes!(bulk::change_crash_issues))
        .routes(routes!(show::get_crash_issue, act::patch_crash_issue, act::delete_crash_issue))
        .routes(routes!(show::list_crash_issue_tags))
        .routes(routes!(show::get_crash_issue_tag))
        .routes(routes!(show::get_crash_issue_series))
        .routes(routes!(show::get_crash_series))
        .routes(routes!(show::get_crash_project_series))
        .routes(routes!(show::list_crash_issue_activity))
        .routes(routes!(events::list_crash_issue_events))
        .routes(routes!(events::get_crash_issue_event))
        .routes(routes!(events::get_crash_event))
        .routes(routes!(act::resolve_crash_issue))
        .routes(routes!(act::unresolve_crash_issue))
        .routes(routes!(act::ignore_crash_issue))
        .routes(routes!(act::assign_crash_issue))
        .routes(routes!(act::comment_on_crash_issue))
        .routes(routes!(merge::merge_crash_issues))
        .routes(routes!(merge::unmerge_crash_issue))
        .routes(routes!(watch::watch_crash_project))
        .routes(routes!(watch::watch_crash_projects))
}
