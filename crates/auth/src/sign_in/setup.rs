//! The first admin, by a link that the server prints when nobody administers it yet. Whoever comes
//! first to the page is nobody: only the link makes an admin, once.

use std::time::Duration;

use axum::{http::HeaderMap, response::Response};
use loom_core::{Error, Result, principal::RequestInfo};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    browser::{is_secret, random_secret},
    enter::{HOME, Shown},
    identity::Entry,
};
use crate::{
    Auth,
    authenticate::{Revoked, tell},
    bootstrap::DEV_EMAIL,
    token,
    users::store as users,
};

const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Of all who may make a first admin at the same time, one does.
const LOCK: i64 = 0x6c6f_6f6d_5f73_6574;

fn stale() -> Error {
    Error::malformed(
        "setup_expired",
        "this set-up link was used already, is older than a day, or an admin was made another way; \
         `loom-server admin create <email>` makes one on the server's machine",
    )
}

async fn has_admin(db: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM users WHERE is_system_admin AND disabled_at IS NULL AND email <> $1) AS "has!""#,
        DEV_EMAIL
    )
    .fetch_one(db)
    .await?)
}

impl Auth {
    /// A link that makes the first admin; none when there is one.
    pub async fn setup_link(&self) -> Result<Option<String>> {
        let mut db = self.pool.acquire().await?;
        if has_admin(&mut db).await? {
            return Ok(None);
        }
        let token = random_secret();
        sqlx::query!(
            "INSERT INTO setup_tokens (token_sha256, expires_at) VALUES ($1, $2)",
            &token::digest(&token),
            self.clock.now() + LIFE
        )
        .execute(&mut *db)
        .await?;
        Ok(Some(format!("{}/auth/setup?token={token}", self.site.base_url)))
    }

    /// Does nobody administer this installation yet? The database is asked until somebody does.
    pub(crate) async fn wants_set_up(&self) -> Result<bool> {
        if self.administered.get().is_none() {
            let mut db = self.pool.acquire().await?;
            if !has_admin(&mut db).await? {
                return Ok(true);
            }
            self.administered.get_or_init(|| ());
        }
        Ok(false)
    }

    /// Is the link good? Nothing happens to it.
    pub(crate) async fn look_at_setup(&self, token: &str) -> Result<()> {
        let mut db = self.pool.acquire().await?;
        let good = is_secret(token)
            && sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT FROM setup_tokens WHERE token_sha256 = $1 AND expires_at > $2) AS "is!""#,
                &token::digest(token),
                self.clock.now()
            )
            .fetch_one(&mut *db)
            .await?;
        if good && !has_admin(&mut db).await? { Ok(()) } else { Err(stale()) }
    }

    /// Makes the first admin and signs them in.
    pub(crate) async fn set_up(
        &self,
        token: &str,
        email: &str,
        headers: &HeaderMap,
        info: &RequestInfo,
    ) -> Result<Response> {
        let now = self.clock.now();
        let mut tx = loom_db::begin(&self.pool).await?;
        sqlx::query!("SELECT pg_advisory_xact_lock($1)", LOCK).execute(&mut *tx).await?;
        let taken = sqlx::query!(
            "DELETE FROM setup_tokens WHERE token_sha256 = $1 AND expires_at > $2",
            &token::digest(token),
            now
        )
        .execute(&mut *tx)
        .await?;
        if taken.rows_affected() == 0 || has_admin(&mut tx).await? {
            return Err(stale());
        }
        sqlx::query!("DELETE FROM setup_tokens").execute(&mut *tx).await?;
        let (user, entry) = match users::user_by_email(&mut *tx, email).await? {
            Some(user) => {
                users::make_system_admin(&mut *tx, user).await?;
                tell(&mut *tx, &[Revoked::User(user)]).await?;
                (user, Entry::Known)
            }
            None => (users::insert_user(&mut tx, email, true, now).await?, Entry::SignedUp),
        };
        let shown = Shown {
            user,
            entry,
            method: "set_up",
            details: json!({"system_admin": true}),
            redirect_to: HOME.to_owned(),
            is_form: true,
        };
        self.enter(tx, shown, headers, info).await
    }
}
