//! Settings of the log that can be looked at.

use loom_core::config::Env;
use reqwest::Url;

use crate::ring::DEFAULT_CAPACITY;

const PEER_URL: &str = "LOOM_SERVER_PEER_URL";

#[derive(Clone, Debug)]
pub struct Config {
    /// How many bytes of lines are kept.
    pub buffer_bytes: usize,
    /// Where other servers reach this one; without a slash at its end.
    pub peer_url: Option<String>,
}

impl Config {
    pub fn load(env: &mut Env) -> Self {
        let buffer_bytes =
            env.number("LOOM_SERVER_LOG_BUFFER_BYTES", DEFAULT_CAPACITY, 64 << 10, 1 << 30);
        let peer_url = env.optional::<String>(PEER_URL, "a URL");
        let is_sound = |text: &String| {
            text.parse::<Url>().is_ok_and(|url| {
                matches!(url.scheme(), "http" | "https")
                    && url.has_host()
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.query().is_none()
            })
        };
        if peer_url.as_ref().is_some_and(|url| !is_sound(url)) {
            env.problem(
                PEER_URL,
                "must be the http(s) URL under which the other servers reach this one, as http://10.0.0.7:8080",
            );
        }
        Self { buffer_bytes, peer_url: peer_url.map(|url| url.trim_end_matches('/').to_owned()) }
    }
}
