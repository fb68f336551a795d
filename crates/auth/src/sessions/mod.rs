//! Sessions: a signed-in browser (by cookie) or command-line client (by token). Only the SHA-256 of
//! the secret is stored; it is good for 60 days after its last use and for 180 at most.

mod http;
pub(crate) mod model;
pub(crate) mod site;
pub(crate) mod store;
mod ws;

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use loom_common_secret::SecretString;
use loom_core::{
    Principal, Result,
    id::{SessionId, UserId},
    principal::{RequestInfo, Via},
    text,
};
use sqlx::PgConnection;

pub(crate) use http::routes;
pub(crate) use ws::take as take_ws_token;

use crate::{
    Auth,
    authenticate::{Revoked, tell},
    sign_in::browser::{is_secret, random_secret},
    token::{self, TokenKind},
};

/// After its last use.
pub(crate) const SLIDING: Duration = Duration::from_secs(60 * 24 * 3600);
/// However much it is used.
pub(crate) const ABSOLUTE: Duration = Duration::from_secs(180 * 24 * 3600);
const MAX_USER_AGENT: usize = 300;

#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    sqlx::Type,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub(crate) enum SessionKind {
    /// A browser.
    Web,
    /// A command-line client.
    Cli,
}

/// Where a session comes from.
pub(crate) struct Origin<'a> {
    pub(crate) kind: SessionKind,
    /// A provider's name, `magic_link`, `set_up` or `device`.
    pub(crate) method: &'a str,
    /// What a command-line client calls itself.
    pub(crate) client: Option<&'a str>,
    pub(crate) user_agent: Option<&'a str>,
    pub(crate) ip: String,
}

/// A session just begun; its secret is not to be had again.
pub(crate) struct NewSession {
    pub(crate) id: SessionId,
    pub(crate) secret: SecretString,
    pub(crate) expires_at: chrono::DateTime<chrono::Utc>,
}

/// What a client calls itself, as much of it as is kept.
pub(crate) fn user_agent(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::USER_AGENT)?.to_str().ok()?;
    Some(text::cut(value.trim(), MAX_USER_AGENT)).filter(|agent| !agent.is_empty())
}

impl Auth {
    pub(crate) async fn begin_session(
        &self,
        db: &mut PgConnection,
        user: UserId,
        origin: &Origin<'_>,
    ) -> Result<NewSession> {
        let secret = match origin.kind {
            SessionKind::Web => SecretString::from(random_secret()),
            SessionKind::Cli => token::generate(TokenKind::Cli),
        };
        let now = self.clock.now();
        let session = NewSession { id: SessionId::new(now), expires_at: now + SLIDING, secret };
        let digest = token::digest(session.secret.expose());
        store::insert(db, &session, user, &digest, origin, now).await?;
        Ok(session)
    }

    /// Begins the session of a browser that has just signed in. The one that it had ends: an old
    /// cookie must not be worth more because somebody signs in with it there.
    pub(crate) async fn begin_in_browser(
        &self,
        db: &mut PgConnection,
        user: UserId,
        method: &str,
        headers: &HeaderMap,
        info: &RequestInfo,
    ) -> Result<(NewSession, Option<Revoked>)> {
        let before = match self.session_cookie_digest(headers) {
            Some(digest) if store::delete_by_digest(db, &digest).await? => {
                Some(Revoked::Credential(digest))
            }
            _ => None,
        };
        let origin = Origin {
            kind: SessionKind::Web,
            method,
            client: None,
            user_agent: user_agent(headers),
            ip: info.ip.to_string(),
        };
        let session = self.begin_session(db, user, &origin).await?;
        tell(&mut *db, before.as_slice()).await?;
        Ok((session, before))
    }

    /// `Set-Cookie` for a new session. The cookie may outlive the session, which ends here.
    pub(crate) fn session_cookie(&self, session: &NewSession) -> HeaderValue {
        self.site.set_cookie(self.site.session_cookie(), session.secret.expose(), ABSOLUTE)
    }

    /// `Set-Cookie` that takes the session's cookie away.
    pub(crate) fn no_session_cookie(&self) -> HeaderValue {
        self.site.set_cookie(self.site.session_cookie(), "", Duration::ZERO)
    }

    /// The digest of the session cookie in a request, if there is a well-formed one.
    pub(crate) fn session_cookie_digest(&self, headers: &HeaderMap) -> Option<[u8; 32]> {
        site::cookie(headers, self.site.session_cookie())
            .filter(|value| is_secret(value))
            .map(token::digest)
    }

    /// Ends a session of a user; false when there is none.
    pub(crate) async fn end_session(&self, user: UserId, session: SessionId) -> Result<bool> {
        let mut tx = loom_db::begin(&self.pool).await?;
        let Some(digest) = store::delete(&mut tx, user, session).await? else { return Ok(false) };
        let ended: Vec<_> = Revoked::digest(&digest).into_iter().collect();
        tell(&mut *tx, &ended).await?;
        tx.commit().await?;
        self.forget(&ended).await;
        Ok(true)
    }

    /// Ends the sessions of a user, as when their rights change: they sign in anew. Within the
    /// transaction of that change; what is returned is to be forgotten after its commit.
    pub(crate) async fn end_sessions_of(
        &self,
        db: &mut PgConnection,
        user: UserId,
    ) -> Result<Vec<Revoked>> {
        let digests = store::delete_all(db, user).await?;
        let ended: Vec<_> = digests.iter().filter_map(|digest| Revoked::digest(digest)).collect();
        tell(&mut *db, &ended).await?;
        Ok(ended)
    }
}

/// Was the request authenticated by a browser's cookie (or as the developer's own)? What is shown in a
/// header counts before a cookie, and is a key or the token of a command-line client; the token of a
/// WebSocket may stand for either.
pub(crate) fn is_browser(principal: &Principal, headers: &HeaderMap) -> bool {
    let by_header = headers.contains_key(header::AUTHORIZATION)
        || headers.contains_key("x-api-key")
        || headers.contains_key(header::UPGRADE);
    matches!(principal.via, Via::Session(_) | Via::DevMode) && !by_header
}

/// The session that a request was authenticated with.
pub(crate) fn session_of(principal: &Principal) -> Option<SessionId> {
    match principal.via {
        Via::Session(id) => Some(id),
        Via::ApiKey(_) | Via::WeaverToken(_) | Via::DevMode => None,
    }
}
