//! Sessions as they are shown.

use chrono::{DateTime, Utc};
use loom_core::id::SessionId;
use serde::Serialize;

use super::SessionKind;

/// A sign-in of the asking user.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) kind: SessionKind,
    /// How it was signed in: `github`, `google`, `oidc`, `magic_link`, `set_up`, `device`.
    pub(crate) method: String,
    /// In plain words, as `Firefox on Linux`, or what the client calls itself.
    pub(crate) device: String,
    pub(crate) user_agent: Option<String>,
    /// Where it was last used from.
    pub(crate) ip: Option<String>,
    /// Is it the one of this request?
    pub(crate) current: bool,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) created_at: DateTime<Utc>,
    /// To five minutes.
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) last_used_at: DateTime<Utc>,
    /// When it ends if it is not used until then.
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) expires_at: DateTime<Utc>,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Sessions {
    pub(crate) sessions: Vec<Session>,
    pub(crate) next_cursor: Option<String>,
}

/// A token for one WebSocket.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct WsToken {
    /// For `?token=` of one WebSocket request.
    pub(crate) token: String,
    /// Seconds.
    pub(crate) expires_in: u32,
}

/// A browser and its system in plain words; what it says of itself is often a lie, and never more.
pub(crate) fn device(user_agent: &str) -> String {
    let has = |word: &str| user_agent.contains(word);
    let first = |words: &[(&str, &'static str)]| {
        words.iter().find(|(word, _)| has(word)).map(|(_, name)| *name)
    };
    let browser = first(&[
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chromium/", "Chromium"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ]);
    let system = first(&[
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    ]);
    match (browser, system) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(name), None) | (None, Some(name)) => name.to_owned(),
        (None, None) => {
            let name = user_agent.split_whitespace().next().unwrap_or("an unknown device");
            loom_core::text::cut(name, 60).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::device;

    #[test]
    fn browsers_are_named_as_people_know_them() {
        for (agent, name) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0",
                "Firefox on Linux",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36 Edg/130.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1 Version/18.0 Safari/604.1",
                "Safari on iPhone",
            ),
            ("curl/8.5.0", "curl/8.5.0"),
            ("", "an unknown device"),
        ] {
            assert_eq!(device(agent), name);
        }
    }
}
