//! Threads as files: Markdown for people, JSON and JSON lines for programs. What was exported in any of
//! them can be imported again, and is the same then.

mod lines;
mod markdown;

use loom_core::{Error, Result, extract::has_nul_escape};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Thread, draft::ThreadDraft};

/// The most threads of one import.
pub(crate) const MAX_THREADS: usize = 100;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ThreadFormat)]
pub(crate) enum Format {
    Md,
    #[default]
    Json,
    Jsonl,
}

impl Format {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Md => "text/markdown; charset=utf-8",
            Self::Json => "application/json",
            Self::Jsonl => "application/x-ndjson",
        }
    }

    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Md => "md",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
        }
    }

    pub(crate) fn of_content_type(content_type: &str) -> Option<Self> {
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "text/markdown" | "text/x-markdown" => Some(Self::Md),
            "application/json" => Some(Self::Json),
            "application/x-ndjson"
            | "application/jsonl"
            | "application/x-jsonlines"
            | "application/ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }

    pub(crate) fn write(self, thread: &Thread) -> Result<String> {
        match self {
            Self::Md => markdown::write(thread),
            Self::Json => serde_json::to_string_pretty(thread),
            Self::Jsonl => lines::write(thread),
        }
        .map_err(Error::internal)
    }

    /// # Errors
    /// 400 for what is not of this form, 422 for too many threads or none.
    pub(crate) fn read(self, text: &str) -> Result<Vec<ThreadDraft>> {
        let json = match self {
            // Of Markdown, only the comments are JSON.
            Self::Md => text.split("\n").filter(|line| line.starts_with("<!-- loom:")).collect(),
            Self::Json | Self::Jsonl => std::borrow::Cow::Borrowed(text),
        };
        if text.contains('\0') || has_nul_escape(json.as_bytes()) {
            let message = "the text holds a NUL character (\\u0000), which cannot be stored";
            return Err(Error::invalid("", message));
        }
        let drafts = match self {
            Self::Md => vec![markdown::read(text)?],
            Self::Json => whole(text)?,
            Self::Jsonl => lines::read(text)?,
        };
        match drafts.len() {
            1..=MAX_THREADS => Ok(drafts),
            count => Err(Error::invalid(
                "threads",
                format!("an import has 1 to {MAX_THREADS} threads, this has {count}"),
            )),
        }
    }
}

/// One document, or several under `threads`.
fn whole(text: &str) -> Result<Vec<ThreadDraft>> {
    #[derive(Deserialize)]
    struct Several {
        threads: Vec<ThreadDraft>,
    }
    let one = match serde_json::from_str::<ThreadDraft>(text) {
        Ok(draft) => return Ok(vec![draft]),
        Err(error) => error,
    };
    match serde_json::from_str::<Several>(text) {
        Ok(several) => Ok(several.threads),
        Err(error) if text.contains("\"threads\"") => Err(malformed("the body", &error)),
        Err(_) => Err(malformed("the body", &one)),
    }
}

fn malformed(what: &str, error: &serde_json::Error) -> Error {
    Error::malformed("invalid_request", format!("{what} is not an exported thread: {error}"))
}
