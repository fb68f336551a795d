//! Google's Vertex AI, which serves Claude on Anthropic's wire and Gemini on its own. What a request's
//! address says elsewhere in its body, the model before all, stands here in the path.
//! <https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/use-claude>

use bytes::Bytes;
use http::StatusCode;
use loom_core::{Error, Result};
use reqwest::Url;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    dialect::{Dialect, Operation},
    translated::said,
};

pub(crate) const PROVIDER: &str = "vertex";
/// By which Vertex knows Anthropic's wire.
const ANTHROPIC_VERSION: &str = r#""anthropic_version":"vertex-2023-10-16""#;

/// Whose models they are, which decides the wire.
pub(crate) fn is_claude(model: &str) -> bool {
    model.starts_with("claude-")
}

/// The address of Vertex in a region, as Google's and Anthropic's SDKs write it.
pub(crate) fn base_url(region: &str) -> String {
    match region {
        "global" => "https://aiplatform.googleapis.com/v1".to_owned(),
        "us" | "eu" => format!("https://aiplatform.{region}.rep.googleapis.com/v1"),
        region => format!("https://{region}-aiplatform.googleapis.com/v1"),
    }
}

/// All models of a project in a region.
pub(crate) fn models_url(base: &Url, project: &str, region: &str) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        let place = ["projects", project, "locations", region, "publishers"];
        path.pop_if_empty().extend(place);
    }
    url
}

/// What of a body is needed for its address.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
}

/// Where a request goes, and its body as it is there. Of Claude's no other byte changes.
///
/// # Errors
/// 400 for a body or a model that no address can be made of.
pub(crate) fn addressed(
    publishers: &Url,
    operation: Operation,
    body: &Bytes,
) -> Result<(Url, Bytes)> {
    let bad = |what: &'static str| Error::malformed("invalid_request", what);
    let text = std::str::from_utf8(body).map_err(|_| bad("the body is not valid UTF-8"))?;
    let head: Head<'_> = serde_json::from_str(text).map_err(|_| bad("`model` is missing"))?;
    let model: String =
        serde_json::from_str(head.model.get()).map_err(|_| bad("`model` must be a string"))?;
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if model.is_empty() || model.starts_with('.') || !model.chars().all(known) {
        return Err(bad("`model` is no name of a model of Vertex"));
    }
    let streams = head.stream.is_some_and(|stream| stream.get() == "true");
    let rest = || bad("the body cannot be put into Vertex's form");
    let (publisher, name, body) = match operation {
        Operation::Messages => {
            let method = if streams { "streamRawPredict" } else { "rawPredict" };
            let body = versioned(text, head.model).ok_or_else(rest)?;
            ("anthropic", format!("{}:{method}", dated(&model)), body)
        }
        // The one of which the model stays in the body.
        Operation::CountTokens => {
            let body =
                format!("{{{ANTHROPIC_VERSION},{}", text.trim_start().get(1..).unwrap_or("}"));
            ("anthropic", "count-tokens:rawPredict".to_owned(), body.into())
        }
        Operation::GenerateContent => {
            let method = if streams { "streamGenerateContent" } else { "generateContent" };
            let body = behind(text, head.stream.unwrap_or(head.model)).ok_or_else(rest)?;
            ("google", format!("{model}:{method}"), body)
        }
        Operation::CountContents => {
            let body = behind(text, head.stream.unwrap_or(head.model)).ok_or_else(rest)?;
            ("google", format!("{model}:countTokens"), body)
        }
        Operation::Chat | Operation::Responses | Operation::Embeddings | Operation::CountInput => {
            return Err(bad("Vertex is not asked so"));
        }
    };
    let mut url = publishers.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.extend([publisher, "models", &name]);
    }
    // Gemini streams a JSON array unless it is told otherwise.
    if operation == Operation::GenerateContent && streams {
        url.set_query(Some("alt=sse"));
    }
    Ok((url, body))
}

/// Vertex has `claude-…@20250929` where Anthropic has `claude-…-20250929`.
fn dated(model: &str) -> String {
    match model.rsplit_once('-') {
        Some((name, date)) if date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{name}@{date}")
        }
        _ => model.to_owned(),
    }
}

/// Where in a text a part of it stands.
fn offset(text: &str, part: &RawValue) -> Option<usize> {
    (part.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)
}

/// The body with the version in the place of the model.
fn versioned(text: &str, model: &RawValue) -> Option<Bytes> {
    let at = offset(text, model)?;
    let after = text.get(at + model.get().len()..)?;
    let before = text.get(..at)?.trim_end().strip_suffix(':')?.trim_end().strip_suffix('"')?;
    let before = before.get(..before.rfind('"')?)?;
    Some([before, ANTHROPIC_VERSION, after].concat().into())
}

/// The object without what stands before the end of this value, which is how our own begin.
fn behind(text: &str, last: &RawValue) -> Option<Bytes> {
    let rest = text.get(offset(text, last)? + last.get().len()..)?;
    Some(["{", rest.strip_prefix(',')?].concat().into())
}

/// An error of Google's in the shape of the wire that was spoken; Anthropic's own pass as they are.
pub(crate) fn reworded(operation: Operation, status: StatusCode, told: Bytes) -> Bytes {
    #[derive(Deserialize)]
    struct Known<'a> {
        #[serde(rename = "type", borrow)]
        _kind: &'a RawValue,
    }
    if operation.dialect() != Dialect::Anthropic
        || (told.starts_with(b"{") && serde_json::from_slice::<Known<'_>>(&told).is_ok())
    {
        return told;
    }
    let (message, code) = said(&told);
    let message = message.unwrap_or_else(|| format!("Vertex answered with {}", status.as_u16()));
    let code = code.unwrap_or_default();
    Dialect::Anthropic.error_body(status, &code, &message, "").to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(operation: Operation, body: &str) -> (String, String) {
        let base = base_url("global").parse().unwrap();
        let publishers = models_url(&base, "p-1", "global");
        let body = Bytes::copy_from_slice(body.as_bytes());
        let (url, body) = addressed(&publishers, operation, &body).unwrap();
        let path = url.as_str().split_once("/publishers/").unwrap().1.to_owned();
        (path, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn claude_is_asked_with_the_model_in_the_path_and_no_other_byte_changed() {
        let (path, body) = at(
            Operation::Messages,
            r#" {"a": 1.50 , "model" :"claude-opus-5-20260101" , "stream":true,"z":"\u0041"} "#,
        );
        assert_eq!(path, "anthropic/models/claude-opus-5@20260101:streamRawPredict");
        assert_eq!(
            body,
            r#" {"a": 1.50 , "anthropic_version":"vertex-2023-10-16" , "stream":true,"z":"\u0041"} "#
        );
        let (path, _) = at(Operation::Messages, r#"{"model":"claude-opus-5"}"#);
        assert_eq!(path, "anthropic/models/claude-opus-5:rawPredict");
        let (_, body) =
            at(Operation::Messages, r#"{"m\u006fdel":"claude-opus-5","b":{"model":"x"}}"#);
        assert_eq!(body, r#"{"anthropic_version":"vertex-2023-10-16","b":{"model":"x"}}"#);
        let (path, body) = at(Operation::CountTokens, r#"{"model":"claude-opus-5"}"#);
        assert_eq!(path, "anthropic/models/count-tokens:rawPredict");
        assert_eq!(body, r#"{"anthropic_version":"vertex-2023-10-16","model":"claude-opus-5"}"#);
    }

    #[test]
    fn gemini_is_asked_with_model_and_manner_in_the_path() {
        let (path, body) =
            at(Operation::GenerateContent, r#"{"model":"gemini-3","stream":true,"contents":[]}"#);
        assert_eq!(path, "google/models/gemini-3:streamGenerateContent?alt=sse");
        assert_eq!(body, r#"{"contents":[]}"#);
        let (path, _) =
            at(Operation::CountContents, r#"{"model":"gemini-3","stream":false,"contents":[]}"#);
        assert_eq!(path, "google/models/gemini-3:countTokens");
    }

    #[test]
    fn no_model_leads_out_of_its_place() {
        let base = base_url("eu").parse().unwrap();
        let publishers = models_url(&base, "p", "eu");
        for model in ["../../x", "a/b", "", "a?b", "a#b", "..", "a%2fb", "a:predict"] {
            let body = serde_json::json!({"model": model}).to_string().into();
            let refused = addressed(&publishers, Operation::Messages, &body);
            assert!(refused.is_err(), "{model}: {refused:?}");
        }
    }

    #[test]
    fn each_region_has_its_host() {
        for (region, host) in [
            ("global", "aiplatform.googleapis.com"),
            ("eu", "aiplatform.eu.rep.googleapis.com"),
            ("europe-west1", "europe-west1-aiplatform.googleapis.com"),
        ] {
            let url: Url = base_url(region).parse().unwrap();
            assert_eq!(url.host_str(), Some(host));
        }
    }

    #[test]
    fn an_error_of_googles_has_the_shape_of_the_wire_that_was_spoken() {
        let told = Bytes::from_static(
            br#"[{"error":{"code":429,"message":"Quota exceeded","status":"RESOURCE_EXHAUSTED"}}]"#,
        );
        let status = StatusCode::TOO_MANY_REQUESTS;
        let body = reworded(Operation::Messages, status, told);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["type"], "rate_limit_error");
        assert_eq!(body["error"]["message"], "Quota exceeded");
        let own = Bytes::from_static(br#"{"type":"error","error":{"type":"overloaded_error"}}"#);
        assert_eq!(reworded(Operation::Messages, status, own.clone()), own);
    }
}
