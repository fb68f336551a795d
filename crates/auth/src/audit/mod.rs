//! The audit log: who did what, from where, by which credential, with what result. Append-only.

mod http;
mod model;
mod partitions;
mod refusals;
mod store;

pub(crate) use http::{EXPORTS, routes};
pub(crate) use partitions::jobs;

use loom_core::{
    Clock, Principal, Result,
    id::{OrgId, new_uuid},
    port::{Act, Audit, BoxFuture, Outcome},
    principal::{Actor, RequestInfo},
};
use sqlx::PgPool;

/// Writes the audit log.
pub struct AuditLog {
    pool: PgPool,
    clock: Clock,
}

impl AuditLog {
    pub fn new(pool: PgPool, clock: Clock) -> Self {
        Self { pool, clock }
    }
}

impl Audit for AuditLog {
    fn record<'a>(
        &'a self,
        by: Option<&'a Principal>,
        org: Option<OrgId>,
        from: Option<&'a RequestInfo>,
        act: Act,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let now = self.clock.now();
            let (kind, id) = match by.map(|principal| principal.actor) {
                Some(Actor::User(id)) => ("user", Some(id.0)),
                Some(Actor::Service(id)) => ("service", Some(id.0)),
                Some(Actor::Weaver(id)) => ("weaver", Some(id.0)),
                None => ("system", None),
            };
            let via = by.map(|principal| principal.via);
            let outcome = match act.outcome {
                Outcome::Success => "success",
                Outcome::Denied => "denied",
                Outcome::Failed => "failed",
            };
            sqlx::query!(
                "INSERT INTO audit_log (id, at, org_id, actor_kind, actor_id, actor_name, via, action, target, outcome, ip, request_id, details, credential_id)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
                new_uuid(now),
                now,
                org.or_else(|| by.map(|principal| principal.org)).map(|org| org.0),
                kind,
                id,
                by.map_or("", |principal| &principal.name),
                via.map_or("system", loom_core::principal::Via::as_str),
                act.action,
                act.target,
                outcome,
                from.map(|from| from.ip.to_string()),
                from.map(|from| from.id.as_ref()),
                act.details,
                via.and_then(loom_core::principal::Via::credential_id)
            )
            .execute(&self.pool)
            .await?;
            Ok(())
        })
    }
}
