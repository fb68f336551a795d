//! Thinking: how much of it, in each provider's terms, and how a provider's seal on it is carried over
//! a wire that has no place for it.

use std::borrow::Cow;

use serde::Serialize;

use super::{
    object::Faults,
    request::{DefaultMax, Effort, Request, Seal, Thinking},
};

const LEAST_BUDGET: u32 = 1024;

/// What Anthropic's wire has.
/// <https://platform.claude.com/docs/en/build-with-claude/extended-thinking>
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Think {
    Enabled { budget_tokens: u32 },
    Adaptive,
    Disabled,
}

/// In Anthropic's words.
pub(crate) fn effort_name(effort: Effort) -> &'static str {
    match effort {
        Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High => "high",
        Effort::Xhigh => "xhigh",
        Effort::Max => "max",
    }
}

/// Claude models up to 4.5 take a budget; those after them an effort.
fn takes_effort(model: &str) -> bool {
    let Some(name) = model.strip_prefix("claude-") else { return false };
    let before = ["-4-0", "-4-1", "-4-5", "-4-2025", "-4@2025"];
    !name.starts_with(['2', '3'])
        && !name.starts_with("instant")
        && !name.starts_with("4-")
        && !before.iter().any(|version| name.contains(version))
}

/// The most that a model may write when the client set no limit. Within what the models of a
/// generation can do.
fn default_max(request: &Request<'_>) -> u32 {
    match request.names.default_max_tokens {
        DefaultMax::Fixed(limit) => limit,
        DefaultMax::OfModel => {
            let name = request.model.as_ref();
            if name.starts_with("claude-3-5") {
                8192
            } else if name.starts_with("claude-3") && !name.starts_with("claude-3-7") {
                4096
            } else {
                32_000
            }
        }
    }
}

/// What is for thinking, the effort, and the limit of all output, which on Anthropic's wire includes
/// the thinking.
pub(crate) fn budget(
    faults: &mut Faults,
    request: &Request<'_>,
) -> (Option<Think>, Option<&'static str>, u32) {
    let given = request.max_tokens;
    let default = default_max(request);
    let plain = given.unwrap_or(default);
    match request.thinking {
        None => (None, None, plain),
        Some(Thinking::Disabled) => (Some(Think::Disabled), None, plain),
        Some(Thinking::Adaptive(effort)) => (Some(Think::Adaptive), effort.map(effort_name), plain),
        Some(Thinking::Effort(effort)) if takes_effort(&request.model) => {
            (Some(Think::Adaptive), Some(effort_name(effort)), plain)
        }
        Some(Thinking::Budget(budget)) => {
            let limit = given.unwrap_or_else(|| default.saturating_add(budget));
            if budget < LEAST_BUDGET || budget >= limit {
                faults.add(
                    request.names.budget,
                    format!(
                        "must be at least {LEAST_BUDGET} and less than `{}`",
                        request.names.max_tokens
                    ),
                );
            }
            (Some(Think::Enabled { budget_tokens: budget }), None, limit)
        }
        Some(Thinking::Effort(effort)) => {
            let wanted = match effort {
                Effort::Minimal => LEAST_BUDGET,
                Effort::Low => 4096,
                Effort::Medium => 8192,
                Effort::High => 16_384,
                Effort::Xhigh | Effort::Max => 24_576,
            };
            let limit = given.unwrap_or_else(|| match request.names.default_max_tokens {
                DefaultMax::Fixed(limit) => limit + wanted,
                DefaultMax::OfModel => default,
            });
            let budget = wanted.min(limit.saturating_sub(1));
            if budget < LEAST_BUDGET {
                faults.add(
                    request.names.max_tokens,
                    format!("must be more than {LEAST_BUDGET}: towards this provider it includes the thinking"),
                );
            }
            (Some(Think::Enabled { budget_tokens: budget }), None, limit)
        }
    }
}

/// In OpenAI's words. `disabled` is the model's own default: most models refuse to be told.
pub(crate) fn effort(thinking: Thinking) -> Option<Effort> {
    match thinking {
        Thinking::Disabled => None,
        Thinking::Adaptive(Some(effort)) | Thinking::Effort(effort) => Some(effort),
        Thinking::Budget(0..=4096) => Some(Effort::Low),
        Thinking::Adaptive(None) | Thinking::Budget(4097..=12_288) => Some(Effort::Medium),
        Thinking::Budget(_) => Some(Effort::High),
    }
}

const OPENAI: &str = "openai.";
const GOOGLE: &str = "google.";
const SIGNATURE: &str = "anthropic.signature.";
const REDACTED: &str = "anthropic.redacted.";

/// A seal in the place where Anthropic's wire has its signature.
pub(crate) fn to_signature<'s>(seal: &'s Seal<'_>) -> Option<Cow<'s, str>> {
    match seal {
        Seal::Signature(signature) => Some(Cow::Borrowed(signature)),
        Seal::Encrypted { id, content } => Some(format!("{OPENAI}{id}.{content}").into()),
        Seal::Google { call, signature } => Some(google(call.as_deref(), signature).into()),
        Seal::Redacted(_) => None,
    }
}

pub(crate) fn from_signature(signature: Cow<'_, str>) -> Option<Seal<'_>> {
    if signature.is_empty() {
        return None;
    }
    if let Some((id, content)) = signature.strip_prefix(OPENAI).and_then(|s| s.split_once('.')) {
        return Some(Seal::Encrypted {
            id: id.to_owned().into(),
            content: content.to_owned().into(),
        });
    }
    Some(from_google(&signature).unwrap_or(Seal::Signature(signature)))
}

fn google(call: Option<&str>, signature: &str) -> String {
    format!("{GOOGLE}{}.{signature}", call.unwrap_or_default())
}

fn from_google(text: &str) -> Option<Seal<'static>> {
    let (call, signature) = text.strip_prefix(GOOGLE)?.split_once('.')?;
    let call = (!call.is_empty()).then(|| call.to_owned().into());
    Some(Seal::Google { call, signature: signature.to_owned().into() })
}

/// A seal in the place where OpenAI's wire has its encrypted content.
pub(crate) fn to_encrypted<'s>(seal: &'s Seal<'_>) -> Cow<'s, str> {
    match seal {
        Seal::Encrypted { content, .. } => Cow::Borrowed(content),
        Seal::Signature(signature) => format!("{SIGNATURE}{signature}").into(),
        Seal::Redacted(data) => format!("{REDACTED}{data}").into(),
        Seal::Google { call, signature } => google(call.as_deref(), signature).into(),
    }
}

pub(crate) fn from_encrypted<'a>(id: Cow<'a, str>, content: Cow<'a, str>) -> Seal<'a> {
    if let Some(signature) = content.strip_prefix(SIGNATURE) {
        return Seal::Signature(signature.to_owned().into());
    }
    if let Some(data) = content.strip_prefix(REDACTED) {
        return Seal::Redacted(data.to_owned().into());
    }
    from_google(&content).unwrap_or(Seal::Encrypted { id, content })
}
