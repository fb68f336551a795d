//! Signing in, by a provider or by mail, and setting up.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use loom_core::{Error, principal::RequestInfo};
use maud::{Markup, html};

use super::Page;
use crate::{Auth, sign_in::magic_link::Link};

/// The ways in.
pub(super) async fn sign_in(auth: &Auth, redirect: Option<&str>) -> Response {
    // The ways in are shown also when that cannot be known.
    let is_new = auth.wants_set_up().await.unwrap_or_default();
    let offered = auth.sign_in.offered();
    let mail = auth.magic_links_work();
    let query = redirect
        .and_then(|path| serde_urlencoded::to_string([("redirect", path)]).ok())
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let body = html! {
        @if is_new {
            p.note { "Nobody administers this server yet. It printed a link when it started, good for a day, that makes \
                whoever opens it the first admin; on its machine " code { "loom-server admin create <email>" }
                " does the same. " a href="/docs/sign-in" { "More" } }
        }
        section.card {
            h1 { "Sign in" }
            @for (id, name) in &offered {
                a.button.plain href={ "/auth/login/" (id) (query) } { "Continue with " (name) }
            }
            @if mail && !offered.is_empty() { p.or { "or" } }
            @if mail {
                form method="post" action="/auth/magic-link" {
                    @if let Some(path) = redirect { input type="hidden" name="redirect" value=(path); }
                    label for="email" { "E-mail address" }
                    input #email type="email" name="email" required autocomplete="email" maxlength="254" aria-describedby="how";
                    button type="submit" { "Send me a sign-in link" }
                }
                p #how.muted { "The mail has a link and a code. They work in this browser only, for ten minutes." }
            }
            @if !mail && offered.is_empty() {
                p.note { "No way to sign in is set up on this server yet. An operator sets one up with the \
                    settings " code { "LOOM_SERVER_GITHUB_…" } ", " code { "LOOM_SERVER_GOOGLE_…" } ", "
                    code { "LOOM_SERVER_OIDC_…" } " or " code { "LOOM_SERVER_SMTP_…" } "; API keys work without." }
                p { a href="/docs/sign-in" { "How to set it up" } }
            }
        }
        @if !auth.site.keeps_cookies() {
            p.note { "This server is reached over plain http, where browsers keep no session. Signing in needs https." }
        }
    };
    Page::new("Sign in", body).into_response()
}

fn code_form() -> Markup {
    html! {
        form method="post" action="/auth/magic-link/verify" {
            label for="code" { "Code from the mail" }
            input #code.code type="text" name="code" required autocomplete="one-time-code" autocapitalize="characters" spellcheck="false" maxlength="12" placeholder="XXXX-XXXX";
            button type="submit" { "Sign in with the code" }
        }
    }
}

pub(crate) fn magic_link_sent(_auth: &Auth, email: &str) -> Response {
    let body = html! {
        section.card {
            h1 { "Look at your mail" }
            p { "If " strong { (email) } " may sign in here, a mail is on its way. Open its link "
                strong { "in this browser" } ", or type its code here:" }
            (code_form())
            p.muted { "It can take a minute; look among the spam too. An address gets at most five mails an hour." }
        }
        p { a href=(super::SIGN_IN) { "Another address, or another way" } }
    };
    Page { status: StatusCode::ACCEPTED, ..Page::new("Look at your mail", body) }.into_response()
}

/// In the browser that asked: the button is what signs in.
pub(crate) fn magic_link_confirm(_auth: &Auth, email: &str, token: &str) -> Response {
    let body = html! {
        section.card {
            h1 { "Sign in as " (email) "?" }
            form method="post" action="/auth/magic-link/verify" {
                input type="hidden" name="token" value=(token);
                button type="submit" { "Sign in" }
            }
            p.muted { "You asked for this in this browser a moment ago." }
        }
    };
    Page::new("Sign in", body).into_response()
}

/// In any other browser: nothing on this page signs in.
pub(crate) fn magic_link_elsewhere(_auth: &Auth, link: &Link, code: &str) -> Response {
    let body = html! {
        section.card {
            h1 { "Type this code where you began" }
            p.shown-code { (code) }
            p { "The sign-in was begun in another browser, and goes on there:" }
            dl {
                dt { "Browser" } dd { (link.device()) }
                dt { "Address" } dd { (link.ip) }
                dt { "Time" } dd { (link.created_at.format("%Y-%m-%d %H:%M UTC").to_string()) }
            }
            p.note { "If that was not you, close this page and give the code to nobody." }
        }
        p.muted { "To sign in in this browser instead, " a href=(super::SIGN_IN) { "ask for a link here" } "." }
    };
    Page::new("Your code", body).into_response()
}

pub(crate) fn magic_link_wrong_code(_auth: &Auth, _info: &RequestInfo, error: Error) -> Response {
    let body = html! {
        section.card {
            h1 { "That code is not right" }
            p.error role="alert" { "Check it letter by letter. After five wrong codes the mail is void." }
            (code_form())
        }
        p { a href=(super::SIGN_IN) { "Ask for a new mail" } }
    };
    let mut response = Page { status: error.status(), ..Page::new("That code is not right", body) }
        .into_response();
    response.extensions_mut().insert(error);
    response
}

pub(super) fn set_up(token: &str, wrong: Option<&Error>) -> Response {
    let body = html! {
        section.card {
            h1 { "Set up this server" }
            p { "Nobody administers this server yet. You will: with this address you become its first system admin." }
            @if let Some(error) = wrong { p.error role="alert" { (super::sentence(error)) } }
            form method="post" action="/auth/setup" {
                input type="hidden" name="token" value=(token);
                label for="email" { "Your e-mail address" }
                input #email type="email" name="email" required autocomplete="email" maxlength="254";
                button type="submit" { "Become the admin and sign in" }
            }
            p.muted { "Type it with care: whoever reads mail at this address can sign in as you." }
        }
    };
    let status = wrong.map_or(StatusCode::OK, Error::status);
    Page { status, ..Page::new("Set up this server", body) }.into_response()
}

/// To the provider, after a form of ours; browsers do not let a form's answer lead to another site.
pub(super) fn onward(name: &str, url: &str) -> Response {
    let body = html! {
        section.card {
            h1 { "On to " (name) }
            p { "You connect your account there to this one." }
            p { a.button href=(url) rel="noreferrer" { "Continue to " (name) } }
        }
    };
    Page { onward: Some(url), ..Page::new("Connect", body) }.into_response()
}
