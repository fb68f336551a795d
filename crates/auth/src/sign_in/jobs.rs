//! Removing what is past its time. Nothing here makes a credential end: that is its own time.

use std::time::Duration;

use loom_core::Result;
use loom_jobs::{Job, JobContext, JobError, JobReport};
use sqlx::PgPool;

use crate::{Auth, sessions};

impl Auth {
    pub(crate) fn sign_in_jobs(&self) -> Vec<Job> {
        let (pool, config) = (self.pool.clone(), &self.sign_in.config);
        let sessions = {
            let pool = pool.clone();
            Job::new(
                "session-cleanup",
                "Session clean-up",
                "Removes sessions that have ended by themselves",
                config.session_cleanup.max(Duration::from_secs(1)),
                Duration::from_secs(300),
                move |context| clean_sessions(pool.clone(), context),
            )
        };
        let states = Job::new(
            "oauth-state-cleanup",
            "Sign-in clean-up",
            "Removes sign-ins that were begun and not finished in time, and unused one-time tokens",
            config.state_cleanup.max(Duration::from_secs(1)),
            Duration::from_secs(60),
            move |context| clean_begun(pool.clone(), context),
        );
        vec![sessions, states]
    }
}

async fn clean_sessions(pool: PgPool, context: JobContext) -> Result<JobReport, JobError> {
    Ok(sessions::store::delete_expired(&pool, context.clock.now()).await?.into())
}

async fn clean_begun(pool: PgPool, context: JobContext) -> Result<JobReport, JobError> {
    let now = context.clock.now();
    let mut deleted = 0;
    deleted += sqlx::query!("DELETE FROM oauth_states WHERE expires_at <= $1", now)
        .execute(&pool)
        .await?
        .rows_affected();
    deleted += sqlx::query!("DELETE FROM magic_links WHERE expires_at <= $1", now)
        .execute(&pool)
        .await?
        .rows_affected();
    deleted += sqlx::query!("DELETE FROM device_grants WHERE expires_at <= $1", now)
        .execute(&pool)
        .await?
        .rows_affected();
    deleted += sqlx::query!("DELETE FROM ws_tokens WHERE expires_at <= $1", now)
        .execute(&pool)
        .await?
        .rows_affected();
    deleted += sqlx::query!("DELETE FROM setup_tokens WHERE expires_at <= $1", now)
        .execute(&pool)
        .await?
        .rows_affected();
    Ok(deleted.into())
}
