//! The account: what is signed in, and the ways in.

use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::Page;
use crate::{Auth, account::Identities, sessions::model::Session};

pub(super) struct Account<'a> {
    pub(super) email: &'a str,
    pub(super) sessions: &'a [Session],
    pub(super) more: bool,
    pub(super) ways: &'a Identities,
}

fn when(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(at.to_rfc3339()) { (at.format("%Y-%m-%d %H:%M UTC").to_string()) } }
}

fn way(method: &str) -> &str {
    match method {
        "github" => "GitHub",
        "google" => "Google",
        "oidc" => "single sign-on",
        "magic_link" => "e-mail",
        "set_up" => "the set-up link",
        "device" => "a device code",
        other => other,
    }
}

pub(super) fn account(auth: &Auth, account: &Account<'_>) -> Response {
    let offered = auth.sign_in.offered();
    let body = html! {
        div.top {
            h1 { "Your account" }
            form method="post" action="/account/sign-out" { button.plain.small type="submit" { "Sign out" } }
        }
        p.muted { (account.email) }
        section.card aria-labelledby="sessions" {
            h2 #sessions { "Where you are signed in" }
            ul.rows {
                @for session in account.sessions {
                    li {
                        div.what {
                            strong { (session.device) }
                            @if session.current { span.tag { "this one" } }
                            br;
                            span.muted {
                                @if let Some(ip) = &session.ip { (ip) " · " }
                                "by " (way(&session.method)) " · since " (when(session.created_at))
                                " · last used " (when(session.last_used_at))
                            }
                        }
                        @if !session.current {
                            form method="post" action={ "/account/sessions/" (session.id) "/end" } {
                                button.danger.small type="submit" aria-label={ "End the session of " (session.device) } { "End" }
                            }
                        }
                    }
                }
            }
            @if account.more { p.muted { "There are more; these are the newest." } }
        }
        section.card aria-labelledby="ways" {
            h2 #ways { "Ways to sign in" }
            ul.rows {
                @if auth.magic_links_work() {
                    li {
                        div.what {
                            strong { "E-mail" }
                            br;
                            span.muted {
                                "a link to " (account.email)
                                @if !account.ways.magic_link { " · not proven yet: sign in with it once" }
                            }
                        }
                    }
                }
                @for identity in &account.ways.identities {
                    li {
                        div.what {
                            strong { (way(&identity.provider)) }
                            br;
                            span.muted {
                                @if let Some(login) = &identity.login { (login) " · " }
                                "last used " (when(identity.last_used_at))
                            }
                        }
                        form method="post" action={ "/account/identities/" (identity.id) "/disconnect" } {
                            button.danger.small type="submit" aria-label={ "Disconnect " (way(&identity.provider)) } { "Disconnect" }
                        }
                    }
                }
                @for (id, name) in &offered {
                    @if !account.ways.identities.iter().any(|known| known.provider == *id) {
                        li {
                            div.what { strong { (name) } br; span.muted { "not connected" } }
                            form method="post" action={ "/account/connect/" (id) } {
                                button.plain.small type="submit" aria-label={ "Connect " (name) } { "Connect" }
                            }
                        }
                    }
                }
            }
            @if !auth.magic_links_work() && account.ways.identities.is_empty() {
                p.note { "When this session ends there is no way back in but an API key. Connect one of the above." }
            }
        }
    };
    Page { wide: true, ..Page::new("Your account", body) }.into_response()
}
