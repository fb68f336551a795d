//! The SQL of the list: the caller's own threads and those that are shared, each read in order from
//! an index of its own and merged.

use chrono::{DateTime, Utc};
use loom_core::{
    Principal, Result,
    id::{OrgId, UserId},
    principal::OrgRole,
};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::{list::Filter, model::ThreadHead};

/// Where a page ends: the last thread's activity and id.
pub(crate) type Position = (DateTime<Utc>, Uuid);

/// A thread as lists show it.
pub(super) const COLUMNS: &str = "id, version, last_seq, message_count, created_at, updated_at, last_activity_at,
    title, tags, is_pinned, visibility, org_id, owner_user_id, workspace, client, provider, model, git,
    agent_state, NULL::json AS extra, message_bytes, deleted_at";

/// Whose threads.
enum Source {
    Owned(UserId),
    /// Those of the organisation itself.
    Unowned,
    /// Those which are not private.
    Shared,
}

/// The threads that the principal may see, newest activity first.
pub(crate) async fn list(
    db: &mut PgConnection,
    principal: &Principal,
    filter: &Filter,
    after: Option<Position>,
    limit: i64,
) -> Result<Vec<ThreadHead>> {
    let mut sources = vec![Source::Shared];
    let sees_unowned = principal.user_id().is_none() || principal.role >= OrgRole::Admin;
    sources.extend(principal.user_id().map(Source::Owned));
    sources.extend(sees_unowned.then_some(Source::Unowned));

    // What is one's own and shared comes from both. To leave it out of one would be to read over all of it
    // where nobody else shares anything.
    let mut sql =
        QueryBuilder::<Postgres>::new("SELECT DISTINCT ON (last_activity_at, id) * FROM (");
    for (index, source) in sources.iter().enumerate() {
        sql.push(if index == 0 { "(" } else { " UNION ALL (" });
        sql.push("SELECT ").push(COLUMNS).push(" FROM threads WHERE ");
        sql.push(if filter.deleted { "deleted_at IS NOT NULL" } else { "deleted_at IS NULL" });
        sql.push(" AND org_id = ");
        sql.push_bind(principal.org);
        match source {
            Source::Owned(user) => {
                sql.push(" AND owner_user_id = ").push_bind(*user);
            }
            Source::Unowned => {
                sql.push(" AND owner_user_id IS NULL");
            }
            Source::Shared => {
                sql.push(" AND visibility <> 'private'");
            }
        }
        push_filter(&mut sql, principal.org, filter);
        if let Some((at, id)) = after {
            sql.push(" AND (last_activity_at, id) < (").push_bind(at);
            sql.push(", ").push_bind(id).push(")");
        }
        sql.push(" ORDER BY last_activity_at DESC, id DESC LIMIT ").push_bind(limit).push(")");
    }
    sql.push(") AS visible ORDER BY last_activity_at DESC, id DESC LIMIT ").push_bind(limit);
    Ok(sql.build_query_as().fetch_all(db).await?)
}

pub(super) fn push_filter(sql: &mut QueryBuilder<Postgres>, org: OrgId, filter: &Filter) {
    let texts = [(" AND workspace_root = ", &filter.workspace), (" AND repo = ", &filter.repo)];
    for (condition, text) in texts {
        if let Some(text) = text {
            sql.push(condition).push_bind(text.clone());
        }
    }
    if let Some(state) = filter.state {
        // A literal, so that every plan knows whether the partial index serves it.
        sql.push(" AND state = '").push(state.as_str()).push("'");
    }
    if let Some(tag) = &filter.tag {
        sql.push(" AND tags <> '{}' AND tags @> ARRAY[").push_bind(tag.clone()).push("]");
    }
    if let Some(owner) = filter.owner {
        sql.push(" AND owner_user_id = ").push_bind(owner);
    }
    if let Some(pinned) = filter.pinned {
        sql.push(" AND is_pinned = ").push_bind(pinned);
    }
    if let Some(at) = filter.updated_after {
        sql.push(" AND updated_at > ").push_bind(at);
    }
    if let Some(branch) = &filter.branch {
        // Also those that have left it since.
        sql.push(" AND id IN (SELECT thread_id FROM thread_branches WHERE org_id = ")
            .push_bind(org);
        sql.push(" AND branch = ").push_bind(branch.clone()).push(")");
    }
    if let Some(commit) = &filter.commit {
        // All that begins with these digits: 'g' comes after the last of them.
        sql.push(" AND id IN (SELECT thread_id FROM thread_commits WHERE org_id = ").push_bind(org);
        sql.push(" AND sha >= ").push_bind(commit.clone());
        sql.push(" AND sha < ").push_bind(format!("{commit}g")).push(")");
    }
}
