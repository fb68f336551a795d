//! Whoever finds a token where it should not be can end it.

use axum::{extract::State, http::StatusCode};
use loom_core::{
    Json, Result,
    error::Problem,
    port::{Act, Audit, Outcome},
    principal::RequestInfo,
};
use loom_notify::Mail;
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::LeakedToken,
    store::{self, Leaked},
};
use crate::{
    Auth,
    authenticate::{Revoked, TokenDigest, tell},
    limit::Budget,
    sessions,
    token::{self, TokenKind},
    weavers,
};

const REPORTS: Budget = Budget::per_minute(30);

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().routes(routes!(report_token))
}

/// Revoke a token that leaked
///
/// For whoever finds one, secret scanners among them (`loom_(pat|svc|wvr|cli)_[0-9A-Za-z]{36}`): it ends at
/// once, and its owner is told. The answer is the same whether there was such a token or not.
#[utoipa::path(post, path = "/auth/tokens/report", tag = "auth", security(()), request_body = LeakedToken,
    responses((status = 202, description = "If there was such a token, it is no longer good"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json")))]
async fn report_token(
    State(auth): State<Auth>,
    info: RequestInfo,
    Json(leaked): Json<LeakedToken>,
) -> Result<StatusCode> {
    auth.flood.take("token report", info.ip, REPORTS).await?;
    let token = leaked.token.trim();
    // A fake is told offline, as everywhere.
    if let Some(kind) = token::parse(token) {
        auth.end_leaked(kind, token::digest(token), &info).await?;
    }
    Ok(StatusCode::ACCEPTED)
}

impl Auth {
    async fn end_leaked(
        &self,
        kind: TokenKind,
        digest: TokenDigest,
        info: &RequestInfo,
    ) -> Result<()> {
        let now = self.clock.now();
        let mut tx = loom_db::begin(&self.pool).await?;
        let (org, target) = match kind {
            TokenKind::Personal | TokenKind::Service => {
                let Some(key) = store::revoke_leaked(&mut *tx, &digest, now).await? else {
                    return Ok(());
                };
                for to in &key.tell {
                    self.notify.mail(&mut tx, &mail(to, &key, info)).await?;
                }
                (key.org, key.id.to_string())
            }
            TokenKind::Weaver => {
                let ended = weavers::end_one(&mut *tx, &digest).await?;
                let Some((org, weaver)) = ended else { return Ok(()) };
                (org, weaver.to_string())
            }
            TokenKind::Cli => {
                let ended = sessions::store::delete_leaked(&mut tx, &digest).await?;
                let Some((session, org, email)) = ended else { return Ok(()) };
                self.notify.mail(&mut tx, &mail_of_session(&email, info)).await?;
                (org, session.to_string())
            }
        };
        let revoked = [Revoked::Credential(digest)];
        tell(&mut *tx, &revoked).await?;
        tx.commit().await?;
        self.forget(&revoked).await;
        self.notify.wake();
        let act = Act {
            action: "credential.report",
            target,
            outcome: Outcome::Success,
            details: json!({}),
        };
        self.audit.record(None, Some(org), Some(info), act).await
    }
}

fn mail_of_session(to: &str, info: &RequestInfo) -> Mail {
    let text = format!(
        "Somebody at {} reported that they found the token of a command-line sign-in of yours where it \
         should not be.\n\nThat sign-in was ended at once; sign in anew where you need it. Look at your \
         sessions for others that you do not know.\n",
        info.ip
    );
    reported(to, "A sign-in of yours was found and ended", text)
}

fn reported(to: &str, subject: &str, text: String) -> Mail {
    Mail {
        kind: "token_reported",
        to: to.to_owned(),
        subject: subject.to_owned(),
        text,
        html: None,
        expires_at: None,
    }
}

fn mail(to: &str, key: &Leaked, info: &RequestInfo) -> Mail {
    let Leaked { name, hint, .. } = key;
    let text = format!(
        "Somebody at {} reported that they found your Loom key \"{name}\" ({hint}) where it should not be.\n\n\
         It was revoked at once and is worth nothing any more. If something of yours used it, make a new key \
         for that; look in the audit log for what was done with the old one.\n",
        info.ip
    );
    reported(to, "A key of yours was found and revoked", text)
}
