//! The page that the link in an invitation leads to.

use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use loom_core::{
    Principal, Query, Result,
    authorize::{Action, authorize},
    principal::{Authentication, RequestInfo, Scope},
};
use maud::html;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;

use super::{http::TRIES, store::Open};
use crate::{
    Auth,
    pages::{ACCOUNT, Page, error_page, sign_in_first},
    sign_in::{body::FormOrJson, device::known},
};

pub(super) const PATH: &str = "/invitations/accept";

pub(crate) fn pages() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().route(PATH, get(show).post(join))
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
}

/// Looks and changes nothing, as scanners of mail open links too.
async fn show(
    State(auth): State<Auth>,
    info: RequestInfo,
    Extension(authentication): Extension<Authentication>,
    Query(Token { token }): Query<Token>,
) -> Response {
    let shown = async {
        let Some(principal) = known(authentication)? else {
            // Only what can be a token comes back in the address.
            let is_token = token.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let path = if is_token { format!("{PATH}?token={token}") } else { PATH.to_owned() };
            return Ok(sign_in_first(&path));
        };
        auth.flood.take("invitation tries", info.ip, TRIES).await?;
        let (_, open) = auth.invitation_for(&principal, &token).await?;
        Ok(ask(&open, &token, &principal))
    };
    shown.await.unwrap_or_else(|error| error_page(&auth, &info, error))
}

async fn join(
    State(auth): State<Auth>,
    principal: Result<Principal>,
    info: RequestInfo,
    body: Result<FormOrJson<Token>>,
) -> Response {
    let joined = async {
        let principal = principal?;
        authorize(&principal, Action::Use(Scope::AdminWrite))?;
        auth.flood.take("invitation tries", info.ip, TRIES).await?;
        let token = body?.value.token;
        let (_, open) = auth.invitation_for(&principal, &token).await?;
        auth.join_by_invitation(&principal, &info, &token).await?;
        Ok(welcome(&open))
    };
    joined.await.unwrap_or_else(|error| error_page(&auth, &info, error))
}

fn ask(open: &Open, token: &str, principal: &Principal) -> Response {
    let body = html! {
        section.card {
            h1 { "Join " (open.org_name) "?" }
            p { strong { (open.sender) } " invites you to the organisation " strong { (open.org_name) } ", as " (open.role_name()) "." }
            form method="post" action=(PATH) {
                input type="hidden" name="token" value=(token);
                button type="submit" { "Join" }
            }
        }
        p.muted { "Signed in as " (principal.name) }
    };
    Page::new("An invitation", body).into_response()
}

fn welcome(open: &Open) -> Response {
    let body = html! {
        section.card {
            h1 { "You are in " (open.org_name) }
            p { "What you do there names the organisation: " code { "x-loom-org: " (open.org_slug) } "." }
            p { a href=(ACCOUNT) { "Your account" } }
        }
    };
    Page::new("You are in", body).into_response()
}
