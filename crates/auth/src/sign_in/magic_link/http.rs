//! The routes of magic links: JSON for programs, forms and pages for people.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use loom_core::{Error, Json, Query, Result, error::Problem, principal::RequestInfo};
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Browser;
use crate::{
    Auth, pages,
    sessions::site::cookie,
    sign_in::{
        body::{self, FormOrJson},
        code,
        enter::SignedIn,
    },
};

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .routes(routes!(ask_for_magic_link))
        .routes(routes!(show_magic_link, use_magic_link))
}

#[derive(Deserialize, utoipa::ToSchema)]
struct MagicLinkRequest {
    email: String,
    /// A path of this server, to go on to afterwards.
    #[serde(default)]
    redirect: Option<String>,
}

/// What is said whoever asks.
#[derive(Serialize, utoipa::ToSchema)]
struct MagicLinkAsked {
    message: &'static str,
    /// Seconds.
    expires_in: u64,
}

const ASKED: &str = "if this address may sign in here, a mail is on its way; \
                     open its link in this browser, or type its code here";

/// Ask for a mail to sign in with
///
/// Always the same answer, for known and unknown addresses. Sets a cookie that binds the attempt to
/// this browser. Also takes a form, and answers it with a page.
#[utoipa::path(post, path = "/auth/magic-link", tag = "auth", security(()), request_body = MagicLinkRequest,
    responses((status = 202, body = MagicLinkAsked),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
        (status = 501, description = "`mail_not_configured`", body = Problem, content_type = "application/problem+json")))]
async fn ask_for_magic_link(
    State(auth): State<Auth>,
    info: RequestInfo,
    headers: HeaderMap,
    body: Result<FormOrJson<MagicLinkRequest>>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(error) => return pages::error_for(&auth, &headers, &info, error),
    };
    let asked = async {
        auth.only_own_pages(&headers, body.is_form)?;
        if !auth.magic_links_work() {
            return Err(Error::new(
                StatusCode::NOT_IMPLEMENTED,
                "mail_not_configured",
                "this server cannot send mail; an operator sets LOOM_SERVER_SMTP_HOST and LOOM_SERVER_SMTP_FROM_ADDRESS",
            ));
        }
        let email = body::email(&body.value.email)?;
        let browser = Browser::of_or_new(&auth.site, &headers);
        let redirect = body.value.redirect.as_deref();
        auth.ask_for_link(&email, redirect, &browser, &headers, &info).await?;
        Ok(browser.cookie(&auth.site))
    };
    match asked.await {
        Ok(cookie) => {
            let mut response = if body.is_form {
                pages::magic_link_sent(&auth, body.value.email.trim())
            } else {
                let asked = MagicLinkAsked { message: ASKED, expires_in: super::LIFE.as_secs() };
                (StatusCode::ACCEPTED, Json(asked)).into_response()
            };
            response.headers_mut().append(header::SET_COOKIE, cookie);
            response
        }
        Err(error) => answer_error(&auth, &info, body.is_form, error),
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct LinkToken {
    #[serde(default)]
    token: Option<String>,
}

/// The page behind a mail's link
///
/// Never signs in. In the browser that asked it has a button that does; in any other it shows the code
/// to type there.
#[utoipa::path(get, path = "/auth/magic-link/verify", tag = "auth", security(()), params(LinkToken),
    responses((status = 200, description = "A page"), (status = 400, description = "A page: the link is used, expired or void")))]
async fn show_magic_link(
    State(auth): State<Auth>,
    info: RequestInfo,
    headers: HeaderMap,
    Query(query): Query<LinkToken>,
) -> Response {
    let token = query.token.unwrap_or_default();
    match auth.look_at_link(&token).await {
        Ok(link) if link.is_of(Browser::of(&auth.site, &headers).as_ref()) => {
            pages::magic_link_confirm(&auth, &link.email, &token)
        }
        Ok(link) => {
            let code = code::shown(&code::of_secret(&token));
            pages::magic_link_elsewhere(&auth, &link, &code)
        }
        Err(error) => pages::error_page(&auth, &info, error),
    }
}

/// Either of the two.
#[derive(Deserialize, utoipa::ToSchema)]
struct MagicLinkProof {
    /// Of the link.
    #[serde(default)]
    token: Option<String>,
    /// As it stands in the mail; dashes, spaces and small letters do not matter.
    #[serde(default)]
    code: Option<String>,
}

/// Sign in by the link or the code of a mail
///
/// Only in the browser that asked, which its cookie tells. Also takes a form, and answers it with a
/// redirect.
#[utoipa::path(post, path = "/auth/magic-link/verify", tag = "auth", security(()), request_body = MagicLinkProof,
    responses((status = 200, description = "Signed in: the session's cookie", body = SignedIn),
        (status = 303, description = "As for a form"),
        (status = 400, description = "`sign_in_expired`, `wrong_code`, `other_browser`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`not_invited`, `account_disabled`, `cross_site`", body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json")))]
async fn use_magic_link(
    State(auth): State<Auth>,
    info: RequestInfo,
    headers: HeaderMap,
    body: Result<FormOrJson<MagicLinkProof>>,
) -> Response {
    let FormOrJson { value, is_form } = match body {
        Ok(body) => body,
        Err(error) => return pages::error_for(&auth, &headers, &info, error),
    };
    let entered = async {
        auth.only_own_pages(&headers, is_form)?;
        match (&value.token, &value.code) {
            (Some(token), None) => auth.enter_by_link(token, is_form, &headers, &info).await,
            (None, Some(code)) => auth.enter_by_code(code, is_form, &headers, &info).await,
            _ => Err(Error::invalid("", "give either `token` or `code`")),
        }
    };
    match entered.await {
        Ok(response) => response,
        Err(error) => {
            auth.note_failed_sign_in("magic_link", &error, &info);
            if is_form && error.code() == "wrong_code" {
                return pages::magic_link_wrong_code(&auth, &info, error);
            }
            answer_error(&auth, &info, is_form, error)
        }
    }
}

fn answer_error(auth: &Auth, info: &RequestInfo, is_form: bool, error: Error) -> Response {
    if is_form { pages::error_page(auth, info, error) } else { error.into_response() }
}

impl Auth {
    /// Whoever says where they come from must come from our own pages, and a form that brings a cookie
    /// of ours must say it. A program that sends JSON is no browser led astray: for that a page of
    /// another origin needs our leave, which it has not.
    pub(crate) fn only_own_pages(&self, headers: &HeaderMap, is_form: bool) -> Result<()> {
        let says_where =
            headers.contains_key("sec-fetch-site") || headers.contains_key(header::ORIGIN);
        let brings_cookie = [self.site.session_cookie(), self.site.browser_cookie()]
            .iter()
            .any(|name| cookie(headers, name).is_some());
        if (says_where || (is_form && brings_cookie)) && !self.site.is_own_request(headers) {
            return Err(Error::new(
                StatusCode::FORBIDDEN,
                "cross_site",
                "this form was not sent from a page of this server; open the page here and try again",
            ));
        }
        Ok(())
    }
}
