//! Tokens by class, read from each provider's own usage objects. The classes do not overlap:
//! Anthropic counts cached tokens beside its input, OpenAI inside.

use serde::{Deserialize, Deserializer};

/// No request has more: sums and prices of counts up to here cannot overflow.
const MOST: u64 = 1 << 40;

/// A count of tokens, as it comes.
fn count<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<u64>::deserialize(value)?.map(|tokens| tokens.min(MOST)))
}

/// Tokens of one request. `None`: the provider did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Without anything that was cached.
    pub(crate) input: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) cache_read: Option<u64>,
    pub(crate) cache_write_5m: Option<u64>,
    pub(crate) cache_write_1h: Option<u64>,
    /// Part of `output`.
    pub(crate) reasoning: Option<u64>,
}

impl Usage {
    /// The provider said nothing.
    pub(crate) fn is_unknown(&self) -> bool {
        self.input.is_none() && self.output.is_none()
    }

    pub(crate) fn cache_write(&self) -> Option<u64> {
        match (self.cache_write_5m, self.cache_write_1h) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or_default() + b.unwrap_or_default()),
        }
    }
}

/// `usage` of Anthropic's messages, whole (`message_start`, a JSON reply) or cumulative
/// (`message_delta`), <https://platform.claude.com/docs/en/api/messages-streaming>.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct AnthropicUsage {
    #[serde(default, deserialize_with = "count")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    output_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    cache_read_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct CacheCreation {
    #[serde(default, deserialize_with = "count")]
    ephemeral_5m_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct OutputDetails {
    #[serde(default, deserialize_with = "count")]
    thinking_tokens: Option<u64>,
}

impl AnthropicUsage {
    /// Replaces, never adds: each number is the total so far, and only those that are there count.
    /// A total of cache writes beyond the split by lifetime is of the short kind.
    pub(crate) fn apply(&self, usage: &mut Usage) {
        let set = |slot: &mut Option<u64>, value: Option<u64>| {
            if value.is_some() {
                *slot = value;
            }
        };
        set(&mut usage.input, self.input_tokens);
        set(&mut usage.output, self.output_tokens);
        set(&mut usage.cache_read, self.cache_read_input_tokens);
        set(
            &mut usage.reasoning,
            self.output_tokens_details.and_then(|details| details.thinking_tokens),
        );
        if let Some(split) = self.cache_creation {
            set(&mut usage.cache_write_1h, split.ephemeral_1h_input_tokens);
            set(&mut usage.cache_write_5m, split.ephemeral_5m_input_tokens);
        }
        if let Some(total) = self.cache_creation_input_tokens {
            usage.cache_write_5m =
                Some(total.saturating_sub(usage.cache_write_1h.unwrap_or_default()));
        }
    }
}

/// `usage` of OpenAI's chat completions, responses and embeddings.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct OpenAiUsage {
    #[serde(default, deserialize_with = "count", alias = "input_tokens")]
    prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count", alias = "output_tokens")]
    completion_tokens: Option<u64>,
    #[serde(alias = "input_tokens_details")]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(alias = "output_tokens_details")]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct PromptDetails {
    #[serde(default, deserialize_with = "count")]
    cached_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    cache_write_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct CompletionDetails {
    #[serde(default, deserialize_with = "count")]
    reasoning_tokens: Option<u64>,
}

impl From<OpenAiUsage> for Usage {
    fn from(usage: OpenAiUsage) -> Self {
        let prompt = usage.prompt_tokens_details.unwrap_or_default();
        let cached = prompt.cached_tokens.unwrap_or_default()
            + prompt.cache_write_tokens.unwrap_or_default();
        Self {
            input: usage.prompt_tokens.map(|tokens| tokens.saturating_sub(cached)),
            output: usage.completion_tokens,
            cache_read: prompt.cached_tokens,
            cache_write_5m: prompt.cache_write_tokens,
            cache_write_1h: None,
            reasoning: usage.completion_tokens_details.unwrap_or_default().reasoning_tokens,
        }
    }
}

/// `usageMetadata` of Gemini, which is of the whole reply in each piece of a stream. What was cached is
/// within the prompt; thoughts are beside what was said.
/// <https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerateContentResponse>
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GeminiUsage {
    #[serde(default, deserialize_with = "count")]
    prompt_token_count: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    cached_content_token_count: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    candidates_token_count: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    thoughts_token_count: Option<u64>,
    /// What came of Google's own tools, read by the model.
    #[serde(default, deserialize_with = "count")]
    tool_use_prompt_token_count: Option<u64>,
}

impl GeminiUsage {
    /// Replaces, never adds: a piece that says less takes nothing back.
    pub(crate) fn apply(&self, usage: &mut Usage) {
        if let Some(prompt) = self.prompt_token_count {
            let cached = self.cached_content_token_count;
            let tools = self.tool_use_prompt_token_count.unwrap_or_default();
            usage.input = Some(prompt.saturating_sub(cached.unwrap_or_default()) + tools);
            usage.cache_read = cached.or(usage.cache_read);
        }
        if self.candidates_token_count.is_some() || self.thoughts_token_count.is_some() {
            let thoughts = self.thoughts_token_count.unwrap_or_default();
            usage.output = Some(self.candidates_token_count.unwrap_or_default() + thoughts);
            usage.reasoning = self.thoughts_token_count.or(usage.reasoning);
        }
    }
}
