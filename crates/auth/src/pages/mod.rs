//! The pages that signing in needs: plain HTML, no script, nothing from elsewhere.

mod account;
mod device;
mod http;
mod sign_in;

use std::sync::LazyLock;

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use loom_core::{Error, principal::RequestInfo};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

pub(crate) use device::device_answered;
pub(crate) use http::{routes, sign_in_first};
pub(crate) use sign_in::{
    magic_link_confirm, magic_link_elsewhere, magic_link_sent, magic_link_wrong_code,
};

use crate::Auth;

pub(crate) const ACCOUNT: &str = "/account";
pub(crate) const SIGN_IN: &str = "/auth/sign-in";

const STYLE: &str = include_str!("style.css");

/// Nothing is loaded, run, framed or sent elsewhere; our one style is named by its hash.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// A page's title, what is on it, and how it differs from others.
pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    pub(crate) body: Markup,
    pub(crate) status: StatusCode,
    pub(crate) wide: bool,
    /// Where the browser goes on to by itself.
    pub(crate) onward: Option<&'a str>,
}

impl<'a> Page<'a> {
    pub(crate) fn new(title: &'a str, body: Markup) -> Self {
        Self { title, body, status: StatusCode::OK, wide: false, onward: None }
    }
}

impl IntoResponse for Page<'_> {
    fn into_response(self) -> Response {
        let markup = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="robots" content="noindex";
                    @if let Some(url) = self.onward {
                        meta http-equiv="refresh" content={ "0; url=" (url) };
                    }
                    title { (self.title) " · Loom" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    main class=[self.wide.then_some("wide")] {
                        p.brand { "Loom" }
                        (self.body)
                    }
                }
            }
        };
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
            (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        ];
        (self.status, headers, markup.into_string()).into_response()
    }
}

/// A page that says what went wrong and how to go on. The error rides along for the log.
pub(crate) fn error_page(auth: &Auth, info: &RequestInfo, error: Error) -> Response {
    let title = match error.code() {
        "sign_in_expired" | "setup_expired" => "This link is no longer good",
        "wrong_code" => "That code is not right",
        "other_browser" => "This was begun in another browser",
        "access_denied" => "The sign-in was called off",
        "not_invited" => "You have no account here yet",
        "email_not_verified" | "wrong_domain" => "This account may not sign in here",
        "account_disabled" => "This account is disabled",
        "sign_in_other_way" => "Sign in the way you did before",
        "provider_not_configured" | "mail_not_configured" => "This is not set up here",
        "rate_limited" => "Too often",
        "no_such_code" => "No device waits with this code",
        "upstream_error" => "The provider could not be asked",
        _ => match error.status().as_u16() {
            401 => "Sign in first",
            403 => "That is not allowed",
            404 => "There is no such thing here",
            409 => "That does not fit",
            500.. => "Something went wrong here",
            _ => "That did not work",
        },
    };
    let (link, words) = match error.code() {
        "no_such_code" => ("/device", "Type the code again"),
        "last_way_in" | "identity_taken" | "cross_site" => (ACCOUNT, "Back to your account"),
        _ => (SIGN_IN, "Go to the sign-in page"),
    };
    let body = html! {
        section.card {
            h1 { (title) }
            p role="alert" { (sentence(&error)) }
            @if let Some(secs) = error.retry_after_secs() {
                p { "Try again in " (wait_words(secs)) "." }
            }
            p { a.button.plain href=(link) { (words) } }
        }
        p.muted { "If it goes on, tell an admin this number: " code { (info.id) } }
    };
    let mut response = Page { status: error.status(), ..Page::new(title, body) }.into_response();
    if let Some(secs) = error.retry_after_secs() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    if error.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::SET_COOKIE, auth.no_session_cookie());
    }
    response.extensions_mut().insert(error);
    response
}

/// What an error says, for people: a whole sentence, code as code.
fn sentence(error: &Error) -> Markup {
    let mut text = match (error.code(), error.detail().strip_prefix("email: ")) {
        // How long to wait is said in words of its own.
        ("rate_limited", _) => "this was done too often".to_owned(),
        (_, Some(fault)) => format!("this {fault}"),
        (_, None) => error.detail().to_owned(),
    };
    if let Some(first) = text.get(..1).map(str::to_uppercase) {
        text.replace_range(..1, &first);
    }
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
        "."
    }
}

fn wait_words(secs: u64) -> String {
    match secs {
        0..=90 => format!("{secs} seconds"),
        _ => format!("{} minutes", secs.div_ceil(60)),
    }
}

/// A page for a browser, the problem document for a program.
pub(crate) fn error_for(
    auth: &Auth,
    headers: &HeaderMap,
    info: &RequestInfo,
    error: Error,
) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/html")) {
        error_page(auth, info, error)
    } else {
        error.into_response()
    }
}
