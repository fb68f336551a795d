//! Tokens by class, read from each provider's own usage objects. The classes do not overlap:
//! Anthropic counts cached tokens beside its input, OpenAI inside.

use serde::{Deserialize, Deserializer};

/// No request has more: sums and prices of counts up to here cannot overflow.
const MOST: u64 = 1 << 40;

/// A count of tokens, as it comes.
fn count<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<u64>::deserialize(value)?.map(|tokens| tokens.min(MOST)))
}

/// No request makes more: sums of them cannot overflow.
const MOST_SEARCHES: u64 = 1 << 20;

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
    /// Searches that the provider made for the reply, which it charges by the piece.
    pub(crate) web_searches: Option<u64>,
    /// None: it did not say, which is the standard one.
    pub(crate) tier: Option<Tier>,
    /// Anthropic's `speed: fast`.
    pub(crate) fast: bool,
    /// Anthropic's `inference_geo: us`.
    pub(crate) in_us: bool,
}

/// How soon, and how dear, a request was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tier {
    Standard,
    Batch,
    Flex,
    Priority,
    Ultrafast,
    /// A word that we do not know, and a price neither.
    Other,
}

impl Tier {
    fn of(word: &str) -> Self {
        match word {
            // Capacity that was bought ahead (`scale`) has no price by the token of its own.
            "standard" | "default" | "auto" | "scale" => Self::Standard,
            "batch" => Self::Batch,
            "flex" => Self::Flex,
            "priority" => Self::Priority,
            "ultrafast" => Self::Ultrafast,
            _ => Self::Other,
        }
    }

    /// As in `llm_requests.service_tier`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Priority => "priority",
            Self::Ultrafast => "ultrafast",
            Self::Other => "other",
        }
    }
}

impl Usage {
    /// All that went in, by which some models have another price.
    pub(crate) fn total_input(&self) -> u64 {
        [self.input, self.cache_read, self.cache_write()]
            .into_iter()
            .flatten()
            .fold(0, u64::saturating_add)
    }

    /// The provider said nothing.
    pub(crate) fn is_unknown(&self) -> bool {
        self.input.is_none() && self.output.is_none()
    }

    pub(crate) fn cache_write(&self) -> Option<u64> {
        match (self.cache_write_5m, self.cache_write_1h) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or_default().saturating_add(b.unwrap_or_default())),
        }
    }
}

/// `usage` of Anthropic's messages, whole (`message_start`, a JSON reply) or cumulative
/// (`message_delta`), <https://platform.claude.com/docs/en/api/messages-streaming>.
#[derive(Clone, Debug, Default, Deserialize)]
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
    server_tool_use: Option<ServerToolUse>,
    service_tier: Option<String>,
    speed: Option<String>,
    inference_geo: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct ServerToolUse {
    web_search_requests: Option<u64>,
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
    /// A total of cache writes beyond the split by lifetime is of the short kind; the split may be in
    /// `message_start` alone, while the total still grows.
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
        set(
            &mut usage.web_searches,
            self.server_tool_use
                .and_then(|used| used.web_search_requests)
                .map(|n| n.min(MOST_SEARCHES)),
        );
        if let Some(tier) = &self.service_tier {
            // Theirs is capacity that was bought ahead; by the token it costs what the standard does.
            usage.tier = Some(match Tier::of(tier) {
                Tier::Priority => Tier::Standard,
                tier => tier,
            });
        }
        if let Some(speed) = &self.speed {
            usage.fast = speed == "fast";
        }
        if let Some(geo) = &self.inference_geo {
            usage.in_us = geo == "us";
        }
        if let Some(split) = self.cache_creation {
            set(&mut usage.cache_write_1h, split.ephemeral_1h_input_tokens);
            set(&mut usage.cache_write_5m, split.ephemeral_5m_input_tokens);
        }
        if let Some(total) = self.cache_creation_input_tokens {
            // Never more of the long kind than there is of both.
            usage.cache_write_1h = usage.cache_write_1h.map(|long| long.min(total));
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
        let cached = prompt
            .cached_tokens
            .unwrap_or_default()
            .saturating_add(prompt.cache_write_tokens.unwrap_or_default());
        Self {
            input: usage.prompt_tokens.map(|tokens| tokens.saturating_sub(cached)),
            output: usage.completion_tokens,
            cache_read: prompt.cached_tokens,
            cache_write_5m: prompt.cache_write_tokens,
            reasoning: usage.completion_tokens_details.unwrap_or_default().reasoning_tokens,
            ..Self::default()
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

impl Usage {
    /// `service_tier` of OpenAI's replies, which stands beside their usage.
    pub(crate) fn served_as(&mut self, tier: &str) {
        self.tier = Some(Tier::of(tier));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_total_of_cache_writes_has_beyond_the_split_is_of_the_short_kind() {
        let mut usage = Usage::default();
        let start = r#"{"input_tokens":5,"cache_creation_input_tokens":500,
            "cache_creation":{"ephemeral_5m_input_tokens":300,"ephemeral_1h_input_tokens":200}}"#;
        serde_json::from_str::<AnthropicUsage>(start).unwrap().apply(&mut usage);
        let delta = r#"{"cache_creation_input_tokens":900,"output_tokens":7,
            "server_tool_use":{"web_search_requests":2},"service_tier":"priority"}"#;
        serde_json::from_str::<AnthropicUsage>(delta).unwrap().apply(&mut usage);
        assert_eq!((usage.cache_write_5m, usage.cache_write_1h), (Some(700), Some(200)));
        assert_eq!((usage.web_searches, usage.tier), (Some(2), Some(Tier::Standard)));
    }
}
