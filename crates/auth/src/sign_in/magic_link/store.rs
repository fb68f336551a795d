//! The SQL of magic links.

use chrono::{DateTime, Utc};
use loom_core::Result;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Link;

/// Stores a link; the ones before it in the same browser are void, and those for the same address when
/// this one is `mailed`: else whoever knows an address could void the links that its owner has.
pub(crate) async fn replace(
    db: &mut PgConnection,
    link: &Link,
    token: &[u8],
    code: &[u8],
    expires_at: DateTime<Utc>,
    mailed: bool,
) -> Result<()> {
    sqlx::query!(
        "DELETE FROM magic_links WHERE (email = $1 AND $3) OR browser_sha256 = $2",
        link.email,
        link.browser_sha256,
        mailed
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "INSERT INTO magic_links (id, email, token_sha256, code_sha256, browser_sha256, redirect_to, ip, user_agent, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        link.id,
        link.email,
        token,
        code,
        link.browser_sha256,
        link.redirect_to,
        link.ip,
        link.user_agent,
        link.created_at,
        expires_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A link that is good, and for whose code fewer than `most` wrong ones were typed.
pub(crate) async fn find(
    pool: &PgPool,
    token: &[u8],
    most: i32,
    now: DateTime<Utc>,
) -> Result<Option<Link>> {
    Ok(sqlx::query_as!(
        Link,
        "SELECT id, email, browser_sha256, redirect_to, ip, user_agent, created_at
           FROM magic_links WHERE token_sha256 = $1 AND expires_at > $2 AND wrong_codes < $3",
        token,
        now,
        most
    )
    .fetch_optional(pool)
    .await?)
}

/// Counts a try against the link of this browser, and gives the link with what its code must hash to;
/// none when there is no link, or it was tried `most` times before.
pub(crate) async fn try_code(
    pool: &PgPool,
    browser: &[u8],
    most: i32,
    now: DateTime<Utc>,
) -> Result<Option<(Link, Vec<u8>)>> {
    let row = sqlx::query!(
        "UPDATE magic_links SET wrong_codes = wrong_codes + 1
          WHERE browser_sha256 = $1 AND expires_at > $2 AND wrong_codes < $3
          RETURNING id, email, browser_sha256, redirect_to, ip, user_agent, created_at, code_sha256",
        browser,
        now,
        most
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| {
        let link = Link {
            id: row.id,
            email: row.email,
            browser_sha256: row.browser_sha256,
            redirect_to: row.redirect_to,
            ip: row.ip,
            user_agent: row.user_agent,
            created_at: row.created_at,
        };
        (link, row.code_sha256)
    }))
}

/// Uses a link up; false when somebody was quicker.
pub(crate) async fn take(db: &mut PgConnection, id: Uuid) -> Result<bool> {
    let done = sqlx::query!("DELETE FROM magic_links WHERE id = $1", id).execute(db).await?;
    Ok(done.rows_affected() == 1)
}
