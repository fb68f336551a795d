//! Tokens for one WebSocket, because a browser cannot send headers with one: good for half a minute
//! and for one use. Such a token stands for the credential that asked for it, and ends with it.

use std::time::Duration;

use loom_core::{Principal, Result};
use sqlx::PgPool;

use crate::{Auth, authenticate::TokenDigest, sign_in::browser::random_secret, token};

pub(crate) const LIFE: Duration = Duration::from_secs(30);
const PREFIX: &str = "ws_";

impl Auth {
    /// A new token for what authenticated this request.
    pub(crate) async fn ws_token(
        &self,
        principal: &Principal,
        credential: Option<TokenDigest>,
    ) -> Result<String> {
        let token = format!("{PREFIX}{}", random_secret());
        sqlx::query!(
            "INSERT INTO ws_tokens (token_sha256, via, credential_sha256, expires_at) VALUES ($1, $2, $3, $4)",
            &token::digest(&token),
            principal.via.as_str(),
            credential.as_ref().map(<[u8; 32]>::as_slice),
            self.clock.now() + LIFE
        )
        .execute(&self.pool)
        .await?;
        Ok(token)
    }
}

/// What a token stood for, which is none from now on.
pub(crate) struct WsGrant {
    pub(crate) via: String,
    pub(crate) credential: Option<TokenDigest>,
}

pub(crate) async fn take(
    pool: &PgPool,
    token: &str,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<Option<WsGrant>> {
    if !token.starts_with(PREFIX) {
        return Ok(None);
    }
    let row = sqlx::query!(
        "DELETE FROM ws_tokens WHERE token_sha256 = $1 RETURNING via, credential_sha256, expires_at",
        &token::digest(token)
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.filter(|row| row.expires_at > now).map(|row| WsGrant {
        via: row.via,
        credential: row.credential_sha256.and_then(|digest| digest.try_into().ok()),
    }))
}
