//! Which commits may have brought an issue: those of its release that touched the files of its stack, and the
//! threads that they were made in.

use axum::extract::State;
use chrono::{DateTime, Utc};
use loom_core::{
    Error, Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::EventId,
    principal::Scope,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    model::{Commit, MAX_COMMITS, Release},
    store,
};
use crate::{
    Crashes,
    issues::{event, store as issues},
};

/// Frames that are looked at, those nearest to the crash first.
const FRAMES: usize = 32;
/// Suspects that are told.
const SUSPECTS: usize = 10;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Suspects {
    /// The release that the issue came with, or came back with.
    pub release: Option<String>,
    /// The one before, whose commits are none of these.
    pub previous_release: Option<String>,
    #[schema(value_type = Option<String>)]
    pub event_id: Option<EventId>,
    /// The likeliest first; at most 10.
    pub suspects: Vec<Suspect>,
    /// Why there are none: `no_event`, `no_release`, `no_frames`, `no_commits`, `no_match`.
    pub reason: Option<&'static str>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Suspect {
    pub sha: String,
    pub message: Option<String>,
    pub author_name: Option<String>,
    pub author_email: Option<String>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub at: Option<DateTime<Utc>>,
    pub repository: Option<String>,
    /// 0 to 1: how near to the crash it touched something, and how sure it is that it is the same file.
    pub score: f64,
    pub files: Vec<SuspectFile>,
    /// Those that you may see.
    pub threads: Vec<SuspectThread>,
}

/// A file that the commit touched and that the stack goes through.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct SuspectFile {
    pub path: String,
    pub frame: String,
    pub function: Option<String>,
    pub lineno: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SuspectThread {
    pub id: loom_core::id::ThreadId,
    pub title: Option<String>,
}

/// The commits that may have brought an issue
///
/// Of the release that it was first seen in (or came back in): those that touched a file which the stack of the
/// newest event goes through, with the threads that made them.
#[utoipa::path(
    get,
    path = "/api/crash/projects/{project}/issues/{issue}/suspects",
    operation_id = "list_suspects",
    tag = "crashes",
    security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"),
        ("issue" = String, Path, description = "Id or short id")),
    responses((status = 200, body = Suspects),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_suspects(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((project, issue)): Path<(String, String)>,
) -> Result<Json<Suspects>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let head = crashes.project_head(&principal, &project).await?;
    let mut none = Suspects {
        release: None,
        previous_release: None,
        event_id: None,
        suspects: Vec::new(),
        reason: None,
    };
    let mut db = crashes.deps.pool.acquire().await?;
    let found = issues::find(&mut db, principal.org, &head, &issue, false).await?;
    let issue = found.ok_or_else(|| Error::not_found("issue"))?;
    let held = issues::events::held(&mut db, principal.org, issue.id).await?;
    let newest = issues::events::beside(&mut db, principal.org, &held, None, false).await?;
    let row = match newest {
        Some(id) => issues::events::get(&mut db, principal.org, head.id, id).await?,
        None => None,
    };
    let Some(row) = row else {
        none.reason = Some("no_event");
        return Ok(Json(none));
    };
    none.event_id = Some(row.event_id);
    let raw = issues::events::raw(&mut db, principal.org, head.id, &row).await?;
    let version = [&issue.regressed_in_release, &issue.first_release, &row.release];
    let Some(version) = version.into_iter().flatten().next().cloned() else {
        none.reason = Some("no_release");
        return Ok(Json(none));
    };
    none.release = Some(version.clone());
    let release = store::find(&mut db, principal.org, head.id, &version).await?;
    let Some(release) = release else {
        none.reason = Some("no_commits");
        return Ok(Json(none));
    };
    let before = store::previous(&mut db, &release, false).await?;
    none.previous_release = before.map(|release: Release| release.version);
    drop(db);
    let limit = i64::try_from(MAX_COMMITS).unwrap_or(i64::MAX);
    let commits = store::commits(&crashes.deps.pool, principal.org, release.id, 0, limit).await?;
    let payload = match raw {
        Some((payload, _)) => event::unpack(&payload)?,
        None => Value::Null,
    };
    let frames = frames(&payload, &event::unpack(&row.processed)?);
    none.reason = match (frames.is_empty(), commits.is_empty()) {
        (true, _) => Some("no_frames"),
        (_, true) => Some("no_commits"),
        _ => None,
    };
    if none.reason.is_some() {
        return Ok(Json(none));
    }
    let ranked = rank(commits, &frames);
    let shas: Vec<_> = ranked.iter().map(|(commit, ..)| commit.sha.clone()).collect();
    let mut threads = crashes.deps.threads.with_commits(&principal, &shas).await?;
    none.reason = ranked.is_empty().then_some("no_match");
    none.suspects = ranked
        .into_iter()
        .map(|(commit, score, files)| Suspect {
            threads: threads
                .remove(&commit.sha)
                .unwrap_or_default()
                .into_iter()
                .map(|thread| SuspectThread { id: thread.id, title: thread.title })
                .collect(),
            sha: commit.sha,
            message: commit.message,
            author_name: commit.author_name,
            author_email: commit.author_email,
            at: commit.at,
            repository: commit.repository,
            score,
            files,
        })
        .collect();
    Ok(Json(none))
}

/// A call of the stack.
#[derive(Debug)]
struct Frame {
    path: String,
    function: Option<String>,
    lineno: Option<u64>,
}

/// Those of our own code, nearest to the crash first.
fn frames(payload: &Value, processed: &Value) -> Vec<Frame> {
    let exceptions = event::overlaid(payload, "exception", processed, "exceptions");
    let threads = event::overlaid(payload, "threads", processed, "threads");
    let mut all = Vec::new();
    // The last exception is the outermost, the last frame the newest call.
    for stack in exceptions.as_array().into_iter().flatten().rev() {
        collect(stack, &mut all);
    }
    if all.is_empty() {
        for stack in threads.as_array().into_iter().flatten() {
            if stack.get("crashed") == Some(&Value::Bool(true)) {
                collect(stack, &mut all);
            }
        }
    }
    all.truncate(FRAMES);
    all
}

fn collect(stack: &Value, all: &mut Vec<Frame>) {
    for frame in stack.get("frames").and_then(Value::as_array).into_iter().flatten().rev() {
        if frame.get("in_app") == Some(&Value::Bool(false)) {
            continue;
        }
        let text = |name: &str| frame.get(name).and_then(Value::as_str).map(str::to_owned);
        // The longer one says more.
        let path =
            [text("abs_path"), text("filename")].into_iter().flatten().max_by_key(String::len);
        if let Some(path) = path {
            let lineno = frame.get("lineno").and_then(Value::as_u64);
            all.push(Frame { path, function: text("function"), lineno });
        }
    }
}

/// Commits by how near to the crash they touched something; of two as near, the newer.
fn rank(commits: Vec<Commit>, frames: &[Frame]) -> Vec<(Commit, f64, Vec<SuspectFile>)> {
    let mut ranked = Vec::new();
    for commit in commits {
        let mut score: f64 = 0.0;
        let mut files: Vec<SuspectFile> = Vec::new();
        for (depth, frame) in frames.iter().enumerate() {
            for path in &commit.files {
                let sure = likeness(path, &frame.path);
                if sure == 0.0 {
                    continue;
                }
                // Four frames further from the crash are half as telling.
                let near = 0.5_f64.powf(f64::from(u32::try_from(depth).unwrap_or(u32::MAX)) / 4.0);
                score = score.max(near * sure);
                if !files.iter().any(|file| file.path == *path) {
                    files.push(SuspectFile {
                        path: path.clone(),
                        frame: frame.path.clone(),
                        function: frame.function.clone(),
                        lineno: frame.lineno,
                    });
                }
            }
        }
        if score > 0.0 {
            ranked.push((commit, (score * 1000.0).round() / 1000.0, files));
        }
    }
    // Commits come newest first, and the sort keeps that.
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(SUSPECTS);
    ranked
}

/// 1 when one path is the end of the other, with a folder in it; less when only some of their ends are equal.
fn likeness(committed: &str, frame: &str) -> f64 {
    let parts = |path: &str| {
        let path = path.split(['?', '#']).next().unwrap_or_default().replace('\\', "/");
        let path = path.split_once("://").map_or(path.clone(), |(_, rest)| rest.to_owned());
        path.split('/')
            .filter(|part| !matches!(*part, "" | "." | ".." | "~"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (committed, frame) = (parts(committed), parts(frame));
    let equal = committed.iter().rev().zip(frame.iter().rev()).take_while(|(a, b)| a == b).count();
    let shorter = committed.len().min(frame.len());
    match equal {
        0 => 0.0,
        _ if equal == shorter && (equal > 1 || committed.len() == frame.len()) => 1.0,
        // Nothing but the name: `index.ts` is many files.
        1 if equal == shorter => 0.6,
        1 => 0.2,
        _ => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_commit_is_that_of_a_frame_when_one_is_the_end_of_the_other() {
        for (committed, frame, alike) in [
            ("src/cart/total.ts", "webpack:///./src/cart/total.ts", 1.0),
            ("shop/src/total.py", "/srv/app/shop/src/total.py", 1.0),
            ("shop/src/total.py", "src/total.py", 1.0),
            ("total.py", "total.py", 1.0),
            ("src/total.py", "total.py", 0.6),
            ("a/src/total.py", "b/src/total.py", 0.5),
            ("src/index.ts", "lib/index.ts", 0.2),
            ("src/total.py", "src/subtotal.py", 0.0),
        ] {
            assert!((likeness(committed, frame) - alike).abs() < 1e-9, "{committed} {frame}");
        }
    }

    #[test]
    fn the_commit_that_touched_the_crashing_file_comes_before_one_that_touched_its_callers() {
        let commit = |sha: &str, files: &[&str]| Commit {
            sha: sha.to_owned(),
            files: files.iter().map(|f| (*f).to_owned()).collect(),
            ..Commit::default()
        };
        let frame = |path: &str| Frame { path: path.to_owned(), function: None, lineno: None };
        let frames = [frame("app/cart/total.py"), frame("app/views.py"), frame("app/main.py")];
        let commits = vec![
            commit("newest", &["docs/readme.md"]),
            commit("caller", &["app/views.py"]),
            commit("culprit", &["app/cart/total.py", "app/main.py"]),
            commit("older", &["app/cart/total.py"]),
        ];
        let ranked = rank(commits, &frames);
        let shas: Vec<_> = ranked.iter().map(|(commit, ..)| commit.sha.as_str()).collect();
        assert_eq!(shas, ["culprit", "older", "caller"]);
        assert_eq!(ranked[0].2.len(), 2);
    }
}
