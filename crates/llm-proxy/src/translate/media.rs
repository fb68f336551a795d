//! Images and documents: data URLs, and texts in base64.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    object::Faults,
    request::{Media, Source},
};

/// A URL, or what is in a `data:` one.
pub(crate) fn from_url<'a>(url: Cow<'a, str>, at: &str, faults: &mut Faults) -> Source<'a> {
    let Some(rest) = url.strip_prefix("data:") else {
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            faults.add(at, "must be an http(s) URL, or a data URL in base64");
        }
        return Source::Url(url);
    };
    let Some((head, data)) = rest.split_once(',') else {
        faults.add(at, "is not a data URL");
        return Source::Url(url);
    };
    let Some(media_type) = head.strip_suffix(";base64") else {
        faults.add(at, "must be a data URL in base64");
        return Source::Url(url);
    };
    // `image/png;charset=x;base64`
    let media_type = match media_type.split(';').next().unwrap_or_default().to_ascii_lowercase() {
        // A name that many use and Anthropic does not know.
        jpg if jpg == "image/jpg" => "image/jpeg".to_owned(),
        other => other,
    };
    let data = match &url {
        Cow::Borrowed(url) => Cow::Borrowed(url.get(url.len() - data.len()..).unwrap_or_default()),
        Cow::Owned(_) => Cow::Owned(data.to_owned()),
    };
    Source::Base64 { media_type: media_type.into(), data }
}

/// What `from_url` reads.
pub(crate) fn to_url<'s>(source: &'s Source<'_>) -> Cow<'s, str> {
    match source {
        Source::Url(url) => Cow::Borrowed(url),
        Source::Base64 { media_type, data } => format!("data:{media_type};base64,{data}").into(),
        Source::Text(text) => {
            format!("data:text/plain;base64,{}", BASE64_STANDARD.encode(text.as_bytes())).into()
        }
    }
}

/// The text of a document that is one.
pub(crate) fn text_of<'s>(media: &'s Media<'_>, faults: &mut Faults) -> Option<Cow<'s, str>> {
    match &media.source {
        Source::Text(text) => Some(Cow::Borrowed(text)),
        Source::Base64 { media_type, data } if media_type.starts_with("text/") => {
            let bytes = BASE64_STANDARD.decode(data.as_bytes()).ok();
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            Some(Cow::Owned(text.unwrap_or_else(|| {
                faults.add(format!("{}.source.data", media.at), "is not UTF-8 text in base64");
                String::new()
            })))
        }
        Source::Base64 { .. } | Source::Url(_) => None,
    }
}

/// A document's title as the name of a file, by whose ending OpenAI knows what it is.
pub(crate) fn filename<'s>(media: &'s Media<'_>) -> Cow<'s, str> {
    let title = media.title.as_deref().filter(|title| !title.is_empty()).unwrap_or("document");
    let is_pdf = matches!(&media.source,
        Source::Base64 { media_type, .. } if media_type == "application/pdf");
    if is_pdf && !title.to_ascii_lowercase().ends_with(".pdf") {
        return format!("{title}.pdf").into();
    }
    title.into()
}

/// A document that is a text, with its title and what is said of it before it.
pub(crate) fn labelled<'s>(media: &'s Media<'_>, text: Cow<'s, str>) -> Cow<'s, str> {
    let labels: Vec<&str> =
        [media.title.as_deref(), media.context.as_deref()].into_iter().flatten().collect();
    if labels.is_empty() { text } else { format!("{}\n\n{text}", labels.join("\n")).into() }
}
