//! The routes of the audit log.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures::stream;
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::OrgId,
    page::cut,
    principal::{RequestInfo, Scope},
};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{AuditQuery, Entries, Format},
    store,
};
use crate::Auth;

/// Entries read at a time for an export.
const CHUNK: usize = 500;
/// Exports that run at a time in this process.
pub(crate) const EXPORTS: usize = 4;

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().routes(routes!(audit_log)).routes(routes!(org_audit_log))
}

/// The audit log, newest first
///
/// With `format=ndjson` all that matches, one object a line, as a download.
#[utoipa::path(get, path = "/api/admin/audit-log", tag = "admin", security(("api_key" = [])), params(AuditQuery),
    responses((status = 200, content((Entries = "application/json"), (String = "application/x-ndjson"))),
        (status = 403, description = "For system admins and auditors", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn audit_log(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Query(query): Query<AuditQuery>,
) -> Result<Response> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    auth.show_audit(&principal, &info, None, query).await
}

/// What was done in an organisation, newest first
///
/// With `format=ndjson` all that matches, one object a line, as a download.
#[utoipa::path(get, path = "/api/orgs/{org}/audit-log", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), AuditQuery),
    responses((status = 200, content((Entries = "application/json"), (String = "application/x-ndjson"))),
        (status = 403, description = "For admins and owners", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn org_audit_log(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path(org): Path<String>,
    Query(query): Query<AuditQuery>,
) -> Result<Response> {
    let here = auth.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminRead))?;
    auth.show_audit(&here, &info, Some(here.org), query).await
}

impl Auth {
    async fn show_audit(
        &self,
        by: &Principal,
        info: &RequestInfo,
        org: Option<OrgId>,
        query: AuditQuery,
    ) -> Result<Response> {
        query.check()?;
        if query.format == Some(Format::Ndjson) {
            return self.export_audit(by, info, org, query).await;
        }
        let page = query.page();
        let kind = format!("audit:{}", filters(org, &query));
        let limit = page.limit()?;
        let after = page.after_time(&kind)?;
        let entries = store::entries(&self.pool, org, &query, after, limit + 1).await?;
        let (entries, next_cursor) = cut(entries, limit, &kind, |entry| (entry.at, entry.id));
        Ok(Json(Entries { entries, next_cursor }).into_response())
    }

    /// Reads on as fast as it is taken. An error on the way breaks the download off.
    async fn export_audit(
        &self,
        by: &Principal,
        info: &RequestInfo,
        org: Option<OrgId>,
        query: AuditQuery,
    ) -> Result<Response> {
        let permit = Arc::clone(&self.exports)
            .try_acquire_owned()
            .map_err(|_| Error::overloaded("the export of the audit log"))?;
        let details = json!({"filters": filters(org, &query)});
        self.done(by, None, info, "audit_log.export", "", details).await?;
        let auth = self.clone();
        let lines = stream::try_unfold(Some(None), move |position| {
            let (auth, query) = (auth.clone(), query.clone());
            async move {
                let Some(after) = position else { return Ok::<_, Error>(None) };
                let entries = store::entries(&auth.pool, org, &query, after, CHUNK).await?;
                let last = entries.last().map(|entry| (entry.at, entry.id));
                let next = last.filter(|_| entries.len() == CHUNK).map(Some);
                let mut text = Vec::new();
                for entry in &entries {
                    serde_json::to_writer(&mut text, entry).map_err(Error::internal)?;
                    text.push(b'\n');
                }
                Ok(Some((text, next)))
            }
        });
        let held = futures::StreamExt::inspect(lines, move |_| {
            let _ = &permit;
        });
        let headers = [
            (header::CONTENT_TYPE, "application/x-ndjson"),
            (header::CACHE_CONTROL, "no-store"),
            (header::CONTENT_DISPOSITION, "attachment; filename=\"audit-log.ndjson\""),
        ];
        Ok((headers, Body::from_stream(held)).into_response())
    }
}

/// A cursor is good for one set of filters.
fn filters(org: Option<OrgId>, query: &AuditQuery) -> String {
    let AuditQuery { actor, action, org_id, outcome, target, credential, ip, from, to, .. } = query;
    json!([org, actor, action, org_id, outcome, target, credential, ip, from, to]).to_string()
}
