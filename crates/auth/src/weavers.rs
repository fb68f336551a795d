//! The credentials of weavers: short-lived, for one organisation, worth nothing without their owner.

use std::time::Duration;

use loom_common_secret::SecretString;
use loom_core::{
    Error, Result,
    id::{OrgId, WeaverId},
    port::{BoxFuture, WeaverGrant, WeaverTokens},
};
use loom_jobs::{Job, JobContext, JobError, JobReport};
use sqlx::{PgExecutor, PgPool};

use crate::{
    Auth,
    authenticate::{Revoked, tell},
    token::{self, TokenKind},
};

/// Rows deleted by one statement.
const BATCH: i64 = 1000;

impl WeaverTokens for Auth {
    fn issue(&self, grant: WeaverGrant) -> BoxFuture<'_, Result<SecretString>> {
        Box::pin(async move {
            let now = self.clock.now();
            if grant.expires_at <= now {
                return Err(Error::invalid("expires_at", "is in the past"));
            }
            let secret = token::generate(TokenKind::Weaver);
            let digest = token::digest(secret.expose());
            let scopes: Vec<String> =
                grant.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
            sqlx::query!(
                "INSERT INTO weaver_tokens (secret_sha256, weaver_id, org_id, owner_id, scopes, created_at, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                digest.as_slice(),
                grant.weaver.0,
                grant.org.0,
                grant.owner.map(|owner| owner.0),
                &scopes,
                now,
                grant.expires_at
            )
            .execute(&self.pool)
            .await?;
            Ok(secret)
        })
    }

    fn revoke(&self, org: OrgId, weaver: WeaverId) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let mut tx = loom_db::begin(&self.pool).await?;
            let digests = sqlx::query_scalar!(
                "DELETE FROM weaver_tokens WHERE org_id = $1 AND weaver_id = $2 RETURNING secret_sha256",
                org.0,
                weaver.0
            )
            .fetch_all(&mut *tx)
            .await?;
            let revoked: Vec<_> = digests.iter().filter_map(|one| Revoked::digest(one)).collect();
            tell(&mut *tx, &revoked).await?;
            tx.commit().await?;
            self.forget(&revoked).await;
            Ok(())
        })
    }
}

/// Ends the token with this digest; gives whose it was.
pub(crate) async fn end_one(
    db: impl PgExecutor<'_>,
    digest: &[u8],
) -> Result<Option<(OrgId, WeaverId)>> {
    let row = sqlx::query!(
        r#"DELETE FROM weaver_tokens WHERE secret_sha256 = $1
           RETURNING org_id AS "org_id: OrgId", weaver_id AS "weaver_id: WeaverId""#,
        digest
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.org_id, row.weaver_id)))
}

pub(crate) fn cleanup_job(pool: PgPool) -> Job {
    Job::new(
        "weaver-token-cleanup",
        "Weaver token clean-up",
        "Deletes the tokens of weavers that have expired",
        Duration::from_secs(3600),
        Duration::from_secs(60),
        move |context| cleanup(pool.clone(), context),
    )
}

async fn cleanup(pool: PgPool, context: JobContext) -> Result<JobReport, JobError> {
    let now = context.clock.now();
    let mut items_handled = 0;
    while !context.cancel.is_cancelled() {
        let deleted = sqlx::query!(
            "DELETE FROM weaver_tokens WHERE secret_sha256 IN
                 (SELECT secret_sha256 FROM weaver_tokens WHERE expires_at <= $1 LIMIT $2)",
            now,
            BATCH
        )
        .execute(&pool)
        .await?
        .rows_affected();
        items_handled += deleted;
        if deleted == 0 {
            break;
        }
    }
    Ok(JobReport { items_handled })
}
