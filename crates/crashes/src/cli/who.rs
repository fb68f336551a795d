//! Who is asking, and what there is.

use axum::{Json, extract::State};
use loom_core::{
    Path, Principal, Result,
    authorize::{Action, authorize},
    principal::Scope,
};
use serde_json::{Value, json};

use crate::{Crashes, projects};

pub(super) async fn info(State(_crashes): State<Crashes>, principal: Principal) -> Json<Value> {
    let mut scopes = Vec::new();
    if principal.scopes.contains(Scope::CrashesRead) {
        scopes.extend(["org:read", "project:read", "event:read"]);
    }
    if principal.scopes.contains(Scope::CrashesWrite) {
        scopes.extend(["project:releases", "project:write", "event:write"]);
    }
    let user = principal.user_id().map(|id| {
        json!({"id": id, "email": principal.name, "username": principal.name, "name": principal.name})
    });
    Json(json!({"version": "0", "auth": {"scopes": scopes}, "user": user}))
}

/// The one that the credential acts in.
pub(super) async fn organizations(
    State(crashes): State<Crashes>,
    principal: Principal,
) -> Result<Json<Value>> {
    authorize(&principal, Action::Use(Scope::CrashesRead))?;
    let slug = crashes.deps.orgs.org_slug(principal.org).await?;
    // When it was made is not known here, and asked for.
    Ok(Json(json!([{
        "id": principal.org, "slug": slug, "name": slug, "dateCreated": "1970-01-01T00:00:00.000Z",
        "isEarlyAdopter": false, "require2FA": false, "requireEmailVerification": false, "features": [],
        "status": {"id": "active", "name": "active"}
    }])))
}

/// There is one: this server.
pub(super) async fn regions(State(crashes): State<Crashes>) -> Json<Value> {
    Json(json!({"regions": [{"name": "loom", "url": crashes.config.base_url}]}))
}

pub(super) async fn projects(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(org): Path<String>,
) -> Result<Json<Value>> {
    let acting = crashes.reader(&principal, &org).await?;
    let mut db = crashes.deps.pool.acquire().await?;
    let found = projects::store::list(&mut db, acting.org, None, 1000).await?;
    let all: Vec<_> = found
        .iter()
        .map(|(project, _)| {
            json!({
                "id": project.number.to_string(), "slug": project.slug, "name": project.name,
                "platform": project.platform, "team": null, "teams": [], "status": "active"
            })
        })
        .collect();
    Ok(Json(Value::Array(all)))
}

/// No repositories are connected: sentry-cli takes commits from the local one.
pub(super) async fn none(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(org): Path<String>,
) -> Result<Json<Value>> {
    crashes.reader(&principal, &org).await?;
    Ok(Json(json!([])))
}
