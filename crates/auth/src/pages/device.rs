//! Letting a device in, worded for those who were sent here by somebody else.

use axum::response::{IntoResponse, Response};
use maud::html;

use super::Page;
use crate::{Auth, sign_in::device::Grant};

pub(super) fn ask(prefilled: &str, as_whom: &str) -> Response {
    let body = html! {
        section.card {
            h1 { "Sign a device in" }
            @if prefilled.is_empty() {
                p { "Type the code that your own terminal shows right now." }
            } @else {
                p { "Does your own terminal show " strong { "exactly this code" } " right now?" }
            }
            form method="post" action="/device" {
                label for="code" { "Code" }
                input #code.code type="text" name="user_code" required value=(prefilled) autocomplete="off" autocapitalize="characters" spellcheck="false" maxlength="12" placeholder="XXXX-XXXX";
                button type="submit" { "Continue" }
            }
            p.note { "Did somebody send you this link or code? Then stop here: they would be signed in as you." }
        }
        p.muted { "Signed in as " (as_whom) }
    };
    Page::new("Sign a device in", body).into_response()
}

pub(super) fn confirm(grant: &Grant, user_code: &str, as_whom: &str) -> Response {
    let button = |approve: &str, class: &str, words: &str| {
        html! {
            form method="post" action="/auth/device/complete" {
                input type="hidden" name="user_code" value=(user_code);
                input type="hidden" name="approve" value=(approve);
                button class=(class) type="submit" { (words) }
            }
        }
    };
    let body = html! {
        section.card {
            h1 { "Let this device in?" }
            p { "It will act as you, " strong { (as_whom) } ", with all your rights, until you end it on your account page." }
            dl {
                dt { "Calls itself" } dd { (grant.client) }
                dt { "Asks with" } dd { (grant.device()) }
                dt { "From address" } dd { (grant.ip) }
                dt { "Began at" } dd { (grant.created_at.format("%Y-%m-%d %H:%M:%S UTC").to_string()) }
            }
            p.note { "Only if you started this yourself, on a device in front of you, just now. "
                "Nobody of Loom ever asks you to enter a code. The name is the device's own word for itself and proves nothing." }
            div.pair {
                (button("false", "plain", "Refuse"))
                (button("true", "", "Let it in"))
            }
        }
    };
    Page::new("Let this device in?", body).into_response()
}

pub(crate) fn device_answered(_auth: &Auth, grant: &Grant, approved: bool) -> Response {
    let title = if approved { "The device is signed in" } else { "The device was refused" };
    let body = html! {
        section.card {
            h1 { (title) }
            @if approved {
                p { strong { (grant.client) } " goes on by itself in a few seconds. You can close this page." }
            } @else {
                p { "Nothing was given to " strong { (grant.client) } ". If you did not start it, somebody tried to get in as you: tell your admins." }
            }
            p { a href=(super::ACCOUNT) { "Your sessions" } }
        }
    };
    Page::new(title, body).into_response()
}
