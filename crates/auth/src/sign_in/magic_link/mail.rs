//! The mail with the link and the code.

use chrono::{DateTime, Utc};
use loom_notify::Mail;
use maud::html;

use super::Link;
use crate::sign_in::code;

pub(crate) fn of(
    base_url: &str,
    link: &Link,
    token: &str,
    code: &str,
    expires_at: DateTime<Utc>,
) -> Mail {
    let url = format!("{base_url}/auth/magic-link/verify?token={token}");
    let (code, device, ip) = (code::shown(code), link.device(), &link.ip);
    let asked = link.created_at.format("%H:%M UTC");
    let text = format!(
        "Sign in to Loom at {base_url}\n\n\
         In the browser where you asked for it ({device}, from {ip}, at {asked}), open this link and press the button:\n\n\
         {url}\n\n\
         Or type this code there:\n\n    {code}\n\n\
         Both work once, for ten minutes, and only in that browser. Nobody of Loom ever asks for the code.\n\
         If you did not ask to sign in, do nothing: without this mail nobody gets in.\n"
    );
    let html = html! {
        (maud::DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "Sign in to Loom" } }
            body style="font-family:system-ui,sans-serif;line-height:1.5;max-width:34rem;margin:0 auto;padding:1.5rem" {
                h1 style="font-size:1.25rem" { "Sign in to Loom" }
                p {
                    "In the browser where you asked for it (" (device) ", from " (ip) ", at " (asked.to_string())
                    "), open this link and press the button there:"
                }
                p { a href=(url) style="display:inline-block;padding:.6rem 1rem;background:#1d4ed8;color:#fff;border-radius:.4rem;text-decoration:none" { "Open the sign-in page" } }
                p { "Or type this code there:" }
                p style="font-size:1.6rem;font-family:monospace;letter-spacing:.1em" { (code) }
                p style="color:#555;font-size:.9rem" {
                    "Both work once, for ten minutes, and only in that browser. Nobody of Loom ever asks for the code. \
                     If you did not ask to sign in at " (base_url) ", do nothing: without this mail nobody gets in."
                }
            }
        }
    };
    Mail {
        kind: "magic_link",
        to: link.email.clone(),
        subject: "Sign in to Loom".to_owned(),
        text,
        html: Some(html.into_string()),
        expires_at: Some(expires_at),
    }
}
