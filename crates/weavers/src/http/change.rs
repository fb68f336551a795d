//! Weavers: changed, ended.

use std::collections::BTreeMap;

use axum::extract::State;
use chrono::TimeDelta;
use http::StatusCode;
use loom_core::{
    Error, Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::WeaverId,
    principal::{RequestInfo, Scope},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    Weavers,
    access::{self},
    cluster, draft,
    identity::hours_to_millis,
    model::{Network, Row, Status},
    network,
    reconcile::decide::end_with,
    store::{self, list::Patch},
    view::WeaverView,
};

/// What is to be different; what is absent stays.
#[derive(Deserialize, ToSchema)]
pub(crate) struct WeaverPatch {
    /// In place of all that it has.
    tags: Option<BTreeMap<String, String>>,
    /// From its creation on, up to `LOOM_SERVER_WEAVER_MAX_TTL_HOURS`.
    lifetime_hours: Option<f64>,
    /// Holds at once, for what runs in it too.
    #[schema(inline)]
    network: Option<Network>,
}

/// Change a weaver
///
/// Its tags at any time, how long it lives and what it may reach while it is not over.
#[utoipa::path(
    patch,
    path = "/api/weaver/{id}",
    operation_id = "patch_weaver",
    tag = "weavers",
    params(("id" = WeaverId, Path)),
    request_body = WeaverPatch,
    responses(
        (status = 200, body = WeaverView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`weaver_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`weaver_ended`", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_request`, or `invalid_lifetime`", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "`kubernetes_error`: the cluster has not taken the change of the network; it is tried again", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`feature_disabled`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn patch_weaver(
    State(weavers): State<Weavers>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<WeaverId>,
    Json(wanted): Json<WeaverPatch>,
) -> Result<Json<WeaverView>> {
    weavers.to_write(&principal, id).await?;
    let access = access::writes(&principal)?;
    if let Some(tags) = &wanted.tags {
        draft::tags(tags)?;
    }
    let now = weavers.deps.clock.now();
    let mut tx = loom_db::begin(&weavers.deps.pool).await?;
    let row = store::lock(&mut tx, principal.org, id).await?;
    let row = access::changed(&principal, access, row)?;
    if (wanted.lifetime_hours.is_some() || wanted.network.is_some()) && is_ending(&row) {
        return Err(ended());
    }
    let lifetime = match wanted.lifetime_hours {
        None => None,
        Some(hours) => {
            let hours = draft::hours(hours, &weavers.config)?;
            let until = row.created_at + TimeDelta::milliseconds(hours_to_millis(hours));
            if until <= now {
                return Err(Error::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "invalid_lifetime",
                    "`lifetime_hours` counts from the creation, and it has lived for longer; DELETE ends it",
                ));
            }
            Some((hours, until))
        }
    };
    let patch = Patch { tags: wanted.tags, lifetime, network: wanted.network };
    let written = store::list::patch(&mut tx, &row, &patch).await?;
    tx.commit().await?;
    weavers.announce(&written);
    weavers.look_at(id);
    let details = json!({
        "tags": patch.tags.is_some(), "lifetime_hours": patch.lifetime.map(|(hours, _)| hours),
        "network": patch.network,
    });
    weavers.deps.audit.done(&principal, &info, "weaver.update", id.to_string(), details).await?;
    if patch.network.is_some_and(|network| network != row.network) && written.pod_uid.is_some() {
        let pods = weavers.cluster()?.pods();
        network::relabel(&pods, &weavers.installation, &written).await.map_err(cluster::failed)?;
    }
    weavers.view(written).await.map(Json)
}

fn is_ending(row: &Row) -> bool {
    row.status.is_over() || row.ending.is_some() || row.status == Status::Terminating
}

fn ended() -> Error {
    Error::conflict("weaver_ended", "this weaver is over, or about to be; make a new one")
}

/// Delete a weaver
///
/// Its pod goes, with a few seconds to end; the record, the log and the timeline stay for
/// `LOOM_SERVER_WEAVER_RETENTION_DAYS`. One that is over already stays as it is.
#[utoipa::path(
    delete,
    path = "/api/weaver/{id}",
    operation_id = "delete_weaver",
    tag = "weavers",
    params(("id" = WeaverId, Path)),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`weaver_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`feature_disabled`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn delete_weaver(
    State(weavers): State<Weavers>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<WeaverId>,
) -> Result<StatusCode> {
    let row = weavers.to_write(&principal, id).await?;
    let by = format!("deleted by {}", principal.name);
    if weavers.have_end(&row, Status::Deleted, "deleted", &by).await? {
        let details = json!({"image": row.spec.image});
        weavers
            .deps
            .audit
            .done(&principal, &info, "weaver.delete", id.to_string(), details)
            .await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

impl Weavers {
    /// Has a weaver end as `ending`, with this reason; false when it ends already.
    pub(crate) async fn have_end(
        &self,
        row: &Row,
        ending: Status,
        code: &str,
        reason: &str,
    ) -> Result<bool> {
        let mut tx = loom_db::begin(&self.deps.pool).await?;
        let Some(row) = store::lock(&mut tx, row.org_id, row.id).await? else { return Ok(false) };
        if row.status.is_over() || row.ending.is_some() {
            return Ok(false);
        }
        let change = end_with(ending, code, reason.to_owned(), Vec::new());
        let written = store::change(&mut tx, &row, &change, None).await?;
        tx.commit().await?;
        if let Some(written) = written {
            self.announce(&written);
            self.look_at(written.id);
        }
        Ok(true)
    }
}

/// What a clean-up has ended.
#[derive(Serialize, ToSchema)]
#[schema(as = WeaverCleanup)]
pub(crate) struct CleanupReport {
    deleted_count: usize,
    deleted_ids: Vec<WeaverId>,
}

/// End all weavers whose time is over, at once
///
/// As the job `weaver-cleanup` does by itself. For system admins; of all organisations.
#[utoipa::path(
    post,
    path = "/api/weavers/cleanup",
    operation_id = "clean_up_weavers",
    tag = "weavers",
    responses(
        (status = 200, body = CleanupReport),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`feature_disabled`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn clean_up_weavers(
    State(weavers): State<Weavers>,
    principal: Principal,
    info: RequestInfo,
) -> Result<Json<CleanupReport>> {
    authorize(&principal, Action::ManageSystem(Scope::WeaversWrite))?;
    weavers.require_enabled()?;
    let deleted_ids = weavers.end_those_due().await?;
    let details = json!({"deleted_count": deleted_ids.len()});
    let target = weavers.installation.clone();
    weavers.deps.audit.done(&principal, &info, "weaver.cleanup", target, details).await?;
    Ok(Json(CleanupReport { deleted_count: deleted_ids.len(), deleted_ids }))
}
