//! A shared thread as a page: text as text, no script, nothing from elsewhere.

use axum::response::{Html, IntoResponse, Response};
use http::{HeaderValue, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use crate::{Message, share::SharedThread};

const STYLE: &str = "
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 50rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
header p, h2, footer { color: GrayText; font-size: .875rem; margin: 0; }
article { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); padding: .75rem 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; margin: .25rem 0; }
details pre, article.tool pre { font: .8125rem/1.45 ui-monospace, monospace; }
summary { cursor: pointer; color: GrayText; }
";

pub(crate) fn page(thread: &SharedThread) -> Response {
    let title = thread.title.as_deref().unwrap_or("A conversation");
    let body = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex, nofollow";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p {
                        (thread.created_at.format("%Y-%m-%d %H:%M UTC").to_string())
                        @if let Some(model) = &thread.model { " · " (model) }
                        " · " (thread.messages.len()) " messages"
                    }
                }
                main { @for message in &thread.messages { (of_message(message)) } }
                @if thread.is_frozen {
                    footer { "The conversation went on after it was shared." }
                }
            }
        }
    };
    let mut response = Html(body.into_string()).into_response();
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

fn of_message(message: &Message) -> Markup {
    let role = message.role.as_str();
    let long = message.role == crate::Role::Tool;
    html! {
        article class=(role) id={ "m" (message.seq) } {
            h2 {
                (role)
                @if let Some(name) = &message.tool_name { " · " (name) }
            }
            @for part in crate::text::parts(message.content.get()) {
                @match part {
                    crate::text::Part::Text(text) => {
                        @if long && text.len() > 400 {
                            details { summary { "Output" } pre { (text) } }
                        } @else {
                            pre { (text) }
                        }
                    }
                    crate::text::Part::Other(kind, json) => {
                        details { summary { (kind) } pre { (json) } }
                    }
                }
            }
            @if let Some(calls) = &message.tool_calls {
                details { summary { "Tool calls" } pre { (pretty(calls.get())) } }
            }
        }
    }
}

/// JSON for people.
pub(crate) fn pretty(json: &str) -> String {
    let value = serde_json::from_str::<Value>(json).ok();
    value
        .and_then(|value| serde_json::to_string_pretty(&value).ok())
        .unwrap_or_else(|| json.to_owned())
}
