//! The key that a request shows: in a header, the query, the path, or the DSN of an envelope.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use http::{HeaderMap, header, request::Parts};

use crate::refusal::Refusal;

/// What a request says of its sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// As it came.
    pub(crate) key: Option<String>,
    /// Name and version of the SDK.
    pub(crate) client: Option<String>,
    pub(crate) timestamp: Option<DateTime<Utc>>,
}

/// The public part of a DSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dsn {
    pub(crate) key: String,
    pub(crate) project: i64,
}

/// All that headers and query show. The same key may be shown more than once.
///
/// # Errors
/// When two keys differ, or a header of Sentry's cannot be read.
pub(crate) fn shown(parts: &Parts, in_path: Option<String>) -> Result<Shown, Refusal> {
    let mut shown = Shown { key: in_path, ..Shown::default() };
    if let Some(value) = text(&parts.headers, "x-sentry-auth") {
        shown.fields(value)?;
    }
    if let Some(value) = text(&parts.headers, header::AUTHORIZATION.as_str()) {
        match value.split_once(' ') {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("sentry") => shown.fields(value)?,
            Some((scheme, pair)) if scheme.eq_ignore_ascii_case("basic") => {
                if let Some(user) = user(pair) {
                    shown.one_key(user)?;
                }
            }
            // Of a proxy on the way, which is not ours to judge.
            _ => {}
        }
    }
    for (name, value) in query(parts) {
        match &*name {
            "sentry_key" => shown.one_key(value.into_owned())?,
            "sentry_client" => shown.client = Some(value.into_owned()),
            "sentry_timestamp" => shown.timestamp = time(&value),
            _ => {}
        }
    }
    Ok(shown)
}

/// The pairs of the query.
pub(crate) fn query(parts: &Parts) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let query = parts.uri.query().unwrap_or_default();
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

fn decoded(text: &str) -> Cow<'_, str> {
    let text = if text.contains('+') { text.replace('+', " ").into() } else { Cow::Borrowed(text) };
    match text {
        Cow::Borrowed(text) => percent_encoding::percent_decode_str(text).decode_utf8_lossy(),
        Cow::Owned(text) => {
            percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned().into()
        }
    }
}

impl Shown {
    /// `Sentry sentry_key=…, sentry_client=…`, with or without the first word.
    fn fields(&mut self, value: &str) -> Result<(), Refusal> {
        let fields = match value.split_once(' ') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("sentry") => rest,
            _ => value,
        };
        let mut has_key = false;
        for field in fields.split(',') {
            let Some((name, value)) = field.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            match name.trim() {
                "sentry_key" => {
                    has_key = true;
                    self.one_key(value.to_owned())?;
                }
                "sentry_client" => self.client = Some(value.to_owned()),
                "sentry_timestamp" => self.timestamp = time(value),
                _ => {}
            }
        }
        if has_key {
            Ok(())
        } else {
            Err(Refusal::unauthenticated("the authentication header has no sentry_key"))
        }
    }

    fn one_key(&mut self, key: String) -> Result<(), Refusal> {
        match &self.key {
            Some(other) if !other.eq_ignore_ascii_case(&key) => {
                Err(Refusal::unauthenticated("two different keys are shown; send one"))
            }
            _ => {
                self.key = Some(key);
                Ok(())
            }
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
}

/// The user name of `Authorization: Basic`.
fn user(pair: &str) -> Option<String> {
    let pair = String::from_utf8(STANDARD.decode(pair.trim()).ok()?).ok()?;
    let user = pair.split_once(':').map_or(&*pair, |(user, _)| user);
    (!user.is_empty()).then(|| user.to_owned())
}

/// Seconds since 1970, or RFC 3339.
pub(crate) fn time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(secs) = text.parse::<f64>() {
        return from_secs(secs);
    }
    DateTime::parse_from_rfc3339(text).ok().map(Into::into)
}

/// A time that may be meant.
pub(crate) fn from_secs(secs: f64) -> Option<DateTime<Utc>> {
    #[expect(clippy::cast_possible_truncation, reason = "of a number that is in range")]
    let micros = (secs.is_finite() && secs.abs() < 1e11).then_some((secs * 1e6) as i64)?;
    DateTime::from_timestamp_micros(micros)
}

/// `scheme://KEY[:SECRET]@host[:port][/path]/PROJECT`.
pub(crate) fn dsn(text: &str) -> Option<Dsn> {
    let (scheme, rest) = text.trim().split_once("://")?;
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let (user, place) = rest.split_once('@')?;
    let key = user.split_once(':').map_or(user, |(key, _)| key);
    let place = place.split(['?', '#']).next()?.trim_end_matches('/');
    let (host, project) = place.rsplit_once('/')?;
    let project = project.parse().ok().filter(|number| *number > 0)?;
    (!key.is_empty() && !host.is_empty()).then(|| Dsn { key: key.to_owned(), project })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;

    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap().into_parts().0
    }

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn every_way_to_show_a_key_is_understood() {
        let basic = format!("Basic {}", STANDARD.encode(format!("{KEY}:")));
        let with = |before: &str| format!("{before}sentry_key={KEY}, sentry_version=7");
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("/", &[("x-sentry-auth", &with("Sentry "))]),
            ("/", &[("x-sentry-auth", &with("sentry "))]),
            ("/", &[("x-sentry-auth", &with(""))]),
            ("/", &[("x-sentry-auth", &with("Sentry sentry_version=7,"))]),
            ("/", &[("authorization", &with("Sentry "))]),
            ("/", &[("authorization", &basic)]),
            (&format!("/?sentry_version=7&sentry_key={KEY}"), &[]),
            // The same twice, as behind a proxy that adds its own.
            (&format!("/?sentry_key={KEY}"), &[("x-sentry-auth", &with("Sentry "))]),
            // Somebody else's credential beside it.
            (&format!("/?sentry_key={KEY}"), &[("authorization", "Bearer of-a-proxy")]),
        ];
        for (uri, headers) in cases {
            let shown = shown(&request(uri, headers), None).unwrap();
            assert_eq!(shown.key.as_deref(), Some(KEY), "{uri} {headers:?}");
        }
        let in_path = shown(&request("/", &[]), Some(KEY.to_owned())).unwrap();
        assert_eq!(in_path.key.as_deref(), Some(KEY));
        assert_eq!(shown(&request("/", &[]), None).unwrap(), Shown::default());
    }

    #[test]
    fn two_keys_and_a_header_without_one_are_refused() {
        let other = "Sentry sentry_key=ffffffffffffffffffffffffffffffff";
        let two = request(&format!("/?sentry_key={KEY}"), &[("x-sentry-auth", other)]);
        assert_eq!(shown(&two, None).unwrap_err().status, 401);
        let none = request("/", &[("x-sentry-auth", "Sentry sentry_version=7")]);
        assert_eq!(shown(&none, None).unwrap_err().status, 401);
    }

    #[test]
    fn the_sender_and_its_clock_are_read() {
        let value = format!(
            "Sentry sentry_key={KEY}, sentry_client=raven-php/1.0, sentry_timestamp=1700000000.5"
        );
        let shown = shown(&request("/", &[("x-sentry-auth", &value)]), None).unwrap();
        assert_eq!(shown.client.as_deref(), Some("raven-php/1.0"));
        assert_eq!(shown.timestamp.unwrap().timestamp_millis(), 1_700_000_000_500);
        assert_eq!(time("2023-11-14T22:13:20Z").unwrap().timestamp(), 1_700_000_000);
        for odd in ["", "yesterday", "NaN", "inf", "1e300"] {
            assert_eq!(time(odd), None, "{odd}");
        }
    }

    #[test]
    fn dsns_are_read() {
        let expected = Dsn { key: KEY.to_owned(), project: 42 };
        for text in [
            format!("https://{KEY}@loom.example.com/42"),
            format!("http://{KEY}@127.0.0.1:8080/42"),
            format!("https://{KEY}:secret@loom.example.com/a/path/42/"),
            format!(" https://{KEY}@[::1]:8080/42 "),
        ] {
            assert_eq!(dsn(&text).as_ref(), Some(&expected), "{text}");
        }
        for text in [
            "",
            "https://",
            "https://@h/1",
            "https://k@/1",
            "https://k@h",
            "https://k@h/x",
            "https://k@h/0",
            "https://h/1",
            "ftp://k@h/1",
            "https://k@h/-1",
        ] {
            assert_eq!(dsn(text), None, "{text}");
        }
    }
}
