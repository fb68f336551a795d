//! Issues put together, and taken apart.

use std::collections::BTreeMap;

use axum::extract::State;
use chrono::SecondsFormat;
use loom_core::{
    Error, Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::IssueId,
    principal::{RequestInfo, Scope},
};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::{
    Told,
    actions::merged,
    activity,
    model::{Issue, ProjectHead},
    moves, store,
};
use crate::Crashes;

/// Issues that are merged at once.
const MOST: usize = 50;
/// Batches of events that follow before the answer; the rest follows by the job.
const AT_ONCE: usize = 3;

#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = IssueMerge)]
pub(crate) struct Merge {
    /// Ids or short ids of the issues that are to become part of this one; 1 to 50.
    issues: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = IssueUnmerge)]
pub(crate) struct Unmerge {
    /// Hashes of `grouping` that go back to the issues that they made.
    hashes: Vec<String>,
    /// The issues that get all of theirs back, as `merged` lists them: ids or short ids.
    issues: Vec<String>,
}

/// Make other issues part of this one
///
/// Their events, counts, tags and users become this issue's, and so do new events of their kind. They can
/// be taken out again.
#[utoipa::path(post, path = "/api/crash/projects/{project}/issues/{issue}/merge", operation_id = "merge_crash_issues", tag = "crashes",
    security(("api_key" = [])), request_body = Merge,
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`")),
    responses((status = 200, body = Issue),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`issue_merged`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn merge_crash_issues(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path((project, named)): Path<(String, String)>,
    Json(merge): Json<Merge>,
) -> Result<Json<Issue>> {
    authorize(&principal, Action::Use(Scope::CrashesWrite))?;
    if merge.issues.is_empty() || merge.issues.len() > MOST {
        return Err(Error::invalid("issues", format!("is a list of 1 to {MOST} issues")));
    }
    let project = crashes.project_head(&principal, &project).await?;
    let (org, now) = (principal.org, crashes.deps.clock.now());
    let mut tx = loom_db::begin(&crashes.deps.pool).await?;
    let target = super::issue_of(&mut tx, &principal, &project, &named).await?;
    let mut ids = vec![target.id.0];
    for (index, named) in merge.issues.iter().enumerate() {
        let found = store::find(&mut tx, org, &project, named, false).await?;
        let found = found.ok_or_else(|| no_issue(index))?;
        if found.id == target.id {
            let message = "is the issue itself that the others are merged into";
            return Err(Error::invalid(format!("issues[{index}]"), message));
        }
        ids.push(found.id.0);
    }
    ids.sort_unstable();
    ids.dedup();
    // Locked in one order, and read again: none of them may have been merged meanwhile.
    let locked = store::lock_family(&mut tx, org, project.id, &ids).await?;
    if let Some(into) = locked.iter().find_map(|issue| issue.merged_into) {
        return Err(merged(into));
    }
    if locked.len() != ids.len() {
        return Err(Error::not_found("issue"));
    }
    let sources: Vec<Uuid> = ids.iter().copied().filter(|id| *id != target.id.0).collect();
    let place = store::merge::Place { org, project: project.id, now };
    store::merge::merge(&mut tx, place, target.id, &sources).await?;
    let names: Vec<&str> = locked
        .iter()
        .filter(|issue| issue.id != target.id)
        .map(|issue| issue.short_id.as_str())
        .collect();
    let by = Some(&principal);
    let details = json!({ "issues": names });
    activity::record(&mut tx, org, &[target.id.0], by, "merged", &details, now).await?;
    let into = json!({ "into": target.short_id });
    activity::record(&mut tx, org, &sources, by, "merged_into", &into, now).await?;
    let after = super::issue_of(&mut tx, &principal, &project, &target.id.to_string()).await?;
    tx.commit().await?;
    crashes.follow(&principal, &project, &after, "issue.merged", &sources).await;
    let target = after.id.to_string();
    crashes.deps.audit.done(&principal, &info, "crash_issue.merge", target, details).await?;
    Ok(Json(after))
}

fn no_issue(index: usize) -> Error {
    Error::invalid(format!("issues[{index}]"), "is no issue of this project, by id or short id")
}

/// Take merged issues out of this one
///
/// By hash, or all hashes of an issue that was merged into this one. Its events go with it, and both
/// issues' counts become what their events say.
#[utoipa::path(post, path = "/api/crash/projects/{project}/issues/{issue}/unmerge", operation_id = "unmerge_crash_issue", tag = "crashes",
    security(("api_key" = [])), request_body = Unmerge,
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id, or short id as `WEB-123`")),
    responses((status = 200, body = Issue),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`issue_merged`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn unmerge_crash_issue(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path((project, named)): Path<(String, String)>,
    Json(unmerge): Json<Unmerge>,
) -> Result<Json<Issue>> {
    authorize(&principal, Action::Use(Scope::CrashesWrite))?;
    let asked = unmerge.hashes.len() + unmerge.issues.len();
    if asked == 0 || asked > MOST {
        let message = format!("name 1 to {MOST} `hashes` or `issues` that are to be taken out");
        return Err(Error::invalid("hashes", message));
    }
    let mut hashes = Vec::new();
    for (index, text) in unmerge.hashes.iter().enumerate() {
        let hash = hex::decode(text).ok().filter(|hash| hash.len() == 16);
        let path = format!("hashes[{index}]");
        hashes.push(hash.ok_or_else(|| Error::invalid(path, "is 32 hexadecimal digits"))?);
    }
    let project = crashes.project_head(&principal, &project).await?;
    let (org, now) = (principal.org, crashes.deps.clock.now());
    let place = store::merge::Place { org, project: project.id, now };
    let mut tx = loom_db::begin(&crashes.deps.pool).await?;
    let from = super::issue_of(&mut tx, &principal, &project, &named).await?;
    let mut owners: Vec<Uuid> = Vec::new();
    for (index, named) in unmerge.issues.iter().enumerate() {
        let found = store::find(&mut tx, org, &project, named, false).await?;
        owners.push(found.ok_or_else(|| no_issue(index))?.id.0);
    }
    let all = store::merge::foreign_hashes(&mut tx, place, from.id, &hashes, &owners).await?;
    let mut ids: Vec<Uuid> = all.iter().map(|(_, owner)| *owner).chain([from.id.0]).collect();
    ids.sort_unstable();
    ids.dedup();
    let locked = store::lock_family(&mut tx, org, project.id, &ids).await?;
    // Once more: somebody may have been faster.
    let all = store::merge::foreign_hashes(&mut tx, place, from.id, &hashes, &owners).await?;
    let mut of: BTreeMap<Uuid, Vec<Vec<u8>>> = BTreeMap::new();
    for (hash, owner) in all {
        if locked.iter().any(|issue| issue.id.0 == owner) {
            of.entry(owner).or_default().push(hash);
        }
    }
    if of.is_empty() {
        let message = "none of these was merged into this issue; `grouping` of the issue lists its hashes, \
                       and `own_issue_id` there is the issue that gets one back";
        return Err(Error::invalid("hashes", message));
    }
    for (owner, hashes) in &of {
        store::merge::unmerge(&mut tx, place, from.id, IssueId(*owner), hashes).await?;
    }
    let taken: Vec<Uuid> = of.keys().copied().collect();
    let name = |issue: &&Issue| taken.contains(&issue.id.0);
    let names: Vec<&str> =
        locked.iter().filter(name).map(|issue| issue.short_id.as_str()).collect();
    let by = Some(&principal);
    let details = json!({ "issues": names });
    activity::record(&mut tx, org, &[from.id.0], by, "unmerged", &details, now).await?;
    let out = json!({ "from": from.short_id });
    activity::record(&mut tx, org, &taken, by, "unmerged_from", &out, now).await?;
    let after = super::issue_of(&mut tx, &principal, &project, &from.id.to_string()).await?;
    tx.commit().await?;
    crashes.follow(&principal, &project, &after, "issue.unmerged", &taken).await;
    let target = after.id.to_string();
    crashes.deps.audit.done(&principal, &info, "crash_issue.unmerge", target, details).await?;
    Ok(Json(after))
}

impl Crashes {
    /// Lets the first events follow, and tells watchers.
    async fn follow(
        &self,
        principal: &Principal,
        project: &ProjectHead,
        issue: &Issue,
        event: &str,
        others: &[Uuid],
    ) {
        let (now, never) = (self.deps.clock.now(), CancellationToken::new());
        if let Err(error) = moves::run(&self.deps.pool, now, AT_ONCE, &never).await {
            // The job goes on with it, and lists are right all the same.
            tracing::debug!(%error, "events do not follow their issue yet");
        }
        let data = json!({
            "issue_id": issue.id, "short_id": issue.short_id,
            "issues": others, "by": principal.name.as_ref(),
            "timestamp": now.to_rfc3339_opts(SecondsFormat::Millis, true),
        });
        self.tell_watchers(&Told::new(principal.org, project.id, event, data));
    }
}
