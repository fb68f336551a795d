//! Ping keys: `/ping/<key>/<slug>` for all monitors of an organisation.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use http::StatusCode;
use loom_core::{
    Error, Json, Path, Principal, Result, error::Problem, id::ProjectId, principal::RequestInfo,
    text::is_plain_line,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{reads, writes};
use crate::{
    Crons,
    draft::new_key,
    store::{self, keys::PingKey},
};

const MOST: usize = 100;

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewPingKey {
    /// What it is for.
    name: String,
    /// The project of the monitors that `?create=1` makes: id, number or slug.
    project_id: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PingKeyView {
    id: Uuid,
    name: String,
    project_id: Option<ProjectId>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    created_at: DateTime<Utc>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewPingKeyView {
    #[serde(flatten)]
    view: PingKeyView,
    /// Shown this once.
    key: String,
    /// What jobs call, with the slug of a monitor behind it.
    ping_url: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PingKeys {
    ping_keys: Vec<PingKeyView>,
}

impl From<PingKey> for PingKeyView {
    fn from(key: PingKey) -> Self {
        Self {
            id: key.id,
            name: key.name,
            project_id: key.project_id.map(ProjectId),
            created_at: key.created_at,
        }
    }
}

/// List ping keys, the newest first
#[utoipa::path(
    get,
    path = "/api/crons/ping-keys",
    operation_id = "list_ping_keys",
    tag = "crons",
    responses(
        (status = 200, body = PingKeys),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn list_ping_keys(
    State(crons): State<Crons>,
    principal: Principal,
) -> Result<Json<PingKeys>> {
    reads(&principal)?;
    let mut db = crons.deps.pool.acquire().await?;
    let keys = store::keys::list(&mut db, principal.org).await?;
    Ok(Json(PingKeys { ping_keys: keys.into_iter().map(PingKeyView::from).collect() }))
}

/// Make a ping key
///
/// Jobs call `/ping/<key>/<slug>`; with `?create=1` the monitor is made when it is not there.
#[utoipa::path(
    post,
    path = "/api/crons/ping-keys",
    operation_id = "create_ping_key",
    tag = "crons",
    request_body = NewPingKey,
    responses(
        (status = 201, body = NewPingKeyView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`too_many_ping_keys`", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn create_ping_key(
    State(crons): State<Crons>,
    principal: Principal,
    info: RequestInfo,
    Json(new): Json<NewPingKey>,
) -> Result<Response> {
    writes(&principal)?;
    if !is_plain_line(&new.name, 100) {
        return Err(Error::invalid("name", "is one line of 1 to 100 bytes"));
    }
    let project = match &new.project_id {
        Some(project) => Some(crons.project(principal.org, project).await?),
        None => None,
    };
    let now = crons.deps.clock.now();
    let key = new_key();
    let row = PingKey {
        id: loom_core::id::new_uuid(now),
        name: new.name,
        project_id: project.map(|project| project.0),
        created_at: now,
    };
    let mut db = crons.deps.pool.acquire().await?;
    if store::keys::list(&mut db, principal.org).await?.len() >= MOST {
        return Err(Error::conflict(
            "too_many_ping_keys",
            format!("there are {MOST} ping keys already; delete one that is not needed"),
        ));
    }
    store::keys::insert(&mut db, principal.org, &row, &Sha256::digest(key.as_bytes())).await?;
    drop(db);
    let target = row.id.to_string();
    let audit = &crons.deps.audit;
    audit.done(&principal, &info, "ping_key.create", target, json!({"name": row.name})).await?;
    let ping_url = format!("{}/ping/{key}", crons.config.base_url);
    let view = NewPingKeyView { view: row.into(), key, ping_url };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// Delete a ping key
///
/// Jobs that call it are not known any more from then on.
#[utoipa::path(
    delete,
    path = "/api/crons/ping-keys/{id}",
    operation_id = "delete_ping_key",
    tag = "crons",
    params(("id" = Uuid, Path)),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn delete_ping_key(
    State(crons): State<Crons>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<Uuid>,
) -> Result<StatusCode> {
    writes(&principal)?;
    let mut db = crons.deps.pool.acquire().await?;
    if !store::keys::delete(&mut db, principal.org, id).await? {
        return Err(Error::not_found("ping key"));
    }
    drop(db);
    crons.engine.changed(None).await;
    let audit = &crons.deps.audit;
    audit.done(&principal, &info, "ping_key.delete", id.to_string(), json!({})).await?;
    Ok(StatusCode::NO_CONTENT)
}
